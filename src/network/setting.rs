//! Settings below /proc/sys/net.
//!
//! They belong to a network namespace: that of the calling thread, whichever process it is in.

use std::fs;
use std::io;
use std::path::Path;

const ROOT: &str = "/proc/sys/net";

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("cannot set {path} to {value}: {source}")]
    Write { path: String, value: &'static str, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
}

impl SettingError {
    /// The setting is not there: its link went away, or the kernel has no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Write { source, .. } | Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
        }
    }
}

pub(crate) fn read(setting: &str) -> Result<String, SettingError> {
    let path = format!("{ROOT}/{setting}");
    match fs::read_to_string(Path::new(&path)) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(source) => Err(SettingError::Read { path, source }),
    }
}

/// Writes only what differs: /proc/sys may be read-only and yet right.
pub(crate) fn set(setting: &str, value: &'static str) -> Result<(), SettingError> {
    if read(setting)? == value {
        return Ok(());
    }
    let path = format!("{ROOT}/{setting}");
    fs::write(Path::new(&path), value).map_err(|source| SettingError::Write { path, value, source })
}

/// The same for a setting that may be missing.
pub(crate) fn set_if_present(setting: &str, value: &'static str) -> Result<(), SettingError> {
    match set(setting, value) {
        Err(e) if e.is_missing() => Ok(()),
        result => result,
    }
}
