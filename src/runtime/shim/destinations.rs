//! Where a container's mounts go: the paths that a pod and an image name, as plain paths below the
//! container's root.
//!
//! As with other runtimes such a path is cleaned, links in it are followed as if the root were `/`, also
//! those that lead nowhere, and what is missing is taken for directories that are made. Of an image and of
//! volumes only links are read here, each below a [`RootDir`] that follows none. libcontainer makes and
//! opens the plain path that comes out and confines that by itself, so what somebody changes meanwhile in
//! a volume leads nowhere else.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use crate::error::{Error, Result};
use crate::sys::rootdir::{Links, RootDir};
use crate::types::Mount;

/// As many links of one path are followed as other runtimes follow.
const LINKS_MAX: usize = 255;
/// What is mounted on these in every container has no links yet that a path could lead over.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What may be mounted over below `/proc`: files that a container may see other figures in.
const BELOW_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// The absolute path without detours that a text means.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// The mounts with the places where they go, in the order in which they are made: parents first.
///
/// # Errors
/// When nothing may be mounted at one of the places.
pub(super) fn resolve(mut mounts: Vec<Mount>, rootfs: &Path) -> Result<Vec<Mount>> {
    for mount in &mut mounts {
        mount.container_path = plain(&mount.container_path);
    }
    mounts.sort_by_key(|mount| depth(&mount.container_path));
    let mut placed = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let failed = |why: String| {
            let Mount { host_path, container_path, .. } = &mount;
            Error::Start(format!(
                "unable to start container process: error during container init: error mounting {host_path:?} to \
                 rootfs at {container_path:?}: {why}"
            ))
        };
        let place = Stack { rootfs, placed: &placed }.follow(&mount.container_path);
        let place = place.map_err(|error| failed(error.to_string()))?;
        check(&place, &mount.host_path).map_err(failed)?;
        placed.push(Mount { container_path: place, ..mount });
    }
    Ok(placed)
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

/// Neither the root itself nor what tells programs of the kernel is covered.
fn check(place: &Path, source: &Path) -> Result<(), String> {
    if place == Path::new("/") {
        return Err("create mountpoint for / mount: mountpoint \"/\" is on the top of rootfs".to_owned());
    }
    if place == Path::new("/proc") {
        return match statfs(source) {
            Ok(found) if found.filesystem_type() == PROC_SUPER_MAGIC => Ok(()),
            Ok(_) => Err("\"/proc\" cannot be mounted because it is not of type proc".to_owned()),
            Err(error) => Err(io::Error::from(error).to_string()),
        };
    }
    if place.starts_with("/proc") && !BELOW_PROC.iter().any(|file| place == Path::new(file)) {
        return Err(format!("{place:?} cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

/// A container's root with what is mounted in it so far.
struct Stack<'a> {
    rootfs: &'a Path,
    /// At plain places.
    placed: &'a [Mount],
}

impl Stack<'_> {
    fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        let mut place = PathBuf::from("/");
        let mut left = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                place.pop();
                continue;
            }
            place.push(part);
            let Some(target) = self.link(&place)? else { continue };
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            place.pop();
            if target.is_absolute() {
                place = PathBuf::from("/");
            }
            left.extend(parts(&target));
        }
        Ok(place)
    }

    /// Where the link leads that is at this place, if one is. Above it there are none.
    fn link(&self, place: &Path) -> io::Result<Option<PathBuf>> {
        let covers = |mount: &&Mount| place.starts_with(&mount.container_path);
        // Of several at one place the last one is seen.
        let above = self.placed.iter().filter(covers).max_by_key(|mount| depth(&mount.container_path));
        let (dir, below) = match above {
            // A volume for /dev is moved there last of all.
            Some(mount) if mount.container_path == Path::new("/dev") => return Ok(None),
            Some(mount) => (&*mount.host_path, place.strip_prefix(&mount.container_path).unwrap_or(place)),
            None if KERNEL.iter().any(|dir| place.starts_with(dir)) => return Ok(None),
            None => (self.rootfs, place.strip_prefix("/").unwrap_or(place)),
        };
        if below.as_os_str().is_empty() {
            return Ok(None);
        }
        match RootDir::open_with(dir, Links::Refused).and_then(|dir| dir.link(below)) {
            // What is missing is made; what is below a file is refused by the kernel.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            found => found,
        }
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use crate::types::Propagation;

    fn bind(host_path: &Path, container_path: &str) -> Mount {
        Mount {
            host_path: host_path.to_owned(),
            container_path: container_path.into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        }
    }

    /// A root and a volume, both with links.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        for made in [root.join("etc"), root.join("data"), root.join("dev"), volume.join("dir")] {
            fs::create_dir_all(made).unwrap();
        }
        for (target, link) in [
            ("../run/resolve/stub.conf", "etc/resolv.conf"),
            ("/nowhere/deep", "dangling"),
            ("../../../../outside", "escape"),
            ("/etc", "data/etc"),
            ("two", "one"),
            ("one", "two"),
            ("/x", "dev/x"),
            ("/proc/self", "self"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink("/etc/made", volume.join("out")).unwrap();
        dir
    }

    #[test]
    fn links_are_followed_within_the_root_also_where_they_lead_nowhere() {
        let dir = tree();
        let root = dir.path().join("root");
        for (path, expected) in [
            ("/etc/resolv.conf", "/run/resolve/stub.conf"),
            ("/dangling", "/nowhere/deep"),
            ("/dangling/below", "/nowhere/deep/below"),
            ("/escape/x", "/outside/x"),
            ("/data/etc/resolv.conf", "/run/resolve/stub.conf"),
            ("/data/../dangling", "/nowhere/deep"),
            ("/a/../b/./c/", "/b/c"),
            ("../../b", "/b"),
            ("relative", "/relative"),
            // A tmpfs without links will be mounted over what the image has there.
            ("/dev/x/y", "/dev/x/y"),
        ] {
            let placed = resolve(vec![bind(dir.path(), path)], &root).unwrap();
            assert_eq!(placed[0].container_path, Path::new(expected), "{path}");
        }
        let error = resolve(vec![bind(Path::new("/v"), "/one/x")], &root).unwrap_err().to_string();
        assert!(
            error.contains("mounting \"/v\" to rootfs at \"/one/x\": Too many levels of symbolic links"),
            "{error}"
        );
    }

    #[test]
    fn links_of_a_volume_are_followed_where_it_is_mounted() {
        let dir = tree();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        let mounts = ["/data/out/x", "/data", "/data/etc/y", "/data/dir"].map(|path| bind(&volume, path));
        let placed = resolve(mounts.to_vec(), &root).unwrap();
        let places = placed.iter().map(|mount| mount.container_path.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(places, ["/data", "/data/dir", "/etc/made/x", "/data/etc/y"], "the volume hides /data/etc");
    }

    #[test]
    fn neither_the_root_nor_what_the_kernel_tells_is_covered() {
        let dir = tree();
        let root = dir.path().join("root");
        let start = "unable to start container process: error during container init: error mounting";
        for (source, path, expected) in [
            (
                "/v",
                "/",
                Some(
                    "\"/v\" to rootfs at \"/\": create mountpoint for / mount: mountpoint \"/\" is on the top of rootfs",
                ),
            ),
            (
                "/v",
                "/a/..",
                Some(
                    "\"/v\" to rootfs at \"/\": create mountpoint for / mount: mountpoint \"/\" is on the top of rootfs",
                ),
            ),
            (
                "/tmp",
                "/proc",
                Some("\"/tmp\" to rootfs at \"/proc\": \"/proc\" cannot be mounted because it is not of type proc"),
            ),
            ("/proc", "/proc", None),
            (
                "/tmp",
                "/proc/1/x",
                Some("\"/tmp\" to rootfs at \"/proc/1/x\": \"/proc/1/x\" cannot be mounted because it is inside /proc"),
            ),
            (
                "/tmp",
                "/self/attr",
                Some(
                    "\"/tmp\" to rootfs at \"/self/attr\": \"/proc/self/attr\" cannot be mounted because it is inside /proc",
                ),
            ),
            ("/tmp", "/proc/meminfo", None),
            ("/tmp", "/process", None),
            ("/tmp", "/sys", None),
            ("/tmp", "/dev", None),
        ] {
            let error = resolve(vec![bind(Path::new(source), path)], &root).err().map(|error| error.to_string());
            assert_eq!(error, expected.map(|text| format!("{start} {text}")), "{path}");
        }
    }
}
