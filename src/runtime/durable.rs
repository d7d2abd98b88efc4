//! Small JSON records on disk that are either whole or absent, also after a power cut.
//!
//! Each carries the version of its form and rests under a seal, which tells flipped bits (`statefile`). A form that
//! is newer than this program is refused before anything else of it is looked at, and what cannot be read is
//! an error, never an absence. Daemon and shim hand records to each other without a seal: in memory nothing
//! rots, and a shim of an earlier release knows no seals.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
pub(crate) use statefile::Durability;
use statefile::Unreadable;

use crate::error::{Error, IoContext, Result};
use crate::sys::tree;

/// A record that another release of this program may have written, or may have to read.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The version of the form that is written; it rises with each change of the form. All earlier
    /// forms are read.
    const VERSION: u32;
}

/// The record as daemon and shim hand it to each other.
pub(crate) fn encode<T: Record>(record: &T) -> String {
    statefile::encode(T::VERSION, record)
}

/// Reads what [`encode`] wrote; `origin` is what an error names.
pub(crate) fn decode<T: Record>(origin: &Path, bytes: &[u8]) -> Result<T> {
    statefile::decode(T::VERSION, bytes).map_err(unreadable(origin))
}

/// Reads the content of a file.
pub(crate) fn open<T: Record>(origin: &Path, file: &[u8]) -> Result<T> {
    statefile::open(file).and_then(|record| statefile::decode(T::VERSION, record)).map_err(unreadable(origin))
}

fn unreadable(origin: &Path) -> impl FnOnce(Unreadable) -> Error + '_ {
    move |unreadable| match unreadable {
        Unreadable::Newer { found, known } => Error::NewerRecord { path: origin.to_owned(), found, known },
        Unreadable::Damaged(source) => Error::Record { path: origin.to_owned(), source },
    }
}

/// Fails when the record at `path` is of a newer form; damaged and absent ones are for whoever reads them.
pub(crate) fn refuse_newer<T: Record>(path: &Path) -> Result<()> {
    match read::<T>(path) {
        Err(error @ Error::NewerRecord { .. }) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(crate) fn write<T: Record>(path: &Path, record: &T, durability: Durability) -> Result<()> {
    write_bytes(path, &statefile::seal(&encode(record)), durability)
}

/// Writes a record anew that an earlier release wrote to `path`.
pub(crate) fn renew<T: Record>(path: &Path, record: &T, durability: Durability) -> Result<()> {
    let today = statefile::seal(&encode(record));
    if statefile::read(path).at("read", path)? == today {
        return Ok(());
    }
    write_bytes(path, &today, durability)
}

/// For a record that a shim takes over, maybe one of an earlier release.
pub(crate) fn write_for_shim<T: Record>(path: &Path, record: &T) -> Result<()> {
    write_bytes(path, encode(record).as_bytes(), Durability::Atomic)
}

/// For files in a form that others define.
pub(crate) fn write_foreign<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("invariant: these files are plain data");
    write_bytes(path, &bytes, durability)
}

fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    statefile::replace(path, bytes, durability).at("write", path)
}

/// Makes a directory, with those above it, that root alone may enter; one that is there is closed.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    statefile::make_dir(path).at("create", path)
}

/// Makes a rename, a new file or a removal in `path`'s directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("invariant: records live in a directory");
    File::open(parent).and_then(|dir| dir.sync_all()).at("sync", parent)
}

pub(crate) fn read<T: Record>(path: &Path) -> Result<T> {
    open(path, &statefile::read(path).at("read", path)?)
}

/// Reads what [`write_for_shim`] wrote; absent is `None`.
pub(crate) fn read_handed_over<T: Record>(path: &Path) -> Result<Option<T>> {
    statefile::read_optional(path).at("read", path)?.map(|bytes| decode(path, &bytes)).transpose()
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
    use serde::Deserialize;

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
        for known in [r#"{"text":"hello"}"#, r#"{"version":1,"text":"hello"}"#, &encode(&note)] {
            assert_eq!(open::<Note>(path, known.as_bytes()).unwrap(), note, "{known}");
        }
        assert_eq!(open::<Note>(path, &statefile::seal(&encode(&note))).unwrap(), note);
        let inside = statefile::seal(r#"{"version":3,"words":[]}"#);
        for (newer, versions) in [(&br#"{"version":4,"words":[]}"#[..], (4, 3)), (&inside, (3, 2))] {
            let expected = format!(
                "/data/note.json is of version {}, written by a newer coracle; this one knows versions up to {} and \
                 leaves everything as it is",
                versions.0, versions.1
            );
            assert_eq!(open::<Note>(path, newer).unwrap_err().to_string(), expected);
        }
        for damaged in ["", "{", "{}", "null", r#"{"version":"x","text":""}"#, r#"{"version":2,"text":"#] {
            assert!(matches!(open::<Note>(path, damaged.as_bytes()), Err(Error::Record { .. })), "{damaged}");
        }
    }

    #[test]
    fn a_record_of_an_earlier_release_gets_its_seal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.json");
        fs::write(&path, r#"{"text":"hello"}"#).unwrap();
        renew(&path, &read::<Note>(&path).unwrap(), Durability::Atomic).unwrap();
        let sealed = fs::read(&path).unwrap();
        assert_eq!(sealed, statefile::seal(r#"{"version":2,"text":"hello"}"#));
        renew(&path, &read::<Note>(&path).unwrap(), Durability::Atomic).unwrap();
        assert_eq!(fs::read(&path).unwrap(), sealed);
    }

    #[test]
    fn a_flipped_bit_is_damage_and_no_other_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.json");
        write(&path, &Note { text: "hello".to_owned() }, Durability::Atomic).unwrap();
        let mut file = fs::read(&path).unwrap();
        let at = file.windows(5).position(|word| word == b"hello").unwrap();
        file[at] ^= 1;
        fs::write(&path, file).unwrap();
        let error = read_optional::<Note>(&path).unwrap_err().to_string();
        assert_eq!(error, format!("read {}: its checksum does not match", path.display()));
    }
}
