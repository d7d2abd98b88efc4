//! Directories and files that only root may read, however permissive the process's umask is.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::regular;

const DIRECTORY: u32 = 0o700;
pub(crate) const FILE: u32 = 0o600;
const OF_OTHERS: u32 = 0o077;

/// Whether a file has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Readers never see half of it, but the latest version may be lost: no flush of the SD card.
    Atomic,
    /// On the medium before the call returns.
    Synced,
}

/// Makes a directory with those above it; one that is there is closed to others.
///
/// # Errors
/// When the file system refuses.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)?;
    close(path, &fs::metadata(path)?, DIRECTORY)
}

/// Opens an empty file for reading and writing; one that is there is emptied.
///
/// # Errors
/// When the file system refuses.
pub fn new_file(path: &Path) -> io::Result<File> {
    let file = regular::open_or_make(path)?;
    // One that was there has kept its mode.
    file.set_permissions(Permissions::from_mode(FILE))?;
    file.set_len(0)?;
    Ok(file)
}

/// Gives a file a new content, or leaves it as it is: it is written beside and renamed.
///
/// # Errors
/// When the file system refuses.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    remove_other(&beside)?;
    let write = || -> io::Result<()> {
        let mut file = new_file(&beside)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // Half a file on a full disk holds room that somebody needs.
        let _ = fs::remove_file(&beside);
    })?;
    match path.parent().filter(|_| durability == Durability::Synced) {
        Some(parent) => File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.sync_all(),
        None => Ok(()),
    }
}

/// Under the name of a file that is written beside another nothing is worth keeping.
fn remove_other(beside: &Path) -> io::Result<()> {
    match fs::symlink_metadata(beside) {
        Ok(found) if !found.is_file() && !found.is_dir() => fs::remove_file(beside),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Closes a directory and all that lies in it, as earlier releases may have left it open. Links are not
/// followed, and what is gone meanwhile needs no closing.
///
/// # Errors
/// When the file system refuses.
pub fn close_tree(root: &Path) -> io::Result<()> {
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_dir() {
            close(&path, &metadata, DIRECTORY)?;
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if metadata.is_file() {
            close(&path, &metadata, FILE)?;
        }
    }
    Ok(())
}

fn close(path: &Path, metadata: &fs::Metadata, mode: u32) -> io::Result<()> {
    if metadata.permissions().mode() & OF_OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        make_dir(&inner).unwrap();
        new_file(&inner.join("new")).unwrap();
        replace(&inner.join("replaced"), b"1", Durability::Atomic).unwrap();
        replace(&inner.join("replaced"), b"2", Durability::Synced).unwrap();
        assert_eq!(fs::read(inner.join("replaced")).unwrap(), b"2");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 2, "nothing is left beside them");
        for (path, expected) in [
            (dir.path().join("a"), 0o700),
            (inner.clone(), 0o700),
            (inner.join("new"), 0o600),
            (inner.join("replaced"), 0o600),
        ] {
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
    }

    #[test]
    fn a_link_or_a_fifo_where_a_file_is_written_beside_another_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside, other) = (dir.path().join("file"), dir.path().join("file.tmp"), dir.path().join("other"));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &beside).unwrap();
        replace(&path, b"1", Durability::Atomic).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&beside).unwrap());
        replace(&path, b"2", Durability::Atomic).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"2".to_vec(), b"kept".to_vec()));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::create_dir(&beside).unwrap();
        let error = replace(&path, b"3", Durability::Atomic).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is a directory", beside.display())), "{error}");
    }

    #[test]
    fn what_was_left_open_is_closed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("db")).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(root.join("db/state"), "").unwrap();
        fs::write(root.join("read-only"), "").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        for (path, open) in [
            (root.clone(), 0o755),
            (root.join("db"), 0o777),
            (root.join("db/state"), 0o644),
            (root.join("read-only"), 0o400),
            (outside.clone(), 0o644),
        ] {
            fs::set_permissions(path, Permissions::from_mode(open)).unwrap();
        }
        close_tree(&root).unwrap();
        close_tree(&dir.path().join("not-there")).unwrap();
        for (path, expected) in [
            (root.clone(), 0o700),
            (root.join("db"), 0o700),
            (root.join("db/state"), 0o600),
            (root.join("read-only"), 0o400),
            (outside, 0o644),
        ] {
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        make_dir(&root).unwrap();
        assert_eq!(mode(&root), 0o700);
    }
}
