//! Files of ours, opened and read without ever waiting for somebody.
//!
//! A FIFO, a socket or a device under the name of a file would hold its reader for ever, or do something when it is
//! opened. So the type is looked at before the open, and again after it, and what is no file is an error that says so.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::private::FILE;

/// Something else lies where a file belongs: no further try finds one there.
#[derive(Debug, thiserror::Error)]
#[error("{} is {found}, where a file belongs: put the file back in its place", path.display())]
pub struct NotAFile {
    path: PathBuf,
    found: &'static str,
}

impl NotAFile {
    /// Whether this is what an error says.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Opens a file for reading.
///
/// # Errors
/// When it is not there, or the file system refuses; [`NotAFile`] when it is something else.
pub fn open_file(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().read(true))
}

/// Opens a file for reading and writing, and leaves what it holds.
///
/// # Errors
/// As [`open_file`].
pub fn open_to_write(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().read(true).write(true))
}

/// Opens a file for reading and writing, and leaves what it holds; one that is not there is made.
///
/// # Errors
/// When the file system refuses; [`NotAFile`] when it is something else.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    open_as(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE))
}

/// All of a file.
///
/// # Errors
/// As [`open_file`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file that holds text.
///
/// # Errors
/// As [`open_file`], and when it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

/// All of a file; `None` when there is nothing of its name.
///
/// # Errors
/// As [`open_file`].
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// How long a file is; `None` when there is nothing of its name.
///
/// # Errors
/// When the file system refuses; [`NotAFile`] when it is something else.
pub fn length(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        metadata => {
            let metadata = metadata?;
            check(path, &metadata)?;
            Ok(Some(metadata.len()))
        }
    }
}

fn open_as(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Before the open: that of a device may do something, and that of a socket says nothing of use.
    length(path)?;
    // And without waiting, should it have become a FIFO since.
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    check(path, &file.metadata()?)?;
    Ok(file)
}

fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::other(NotAFile { path: path.to_owned(), found }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the standard library makes no FIFO")]
    fn fifo(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }

    #[test]
    fn what_is_no_file_is_named_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fifo(&at("fifo"));
        fs::create_dir(at("directory")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        for (name, found) in [
            ("fifo", "a FIFO"),
            ("link", "a FIFO"),
            ("directory", "a directory"),
            ("socket", "a socket"),
            ("device", "a device"),
        ] {
            let path = at(name);
            let expected = format!("{} is {found}, where a file belongs", path.display());
            let errors = [
                open_file(&path).unwrap_err(),
                open_to_write(&path).unwrap_err(),
                open_or_make(&path).unwrap_err(),
                read_optional(&path).unwrap_err(),
                read_text(&path).unwrap_err(),
                length(&path).unwrap_err(),
            ];
            for error in errors {
                assert!(NotAFile::is(&error) && error.to_string().starts_with(&expected), "{name}: {error}");
            }
        }
    }

    #[test]
    fn files_are_read_whole_and_what_is_absent_is_told_from_what_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!((read_optional(&path).unwrap(), length(&path).unwrap()), (None, None));
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, b"text").unwrap();
        drop(open_or_make(&path).unwrap());
        assert_eq!((read_text(&path).unwrap(), length(&path).unwrap()), ("text".to_owned(), Some(4)));
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read(&path).unwrap(), b"\xff");
        assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        let below = path.join("below");
        assert!(read_optional(&below).is_err_and(|e| !NotAFile::is(&e)), "a file has nothing below it");
    }
}
