//! The files that every container of a pod gets: /etc/hosts, /etc/resolv.conf and /etc/hostname. Blocks:
//! only in the disk room.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::volumes::{ETC_HOSTS, HOSTNAME, RESOLV_CONF};

/// More than any sane file of the node; glibc reads three name servers and a line of search domains.
const NODE_FILE_MAX: u64 = 1 << 20;

/// Where they are written, and the node's own that they may be made from.
pub(super) struct PodFiles {
    pub(super) dir: PathBuf,
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts_file: PathBuf,
}

pub(super) struct Texts {
    pub(super) resolv_conf: String,
    pub(super) hosts: String,
    pub(super) hostname: String,
    /// What the resolver settings had to leave out.
    pub(super) warnings: Vec<String>,
}

impl PodFiles {
    /// Writes what `texts` makes of the node's resolver settings and hosts file; gives its warnings back.
    pub(super) fn write(&self, texts: impl FnOnce(&str, &str) -> Texts) -> io::Result<Vec<String>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let Texts { resolv_conf, hosts, hostname, warnings } =
            texts(&node_file(&self.resolv_conf), &node_file(&self.hosts_file));
        for (name, text) in [(RESOLV_CONF, resolv_conf), (ETC_HOSTS, hosts), (HOSTNAME, hostname)] {
            write_if_changed(&self.dir.join(name), &text)?;
        }
        Ok(warnings)
    }
}

/// A node without such a file has none to pass on.
fn node_file(path: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(NODE_FILE_MAX).read_to_end(&mut text));
    read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

/// A container may have changed its own copy, to any size: it is compared no further than the
/// kubelet's text goes, and rewritten in place, since it is open in containers.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
    let meta = file.metadata()?;
    if meta.len() == text.len() as u64 {
        let mut old = Vec::with_capacity(text.len());
        (&mut file).take(text.len() as u64).read_to_end(&mut old)?;
        if old == text.as_bytes() {
            return Ok(());
        }
    }
    if meta.len() == 0 {
        // Past the umask: any user of the container reads it.
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_container_grew_costs_nothing_and_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let files = PodFiles {
            dir: dir.path().join("pod"),
            resolv_conf: dir.path().join("resolv.conf"),
            hosts_file: dir.path().join("absent"),
        };
        fs::write(&files.resolv_conf, "nameserver 10.0.0.1\n").unwrap();
        let write = || {
            files.write(|resolv_conf, hosts| {
                assert_eq!(hosts, "");
                let (hosts, hostname) = ("127.0.0.1 localhost\n".to_owned(), "web\n".to_owned());
                Texts { resolv_conf: resolv_conf.to_owned(), hosts, hostname, warnings: vec!["cut".to_owned()] }
            })
        };
        assert_eq!(write().unwrap(), ["cut"]);
        let hosts = files.dir.join(ETC_HOSTS);
        assert_eq!(hosts.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(files.dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        // As large as no buffer can be.
        OpenOptions::new().write(true).open(&hosts).unwrap().set_len(1 << 42).unwrap();
        write().unwrap();
        assert_eq!(fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n");
        fs::write(&hosts, "127.0.0.1 tampered!\n").unwrap();
        write().unwrap();
        assert_eq!(fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(fs::read_to_string(files.dir.join(RESOLV_CONF)).unwrap(), "nameserver 10.0.0.1\n");
    }
}
