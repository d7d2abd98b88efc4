//! What a container said last: its termination message or the end of its log. Blocks: only in the disk
//! room.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::{Links, RootDir};
use tracing::debug;

use crate::server::log_files;

/// Upstream's limits of a termination message.
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: u64 = 80;

/// What the container wrote to its message file, else the end of its log where that is wanted.
pub(super) fn read(file: &Path, log: Option<&Path>) -> String {
    let message = read_start(file, MAX_MESSAGE);
    match log {
        Some(log) if message.is_empty() => log_files::last_lines(log, MAX_LOG_LINES, MAX_LOG_MESSAGE),
        Some(_) | None => message,
    }
}

/// Of a container that is forgotten. Rotated logs carry a suffix; what is gone already is fine.
pub(super) fn remove(log: &Path, message: &Path) -> io::Result<()> {
    for file in log_files::log_files(log).iter().map(PathBuf::as_path).chain([message]) {
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn read_start(path: &Path, limit: u64) -> String {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return String::new() };
    let read = RootDir::open_with(dir, Links::Refused).and_then(|dir| dir.read(Path::new(name), limit));
    let data = read.inspect_err(|e| debug!("termination message {}: {e}", path.display()));
    String::from_utf8_lossy(&data.ok().flatten().unwrap_or_default()).into_owned()
}
