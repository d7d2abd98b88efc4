//! Small JSON records on disk that are either whole or absent, also after a power cut.
//!
//! Each carries the version of its form beside its fields; one without was written before there were
//! versions and counts as the first. A form that is newer than this program is refused before anything
//! else of it is looked at, and what cannot be read is an error, never an absence.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::sys::tree;

/// Whether a record has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Readers never see half of it, but the latest version may be lost: no flush of the SD card.
    Atomic,
    /// On the medium before the call returns.
    Synced,
}

/// A record that another release of this program may have written, or may have to read.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The version of the form that is written; it rises with each change of the form. All earlier
    /// forms are read.
    const VERSION: u32;
}

#[derive(Serialize)]
struct Stamped<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(default = "unstamped")]
    version: u32,
}

fn unstamped() -> u32 {
    1
}

/// The record as it rests on disk and travels between daemon and shim.
pub(crate) fn encode<T: Record>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Stamped { version: T::VERSION, record }).expect("invariant: records are plain data")
}

/// `origin` is what an error names.
pub(crate) fn decode<T: Record>(origin: &Path, bytes: &[u8]) -> Result<T> {
    let damaged = |source| Error::Record { path: origin.to_owned(), source };
    let Stamp { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > T::VERSION {
        return Err(Error::NewerRecord { path: origin.to_owned(), found: version, known: T::VERSION });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Fails when the record at `path` is of a newer form; damaged and absent ones are for whoever reads them.
pub(crate) fn refuse_newer<T: Record>(path: &Path) -> Result<()> {
    match read::<T>(path) {
        Err(error @ Error::NewerRecord { .. }) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(crate) fn write<T: Record>(path: &Path, record: &T, durability: Durability) -> Result<()> {
    write_bytes(path, &encode(record), durability)
}

/// For files in a form that others define.
pub(crate) fn write_foreign<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("invariant: these files are plain data");
    write_bytes(path, &bytes, durability)
}

/// Writes beside `path` and renames into place.
fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = write_temporary(&temporary, bytes, durability);
    let renamed = written.and_then(|()| fs::rename(&temporary, path).at("rename to", path));
    if let Err(error) = renamed {
        // Half a file on a full disk holds room that somebody needs.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    if durability == Durability::Synced {
        sync_parent(path)?;
    }
    Ok(())
}

fn write_temporary(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    if durability == Durability::Synced {
        file.sync_all().at("sync", path)?;
    }
    Ok(())
}

/// Makes a directory, with those above it, that root alone may enter; one that is there is closed.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create", path)?;
    let mode = fs::metadata(path).at("inspect", path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("close", path)
}

/// Makes a rename, a new file or a removal in `path`'s directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("invariant: records live in a directory");
    File::open(parent).and_then(|dir| dir.sync_all()).at("sync", parent)
}

pub(crate) fn read<T: Record>(path: &Path) -> Result<T> {
    decode(path, &fs::read(path).at("read", path)?)
}

/// Absent is `None`; unreadable is an error.
pub(crate) fn read_optional<T: Record>(path: &Path) -> Result<Option<T>> {
    match read(path) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a tree; one that is not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    tree::remove_tree(path).at("remove", path)
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", path),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Record for Note {
        const VERSION: u32 = 2;
    }

    #[test]
    fn earlier_forms_are_read_and_newer_ones_refused() {
        let path = Path::new("/data/note.json");
        let note = Note { text: "hello".to_owned() };
        assert_eq!(encode(&note), br#"{"version":2,"text":"hello"}"#);
        for known in [r#"{"text":"hello"}"#, r#"{"version":1,"text":"hello"}"#, r#"{"version":2,"text":"hello"}"#] {
            assert_eq!(decode::<Note>(path, known.as_bytes()).unwrap(), note, "{known}");
        }
        let newer = decode::<Note>(path, br#"{"version":3,"words":[]}"#).unwrap_err();
        let expected = "/data/note.json is of version 3, written by a newer coracle; this one knows versions up to 2 \
                        and leaves everything as it is";
        assert_eq!(newer.to_string(), expected);
        for damaged in ["", "{", "{}", "null", r#"{"version":"x","text":""}"#, r#"{"version":2,"text":"#] {
            assert!(matches!(decode::<Note>(path, damaged.as_bytes()), Err(Error::Record { .. })), "{damaged}");
        }
    }
}
