//! Paths below a directory that is not to be trusted: an image layer, a container's root, a volume,
//! whatever somebody else may fill with links and pipes while it is looked at.
//!
//! Every lookup is one openat2(2) that the kernel confines to the directory, and everything else is
//! done with the descriptor that comes out, never with a path. A file is opened only once it is
//! known to be a regular one, and is read up to a bound.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

/// What becomes of symbolic links below the directory. None leads out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// They and `..` resolve as if the directory were `/`.
    Confined,
    /// One that leads out is an error.
    Beneath,
    /// Any is an error.
    Refused,
}

/// An open directory that confines the lookups below it.
#[derive(Debug)]
pub struct RootDir {
    dir: OwnedFd,
    links: Links,
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl RootDir {
    /// Opens a directory whose own path is trusted; links below it are confined.
    ///
    /// # Errors
    /// When it is not there or no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, Links::Confined)
    }

    /// # Errors
    /// When it is not there or no directory.
    pub fn open_with(path: &Path, links: Links) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(Self { dir: open(path, flags, Mode::empty())?, links })
    }

    fn lookup(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        look_up(&self.dir, self.links, path, flags)
    }

    /// Whatever is at `path`, to be mounted or inspected; nothing is opened.
    ///
    /// # Errors
    /// When nothing is there, or the path leads out.
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.lookup(path, OFlag::O_PATH)?)
    }

    /// Where the link at `path` leads; `None` when something else is there.
    ///
    /// # Errors
    /// When nothing is there, or the path to it leads out.
    pub(crate) fn link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let found = self.lookup(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        if SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            return Ok(None);
        }
        Ok(Some(readlinkat(&found, "")?.into()))
    }

    /// The regular file at `path`, for reading.
    ///
    /// # Errors
    /// When nothing is there, something else is there, or the path leads out.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        // Looked at before it is opened: opening alone makes a FIFO wait, a tape rewind, a watchdog run.
        let found = self.lookup(path, OFlag::O_PATH)?;
        if SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        Ok(File::from(open(itself.as_str(), flags, Mode::empty())?))
    }

    /// The first `limit` bytes of a regular file; whatever else is there counts as absent.
    ///
    /// # Errors
    /// When the path leads out, or the file cannot be read.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(path) {
            Ok(file) => file,
            // ENXIO is a socket, or a device without a driver.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENXIO)) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The directory at `path`; with `create`, missing parts are made as root's with mode 0755.
    pub(crate) fn dir(&self, path: &Path, create: bool) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        match self.lookup(path, flags) {
            Ok(fd) => Ok(fd),
            Err(Errno::ENOENT) if create => {
                let parent = path.parent().ok_or(Errno::ENOENT)?;
                let name = path.file_name().ok_or(Errno::ENOENT)?;
                let parent = self.dir(parent, true)?;
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(self.lookup(path, flags)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whatever is at `path`; where nothing is, directories are made that are as open as this one.
    ///
    /// # Errors
    /// When the path leads out, or the file system refuses.
    pub fn find_or_make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let mode = fstat(&self.dir)?.st_mode & 0o7777;
        let mut at = self.dir.try_clone()?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                if part == Component::CurDir {
                    continue;
                }
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "must not contain backstepping path"));
            };
            let made = match mkdirat(&at, name, Mode::from_bits_truncate(mode)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(e) => return Err(e.into()),
            };
            at = look_up(&at, self.links, Path::new(name), OFlag::O_PATH)?;
            if made {
                // Past the umask. The descriptor is of the directory itself, so nothing else can be hit.
                std::fs::set_permissions(by_descriptor(&at), Permissions::from_mode(mode))?;
            }
        }
        Ok(at)
    }
}

/// A path to what a descriptor refers to, for calls that take nothing else.
#[must_use]
pub fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn look_up(dir: &OwnedFd, links: Links, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = match links {
        Links::Confined => ResolveFlag::RESOLVE_IN_ROOT,
        Links::Beneath => ResolveFlag::RESOLVE_BENEATH,
        Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        // EAGAIN: a rename happened during the lookup.
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
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
    use std::os::unix::fs::symlink;

    /// `root` with links that lead out, beside `secret`.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        std::fs::write(root.join("file"), "inside").unwrap();
        symlink("file", root.join("inner")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
        (dir, root)
    }

    #[test]
    fn links_stay_inside() {
        let (_dir, root) = tree();
        let opened = RootDir::open(&root).unwrap();
        assert_eq!(opened.read(Path::new("absolute"), 99).unwrap(), None);
        assert_eq!(opened.read(Path::new("relative"), 99).unwrap(), None);
        assert_eq!(opened.read(Path::new("../../file"), 99).unwrap().as_deref(), Some(&b"inside"[..]));
        opened.dir(Path::new("/made/below"), true).unwrap();
        assert!(root.join("made/below").is_dir());
    }

    #[test]
    fn links_are_refused_where_asked() {
        let (_dir, root) = tree();
        for (links, path, ok) in [
            (Links::Beneath, "absolute", false),
            (Links::Beneath, "relative", false),
            (Links::Beneath, "../secret", false),
            (Links::Beneath, "inner", true),
            (Links::Refused, "inner", false),
            (Links::Refused, "relative", false),
            (Links::Refused, "file", true),
        ] {
            let opened = RootDir::open_with(&root, links).unwrap();
            assert_eq!(opened.file(Path::new(path)).is_ok(), ok, "{links:?} {path}");
            assert_eq!(opened.find(Path::new(path)).is_ok(), ok, "{links:?} {path}");
        }
    }

    #[test]
    fn a_link_is_read_and_not_followed() {
        let (_dir, root) = tree();
        let opened = RootDir::open_with(&root, Links::Refused).unwrap();
        assert_eq!(opened.link(Path::new("relative")).unwrap(), Some("../secret".into()));
        assert_eq!(opened.link(Path::new("file")).unwrap(), None);
        symlink(".", root.join("here")).unwrap();
        for (path, error) in [("absent", libc::ENOENT), ("here/inner", libc::ELOOP), ("file/x", libc::ENOTDIR)] {
            assert_eq!(opened.link(Path::new(path)).unwrap_err().raw_os_error(), Some(error), "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_read_and_only_so_far() {
        let (_dir, root) = tree();
        let opened = RootDir::open(&root).unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        for path in ["fifo", "socket", "dir"] {
            // The words of the look at it: to open the socket would be ENXIO.
            assert_eq!(opened.file(Path::new(path)).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
            assert_eq!(opened.read(Path::new(path), 9).unwrap(), None, "{path}");
        }
        File::create(root.join("huge")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(opened.read(Path::new("huge"), 10).unwrap().unwrap().len(), 10);
    }

    #[test]
    fn devices_are_never_opened() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: making devices takes root");
            return;
        }
        let (_dir, root) = tree();
        // The second has no driver: whoever opens it is told so (ENXIO), as nobody is who only looks.
        for (name, minor) in [("null", 3), ("driverless", 255)] {
            let numbers = nix::sys::stat::makedev(1, minor);
            nix::sys::stat::mknod(&root.join(name), SFlag::S_IFCHR, Mode::S_IRWXU, numbers).unwrap();
            symlink(name, root.join("link")).unwrap();
            let opened = RootDir::open(&root).unwrap();
            for path in [name, "link"] {
                let error = opened.file(Path::new(path)).unwrap_err();
                assert_eq!(error.to_string(), "not a regular file", "{name} by {path}");
                assert_eq!(opened.read(Path::new(path), 9).unwrap(), None, "{name} by {path}");
            }
            std::fs::remove_file(root.join("link")).unwrap();
        }
        let error = File::open(root.join("driverless")).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EACCES)), "{error}");
    }

    #[test]
    fn directories_are_made_as_open_as_their_root() {
        let (_dir, root) = tree();
        std::fs::set_permissions(&root, Permissions::from_mode(0o2777)).unwrap();
        let opened = RootDir::open_with(&root, Links::Beneath).unwrap();
        opened.find_or_make_dirs(Path::new("a/./b")).unwrap();
        for made in ["a", "a/b"] {
            assert_eq!(root.join(made).metadata().unwrap().permissions().mode() & 0o7777, 0o2777, "{made}");
        }
        opened.find_or_make_dirs(Path::new("inner")).unwrap();
        for path in ["absolute", "absolute/x", "relative", "../x", "a/../../x", "a/../new/x"] {
            assert!(opened.find_or_make_dirs(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn archive_paths_may_not_climb() {
        assert_eq!(relative(Path::new("./a//b/")), Some(PathBuf::from("a/b")));
        assert_eq!(relative(Path::new("/etc/passwd")), Some(PathBuf::from("etc/passwd")));
        assert_eq!(relative(Path::new("a/../../b")), None);
    }
}
