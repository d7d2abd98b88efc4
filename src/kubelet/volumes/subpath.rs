//! `subPath`: one directory or file inside a volume, bound to a path of the kubelet's own.
//!
//! A pod can change what is inside its volumes, symlinks included, while the kubelet looks. So the
//! kernel resolves the path once, confined to the volume, and the bind mount is made from the
//! descriptor that came out of it, never from a path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};

/// Binds `sub_path` of `volume` to `target`; what is missing is made as directories.
///
/// # Errors
/// When the path leads out of the volume or the kernel refuses.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let root: OwnedFd = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(volume)?.into();
    let source = open_beneath(root, Path::new(sub_path))?;
    let is_dir = File::from(source.try_clone()?).metadata()?.is_dir();
    // A container that starts again finds the mount of the one before.
    let _ = umount2(target, MntFlags::MNT_DETACH);
    if is_dir {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new().create(true).append(true).open(target)?;
    }
    let from = format!("/proc/self/fd/{}", source.as_fd().as_raw_fd());
    mount(Some(from.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens the path inside of `root`, making directories where there is nothing.
fn open_beneath(root: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    match openat2(&root, path, how(OFlag::O_PATH | OFlag::O_CLOEXEC)) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(Errno::EXDEV) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "subpath leads out of its volume"));
        }
        Err(e) => return Err(e.into()),
    }
    // What is made for the pod is as open to it as the volume itself.
    let mode = Mode::from_bits_truncate(fstat(&root)?.st_mode);
    let mut at = root;
    for part in path.components() {
        let Component::Normal(name) = part else {
            if part == Component::CurDir {
                continue;
            }
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "must not contain backstepping path"));
        };
        let made = match mkdirat(&at, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(e) => return Err(e.into()),
        };
        at = openat2(&at, name, how(OFlag::O_PATH | OFlag::O_CLOEXEC))?;
        if made {
            // Past the umask. The descriptor is of the directory itself, so nothing else can be hit.
            let own = format!("/proc/self/fd/{}", at.as_raw_fd());
            fs::set_permissions(own, fs::Permissions::from_mode(mode.bits()))?;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn open(dir: &Path, sub: &str) -> io::Result<()> {
        let root: OwnedFd = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(dir)?.into();
        open_beneath(root, Path::new(sub)).map(drop)
    }

    #[test]
    fn paths_inside_open_and_are_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        open(dir.path(), "a/b/c").unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        open(dir.path(), "open/to").unwrap();
        for made in ["open", "open/to"] {
            assert_eq!(dir.path().join(made).metadata().unwrap().permissions().mode() & 0o7777, 0o2777, "{made}");
        }
        open(dir.path(), "link").unwrap();
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        symlink("../..", dir.path().join("up")).unwrap();
        for path in ["absolute", "absolute/passwd", "up", "up/x", "../x", "a/../../x"] {
            assert!(open(dir.path(), path).is_err(), "{path}");
        }
    }
}
