//! Directory trees that a container or an image made, of any depth.
//!
//! Nesting costs a container nothing, and a walk by recursion, by whole paths or with a descriptor a
//! level ends in an overflown stack, at `PATH_MAX`, or without descriptors for anything else. These
//! walks hold one directory open, go down by name and up by `..`, and never follow a link.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Tells whether `..` still leads to where the walk came from.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(dir: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(dir)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

fn up(from: &OwnedFd, expected: Identity) -> io::Result<OwnedFd> {
    let parent = openat(from, c"..", DIRECTORY, Mode::empty())?;
    if Identity::of(&parent)? == expected { Ok(parent) } else { Err(io::Error::other("a directory was moved")) }
}

fn list(dir: &OwnedFd) -> io::Result<Dir> {
    // Opened anew, because the position in a directory belongs to its open description.
    Ok(Dir::openat(dir, c".", DIRECTORY, Mode::empty())?)
}

/// Removes whatever is at `path`; what is not there is removed already. Mount points stay and fail it.
///
/// # Errors
/// When the file system refuses.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return absent_is_fine(fs::remove_file(path)),
        Err(error) => return absent_is_fine(Err(error)),
    }
    let mut at = openat(AT_FDCWD, path, DIRECTORY, Mode::empty())?;
    let mut above = Vec::new();
    loop {
        if let Some(child) = clear(&at)? {
            above.push(Identity::of(&at)?);
            at = openat(&at, &*child, DIRECTORY, Mode::empty())?;
        } else if let Some(parent) = above.pop() {
            at = up(&at, parent)?;
        } else {
            return absent_is_fine(fs::remove_dir(path));
        }
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes files and empty directories; the first directory that is not empty ends it.
fn clear(dir: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in list(dir)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut removed = match entry.file_type() {
            Some(Type::Directory) => Err(Errno::EISDIR),
            Some(_) | None => unlinkat(dir, name, UnlinkatFlags::NoRemoveDir),
        };
        if removed == Err(Errno::EISDIR) {
            removed = unlinkat(dir, name, UnlinkatFlags::RemoveDir);
        }
        match removed {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// What is left to do in a directory above the current one.
struct Level {
    identity: Identity,
    left: Names,
}

/// Names one after the other, each with its zero: a directory may have millions.
#[derive(Default)]
struct Names(Vec<u8>);

impl Names {
    fn push(&mut self, name: &CStr) {
        self.0.extend_from_slice(name.to_bytes_with_nul());
    }

    fn pop(&mut self) -> Option<CString> {
        self.0.pop()?;
        let begin = self.0.iter().rposition(|byte| *byte == 0).map_or(0, |zero| zero + 1);
        CString::new(self.0.split_off(begin)).ok()
    }
}

/// Visits everything below `root` on its file system, directories before what they hold. What
/// vanishes meanwhile is left out.
///
/// # Errors
/// What `visit` returns; also when a directory cannot be read or is moved during the walk.
pub fn walk_tree(
    root: &Path,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, &FileStat) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = openat(AT_FDCWD, root, DIRECTORY, Mode::empty())?;
    let device = Identity::of(&at)?.device;
    let mut left = visit_all(&at, device, &mut visit)?;
    let mut above: Vec<Level> = Vec::new();
    loop {
        if let Some(name) = left.pop() {
            let next = match openat(&at, &*name, DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                other => other?,
            };
            let below = visit_all(&next, device, &mut visit)?;
            above.push(Level { identity: Identity::of(&at)?, left });
            (at, left) = (next, below);
        } else if let Some(level) = above.pop() {
            (at, left) = (up(&at, level.identity)?, level.left);
        } else {
            return Ok(());
        }
    }
}

/// Visits the entries of one directory and returns which are directories.
fn visit_all(
    dir: &OwnedFd,
    device: u64,
    visit: &mut impl FnMut(BorrowedFd<'_>, &CStr, &FileStat) -> io::Result<()>,
) -> io::Result<Names> {
    let mut directories = Names::default();
    for entry in list(dir)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        visit(dir.as_fd(), name, &stat)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR && stat.st_dev == device {
            directories.push(name);
        }
    }
    Ok(directories)
}

/// What a directory takes of its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeUsage {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::Add for TreeUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

impl std::iter::Sum for TreeUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// What directories take, counted by one thread while others read the count or end it.
#[derive(Debug, Default)]
pub struct TreeCount {
    bytes: AtomicU64,
    inodes: AtomicU64,
    ended: AtomicBool,
}

impl TreeCount {
    /// Adds blocks and inodes of everything below `dir`. Returns whether all of it was counted: a
    /// container can move directories about to lead a walk astray.
    pub fn walk(&self, dir: &Path) -> bool {
        let walked = walk_tree(dir, |_, _, stat| {
            if self.ended.load(Ordering::Relaxed) {
                return Err(ErrorKind::Interrupted.into());
            }
            self.add(TreeUsage { bytes: stat.st_blocks.unsigned_abs() * BLOCK, inodes: 1 });
            Ok(())
        });
        complain(dir, &walked);
        absent_is_fine(walked).is_ok()
    }

    pub fn add(&self, usage: TreeUsage) {
        self.bytes.fetch_add(usage.bytes, Ordering::Relaxed);
        self.inodes.fetch_add(usage.inodes, Ordering::Relaxed);
    }

    /// A walk ends at its next file.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn so_far(&self) -> TreeUsage {
        TreeUsage { bytes: self.bytes.load(Ordering::Relaxed), inodes: self.inodes.load(Ordering::Relaxed) }
    }
}

/// The lengths of all files below `dir`, as far as they can be read.
pub(crate) fn content_bytes(dir: &Path) -> u64 {
    let is_file = |stat: &FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let mut total = 0_u64;
    let walked = walk_tree(dir, |_, _, stat| {
        if is_file(stat) {
            total = total.saturating_add(stat.st_size.unsigned_abs());
        }
        Ok(())
    });
    complain(dir, &walked);
    total
}

fn complain(dir: &Path, walked: &io::Result<()>) {
    if let Err(error) = walked {
        tracing::debug!(dir = %dir.display(), %error, "not all of a directory could be measured");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far beyond `PATH_MAX`, the usual limit of descriptors, and a thread's stack.
    const DEPTH: usize = 5_000;

    fn nest(dir: &Path) {
        let mut at = openat(AT_FDCWD, dir, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            nix::sys::stat::mkdirat(&at, c"d", Mode::S_IRWXU).unwrap();
            at = openat(&at, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
        let file = openat(&at, c"file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap();
        nix::unistd::write(&file, &[1; 10_000]).unwrap();
    }

    #[test]
    fn trees_of_any_depth_are_measured_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        nest(&root);
        assert_eq!(content_bytes(&root), 10_000);
        remove_tree(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn links_are_neither_followed_nor_their_targets_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), vec![1; 100_000]).unwrap();
        fs::write(root.join("a/b/file"), "12345").unwrap();
        fs::write(root.join("c/file"), "123").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("a/link")).unwrap();
        assert_eq!(content_bytes(&root), 8);
        let mut seen = Vec::new();
        walk_tree(&root, |_, name, _| {
            seen.push(name.to_str().unwrap().to_owned());
            Ok(())
        })
        .unwrap();
        seen.sort();
        assert_eq!(seen, ["a", "b", "c", "file", "file", "link"]);
        remove_tree(&root.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        remove_tree(&root).unwrap();
        assert!(outside.join("kept").exists() && !root.exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn blocks_and_inodes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        let count = TreeCount::default();
        assert!(count.walk(dir.path()));
        let usage = count.so_far();
        assert!((100_000..200_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(usage.inodes, 2);
        assert!(count.walk(&dir.path().join("absent")), "nothing is there, and that is all");
        assert_eq!(count.so_far(), usage);
        count.end();
        assert!(!count.walk(dir.path()));
        assert_eq!(count.so_far(), usage, "an ended walk keeps what it counted");
    }
}
