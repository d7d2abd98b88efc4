//! `fsGroup`: the group that owns a volume's files, with upstream's permission bits.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

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
    apply_one(root, group)
}

fn apply_below(dir: &Path, group: FsGroup) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            apply_below(&entry.path(), group)?;
        }
        apply_one(&entry.path(), group)?;
    }
    Ok(())
}

fn apply_one(path: &Path, group: FsGroup) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if meta.gid() != group.gid {
        lchown(path, None, Some(group.gid))?;
    }
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let bits = if meta.is_dir() { group.dir_bits() } else { group.file_bits() };
    let mode = meta.mode() & 0o7777;
    if mode | bits != mode {
        fs::set_permissions(path, Permissions::from_mode(mode | bits))?;
    }
    Ok(())
}
