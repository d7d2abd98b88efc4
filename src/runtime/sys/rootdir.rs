//! Paths below a directory that is not to be trusted: an image layer or a container's root.
//!
//! Every lookup is openat2(2) with `RESOLVE_IN_ROOT`: symbolic links and `..` resolve as if the
//! directory were `/`, so nothing below it can point anywhere else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// An open directory that confines the lookups below it.
#[derive(Debug)]
pub(crate) struct RootDir(OwnedFd);

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RootDir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    fn lookup(&self, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            // EAGAIN: a rename happened during the lookup.
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// The directory at `path`; with `create`, missing parts are made as root's with mode 0755.
    pub(crate) fn dir(&self, path: &Path, create: bool) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        match self.lookup(path, flags, Mode::empty()) {
            Ok(fd) => Ok(fd),
            Err(Errno::ENOENT) if create => {
                let parent = path.parent().ok_or(Errno::ENOENT)?;
                let name = path.file_name().ok_or(Errno::ENOENT)?;
                let parent = self.dir(parent, true)?;
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(self.lookup(path, flags, Mode::empty())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The whole of a regular file of at most `limit` bytes; absent is `None`.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let fd = match self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A path from an archive or a manifest as plain components; `None` when it tries to climb out.
pub(crate) fn relative(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) if part != OsStr::new("") => plain.push(part),
            Component::CurDir | Component::RootDir | Component::Normal(_) => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("secret"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(&outside, "secret").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("relative")).unwrap();
        std::fs::write(root.join("file"), "inside").unwrap();
        let opened = RootDir::open(&root).unwrap();
        assert_eq!(opened.read(Path::new("absolute"), 99).unwrap(), None);
        assert_eq!(opened.read(Path::new("relative"), 99).unwrap(), None);
        assert_eq!(opened.read(Path::new("../../file"), 99).unwrap().as_deref(), Some(&b"inside"[..]));
        opened.dir(Path::new("/made/below"), true).unwrap();
        assert!(root.join("made/below").is_dir());
    }

    #[test]
    fn archive_paths_may_not_climb() {
        assert_eq!(relative(Path::new("./a//b/")), Some(PathBuf::from("a/b")));
        assert_eq!(relative(Path::new("/etc/passwd")), Some(PathBuf::from("etc/passwd")));
        assert_eq!(relative(Path::new("a/../../b")), None);
    }
}
