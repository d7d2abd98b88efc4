//! Directories for volumes, and the tmpfs that keeps secrets off the disk.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::payload::BYTES_MAX;

/// A new generation is written before the old one goes. The kernel takes memory only for what is
/// written; small files take a page each.
const SIZE: usize = 2 * BYTES_MAX + (4 << 20);

/// Makes a directory of that mode, the ones above it for root alone.
pub(super) fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Only for directories on whose parent nothing else is bound.
pub(crate) fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

/// Mounts a tmpfs at `dir`. Files that a release before this one left there on disk are removed when
/// nothing uses them; a running container goes on with them, since it would see nothing else.
pub(super) fn prepare(dir: &Path, unused: bool) -> io::Result<()> {
    make_dir(dir, 0o755)?;
    if is_mount_point(dir)? {
        return Ok(());
    }
    if fs::read_dir(dir)?.next().is_some() {
        if !unused {
            return Ok(());
        }
        runtime::remove_tree(dir)?;
        make_dir(dir, 0o755)?;
    }
    runtime::unswapped_tmpfs(dir, &format!("mode=0755,size={SIZE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::umount;

    #[test]
    fn secrets_are_in_memory_and_old_files_on_disk_go() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes/s");
        prepare(&volume, false).unwrap();
        let above = fs::metadata(dir.path().join("volumes")).unwrap().permissions().mode();
        assert_eq!(above & 0o777, 0o700);
        fs::write(volume.join("key"), "secret").unwrap();
        prepare(&volume, false).unwrap();
        assert!(volume.join("key").exists(), "a second time changes nothing");
        umount(&volume).unwrap();
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "nothing was on the disk");

        fs::write(volume.join("key"), "of an earlier release").unwrap();
        prepare(&volume, false).unwrap();
        assert!(!is_mount_point(&volume).unwrap(), "a running container sees the directory");
        prepare(&volume, true).unwrap();
        assert!(is_mount_point(&volume).unwrap());
        umount(&volume).unwrap();
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "the old files are gone");
    }
}
