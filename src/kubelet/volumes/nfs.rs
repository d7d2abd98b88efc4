//! nfs volumes, mounted by the kernel.
//!
//! Version 4 as a rule, the newest that the server speaks; version 3 only where a persistent volume's
//! mount options ask for it, because its locks need helpers that are not here. A server that does not
//! answer holds the kernel for minutes: its mounts take threads in the server's name.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::memory::make_dir;

/// The kernel gives up a server after about two minutes; the pod is told earlier and tries again.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
const PORT: u16 = 2049;
/// Minor versions, as they are tried.
const VERSIONS: [&str; 3] = ["4.2", "4.1", "4.0"];

/// An export and how it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nfs {
    server: String,
    export: String,
    pub(super) read_only: bool,
    flags: MsFlags,
    /// Options that the kernel's client reads, and the versions to try.
    options: Vec<String>,
    versions: Vec<String>,
}

impl Nfs {
    /// # Errors
    /// With the text of the event, where an option has no meaning here.
    pub(super) fn of(server: &str, export: &str, read_only: bool, options: &[String]) -> Result<Self, String> {
        let mut nfs = Self {
            server: server.to_owned(),
            export: export.to_owned(),
            read_only,
            flags: if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() },
            options: Vec::new(),
            versions: Vec::new(),
        };
        // Each may hold several, as on a command line.
        for option in options.iter().flat_map(|o| o.split(',')).map(str::trim).filter(|o| !o.is_empty()) {
            nfs.take(option)?;
        }
        if nfs.versions.is_empty() {
            nfs.versions = VERSIONS.map(str::to_owned).to_vec();
        }
        Ok(nfs)
    }

    fn take(&mut self, option: &str) -> Result<(), String> {
        let flag = match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            "sync" => MsFlags::MS_SYNCHRONOUS,
            // The defaults, and what only mount(8) itself reads.
            "rw" | "suid" | "dev" | "exec" | "atime" | "async" | "defaults" | "auto" | "noauto" | "_netdev"
            | "nofail" | "fg" => MsFlags::empty(),
            _ => return self.take_option(option),
        };
        self.read_only |= flag == MsFlags::MS_RDONLY;
        self.flags |= flag;
        Ok(())
    }

    fn take_option(&mut self, option: &str) -> Result<(), String> {
        match option.split_once('=') {
            Some(("vers" | "nfsvers", "4")) => self.versions = VERSIONS.map(str::to_owned).to_vec(),
            Some(("vers" | "nfsvers", version @ ("3" | "4.0" | "4.1" | "4.2"))) => {
                self.versions = vec![version.to_owned()];
            }
            Some(("minorversion", minor @ ("0" | "1" | "2"))) => self.versions = vec![format!("4.{minor}")],
            Some(("vers" | "nfsvers" | "minorversion" | "addr" | "clientaddr" | "mountaddr", _)) => {
                return Err(format!("mount option {option:?} is not supported on this node"));
            }
            // The kernel knows what it knows and refuses the rest.
            Some(_) | None => self.options.push(option.to_owned()),
        }
        Ok(())
    }

    /// In whose name threads are taken.
    pub(super) fn owner(&self) -> String {
        format!("nfs:{}", self.server)
    }

    /// Mounts it, unless it is mounted already.
    ///
    /// # Errors
    /// With the text of the event.
    pub(super) fn mount(&self, dir: &Path) -> Result<(), String> {
        let failed = |e: io::Error| format!("mount of {}:{} failed: {e}", self.server, self.export);
        // By the kernel's table: to look at a directory whose server has gone would wait for it.
        if runtime::mount_points().map_err(failed)?.iter().any(|point| point == dir) {
            return Ok(());
        }
        make_dir(dir, 0o750).map_err(failed)?;
        let mounted = self.resolve().and_then(|address| self.mount_from(address, dir));
        mounted.map_err(|e| {
            // Nothing is mounted there; it goes with the pod otherwise.
            let _ = fs::remove_dir(dir);
            if e.raw_os_error() == Some(Errno::ENODEV as i32) {
                return "the kernel of this node has no NFS client (module nfsv4)".to_owned();
            }
            failed(e)
        })
    }

    fn resolve(&self) -> io::Result<IpAddr> {
        let bare = self.server.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(address);
        }
        let found = (bare, PORT).to_socket_addrs()?.next();
        found.map(|a| a.ip()).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the server has no address"))
    }

    fn mount_from(&self, address: IpAddr, dir: &Path) -> io::Result<()> {
        let mut last = io::Error::from(Errno::EPROTONOSUPPORT);
        for version in &self.versions {
            let data = self.data(version, address);
            match mount(Some(&*self.source(address)), dir, Some("nfs"), self.flags, Some(&*data)) {
                Ok(()) => return Ok(()),
                // This server, or this kernel, does not speak that one.
                Err(e @ (Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP)) => last = e.into(),
                Err(e) => return Err(e.into()),
            }
        }
        Err(last)
    }

    fn source(&self, address: IpAddr) -> String {
        match address {
            IpAddr::V6(v6) => format!("[{v6}]:{}", self.export),
            IpAddr::V4(_) => format!("{}:{}", self.server, self.export),
        }
    }

    /// The text that the kernel's client parses.
    fn data(&self, version: &str, address: IpAddr) -> String {
        let mut data = format!("vers={version},addr={address}");
        if version == "3" {
            data.push_str(&format!(",mountaddr={address}"));
            if !self.options.iter().any(|o| o == "lock" || o == "nolock") {
                // Locks that the server knows need rpc.statd, which is not here.
                data.push_str(",nolock");
            }
        }
        for option in &self.options {
            data.push(',');
            data.push_str(option);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Result<Nfs, String> {
        let list: Vec<String> = list.iter().map(|&o| o.to_owned()).collect();
        Nfs::of("nas", "/srv/media", false, &list)
    }

    #[test]
    fn options_become_flags_versions_and_what_the_kernel_reads() {
        let none = options(&[]).unwrap();
        assert_eq!((none.versions.len(), none.flags, none.read_only), (3, MsFlags::empty(), false));
        assert_eq!(none.data("4.2", "10.0.0.2".parse().unwrap()), "vers=4.2,addr=10.0.0.2");
        let some = options(&["nfsvers=4.1,hard", "noatime", "rsize=1048576", "ro", "_netdev"]).unwrap();
        assert_eq!(some.flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert!(some.read_only);
        assert_eq!(some.versions, ["4.1"]);
        assert_eq!(some.data("4.1", "fd00::2".parse().unwrap()), "vers=4.1,addr=fd00::2,hard,rsize=1048576");
        assert_eq!(some.source("fd00::2".parse().unwrap()), "[fd00::2]:/srv/media");
        assert_eq!(some.source("10.0.0.2".parse().unwrap()), "nas:/srv/media");
    }

    #[test]
    fn version_three_is_for_those_who_ask() {
        let old = options(&["vers=3", "soft"]).unwrap();
        let data = old.data("3", "10.0.0.2".parse().unwrap());
        assert_eq!(data, "vers=3,addr=10.0.0.2,mountaddr=10.0.0.2,nolock,soft");
        assert_eq!(options(&["nfsvers=4"]).unwrap().versions, ["4.2", "4.1", "4.0"]);
        assert_eq!(options(&["minorversion=1"]).unwrap().versions, ["4.1"]);
        for bad in ["vers=2", "addr=1.2.3.4", "clientaddr=1.2.3.4"] {
            assert_eq!(options(&[bad]), Err(format!("mount option {bad:?} is not supported on this node")));
        }
    }

    #[test]
    fn pods_share_their_servers_threads() {
        let one = Nfs::of("nas", "/a", false, &[]).unwrap();
        let other = Nfs::of("nas", "/b", true, &[]).unwrap();
        assert_eq!((one.owner(), other.flags), (other.owner(), MsFlags::MS_RDONLY));
    }
}
