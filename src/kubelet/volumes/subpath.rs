//! `subPath`: one directory or file inside a volume, bound to a path of the kubelet's own.
//!
//! A pod can change what is inside its volumes, symlinks included, while the kubelet looks. So the
//! kernel resolves the path once, confined to the volume, and the bind mount is made from the
//! descriptor that came out of it, never from a path.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime::{Links, RootDir, by_descriptor};

use super::memory::make_dir;

/// Binds `sub_path` of `volume` to `target`; what is missing is made as directories.
///
/// # Errors
/// When the path leads out of the volume or the kernel refuses.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let source = RootDir::open_with(volume, Links::Beneath)?.find_or_make_dirs(Path::new(sub_path));
    let source = source.map_err(|e| match e.raw_os_error() {
        Some(code) if code == Errno::EXDEV as i32 => {
            io::Error::new(io::ErrorKind::InvalidInput, "subpath leads out of its volume")
        }
        Some(_) | None => e,
    })?;
    let is_dir = File::from(source.try_clone()?).metadata()?.is_dir();
    // A container that starts again finds the mount of the one before.
    let _ = umount2(target, MntFlags::MNT_DETACH);
    if is_dir {
        make_dir(target, 0o700)?;
    } else {
        if let Some(parent) = target.parent() {
            make_dir(parent, 0o700)?;
        }
        OpenOptions::new().create(true).append(true).open(target)?;
    }
    mount(Some(&by_descriptor(&source)), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}
