//! `fsGroup`: the group that owns a volume's files, with upstream's permission bits.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, fchownat};

/// The group of a volume and whether pods only read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FsGroup {
    pub(crate) gid: u32,
    pub(crate) read_only: bool,
    /// Leave a volume alone whose root looks right already.
    pub(crate) on_root_mismatch: bool,
}

impl FsGroup {
    fn file_bits(self) -> u32 {
        if self.read_only { 0o440 } else { 0o660 }
    }

    fn dir_bits(self) -> u32 {
        // The set-group-id bit hands the group down to what is made inside.
        self.file_bits() | 0o110 | 0o2000
    }
}

/// One regular file that was just written with `mode`.
pub(super) fn apply_to_file(path: &Path, mode: u32, uid: Option<u32>, group: Option<FsGroup>) -> io::Result<()> {
    if uid.is_none() && group.is_none() {
        return Ok(());
    }
    lchown(path, uid, group.map(|g| g.gid))?;
    if let Some(group) = group {
        fs::set_permissions(path, Permissions::from_mode(mode | group.file_bits()))?;
    }
    Ok(())
}

/// A whole tree.
///
/// # Errors
/// When the file system refuses.
pub(super) fn apply(root: &Path, group: FsGroup) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    let right = meta.gid() == group.gid && meta.mode() & group.dir_bits() == group.dir_bits();
    if group.on_root_mismatch && right {
        return Ok(());
    }
    apply_below(root, group)?;
    apply_one(&File::open(root)?.into(), group)
}

/// Goes by descriptors: a pod that uses the volume already may swap what is in it for links.
fn apply_below(dir: &Path, group: FsGroup) -> io::Result<()> {
    runtime::walk_tree(dir, |parent, name, _| {
        match openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => apply_one(&fd, group),
            Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    })
}

fn apply_one(fd: &OwnedFd, group: FsGroup) -> io::Result<()> {
    let meta = File::from(fd.try_clone()?).metadata()?;
    if meta.gid() != group.gid {
        fchownat(fd, c"", None, Some(Gid::from_raw(group.gid)), AtFlags::AT_EMPTY_PATH)?;
    }
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let bits = if meta.is_dir() { group.dir_bits() } else { group.file_bits() };
    let mode = meta.mode() & 0o7777;
    if mode | bits != mode {
        // A descriptor that was opened by path only has no other way to its mode.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(mode | bits))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_gets_its_group_and_links_lead_nowhere() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: giving files away takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("sub")).unwrap();
        for file in [&outside, &root.join("sub/file")] {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, root.join("sub/link")).unwrap();
        apply(&root, FsGroup { gid: 4321, read_only: false, on_root_mismatch: false }).unwrap();
        let seen = |path: &Path| {
            let meta = fs::symlink_metadata(path).unwrap();
            (meta.gid(), meta.mode() & 0o7777)
        };
        assert_eq!(seen(&root), (4321, 0o2775));
        assert_eq!(seen(&root.join("sub")), (4321, 0o2775));
        assert_eq!(seen(&root.join("sub/file")), (4321, 0o660));
        assert_eq!(seen(&root.join("sub/link")).0, 4321);
        assert_eq!(seen(&outside), (0, 0o600));
    }
}
