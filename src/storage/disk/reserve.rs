//! A reserve for what makes room: on a full disk objects can still be deleted.
//!
//! A file of some size lies beside the database. When a commit finds the disk full, the file goes, and
//! from then on only writes that belong to deletions are done, until there is room again.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// A deletion takes some ten pages of new room, and gives its own back to the next: enough for some
/// fifty that give nothing back.
const RESERVE: u64 = 2 << 20;
/// With this much free the reserve is made again, and as much is left for others.
const ENOUGH: u64 = 2 * RESERVE;

#[derive(Debug)]
pub(super) struct Reserve {
    /// Its file; without one nothing is reserved.
    file: Option<PathBuf>,
    is_full: bool,
}

impl Reserve {
    pub(super) fn beside(database: Option<&Path>) -> Self {
        let file = database.map(|path| super::beside(path, ".reserve"));
        let mut reserve = Self { file, is_full: false };
        if !reserve.is_there() {
            reserve.look();
        }
        reserve
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Gives the reserve up; returns whether that may have helped.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        self.is_full = true;
        std::fs::remove_file(file).is_ok()
    }

    /// Looks whether there is room for the reserve again.
    pub(super) fn look(&mut self) {
        let Some(file) = &self.file else { return };
        let made = match free(file) {
            Ok(free) if free >= ENOUGH => make(file),
            Ok(_) => Err(io::ErrorKind::StorageFull.into()),
            // A file system that does not tell: the next commit will.
            Err(_) => Ok(()),
        };
        self.is_full = made.is_err_and(|e| is_storage_full(&e));
    }

    fn is_there(&self) -> bool {
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        self.file.as_ref().is_some_and(|path| size(path) == RESERVE)
    }
}

pub(super) fn is_storage_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn free(reserve: &Path) -> io::Result<u64> {
    let directory = reserve.parent().unwrap_or_else(|| Path::new("."));
    let stat = statvfs(directory)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Takes the room for good: the blocks are allocated, not only promised.
fn make(reserve: &Path) -> io::Result<()> {
    if statefile::length(reserve).is_err_and(|e| statefile::NotAFile::is(&e)) {
        // It holds nothing, so that something else under its name has no place there.
        std::fs::remove_file(reserve)?;
    }
    let file = statefile::open_or_make(reserve)?;
    posix_fallocate(file.as_fd(), 0, i64::try_from(RESERVE).expect("2 MiB")).map_err(io::Error::from).inspect_err(
        |_| {
            // Half a reserve would take from what others need.
            let _ = std::fs::remove_file(reserve);
        },
    )
}
