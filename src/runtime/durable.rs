//! Small JSON records on disk that are either whole or absent, also after a power cut.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// Writes `value` beside `path` and renames it into place.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("invariant: records are plain data");
    let temporary = path.with_extension("tmp");
    let written = write_temporary(&temporary, &bytes, durability);
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
    let mut file = File::create(path).at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    if durability == Durability::Synced {
        file.sync_all().at("sync", path)?;
    }
    Ok(())
}

/// Makes a rename, a new file or a removal in `path`'s directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("invariant: records live in a directory");
    File::open(parent).and_then(|dir| dir.sync_all()).at("sync", parent)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: path.to_owned(), source })
}

/// Absent is `None`; unreadable is an error.
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
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
