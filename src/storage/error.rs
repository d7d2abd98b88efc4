//! How opening, writing and reading old revisions fail.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::Entry;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The store could not be opened. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store {path}")]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("cannot read the store")]
    Read { source: Box<redb::Error> },
    #[error(
        "the store {path} is missing or empty, but there was one: an empty cluster does not take its place. Put the \
         store or a copy of it there; to begin anew and give all objects up, remove {} and {}", .marker[0].display(), .marker[1].display()
    )]
    Missing { path: PathBuf, marker: [PathBuf; 2] },
    #[error(
        "the store {path} is damaged and cannot be read whole: {what}. It was left as it is; put a copy of it there"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the store {path} is damaged; what can be read of it could not be written anew")]
    Replace { path: PathBuf, source: Box<redb::Error> },
    #[error("the store {path} has form {form}, which a later version wrote; this one reads forms up to {known}")]
    Newer { path: PathBuf, form: u64, known: u64 },
    #[error("the store {path} is another cluster's than {marker}-a and {marker}-b say; put the right one there")]
    Foreign { path: PathBuf, marker: PathBuf },
    #[error("cannot use {path}, which says what store there is")]
    Marker { path: PathBuf, source: std::io::Error },
    #[error("{path}, which says what store there is, is damaged; remove it if the store beside it is the right one")]
    MarkerDamaged { path: PathBuf },
    #[error("{path}, which says what store there is, has a form that only a later version reads")]
    MarkerNewer { path: PathBuf },
    #[error(transparent)]
    NotAFile(std::io::Error),
    #[error("cannot start the store's writer")]
    Writer { source: std::io::Error },
}

impl OpenError {
    /// Whether somebody has to do something before another try can succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::MarkerDamaged { .. }
            | Self::MarkerNewer { .. }
            | Self::NotAFile(_) => true,
            Self::Marker { source, .. } => statefile::NotAFile::is(source),
            Self::Database { .. } | Self::Read { .. } | Self::Replace { .. } | Self::Writer { .. } => false,
        }
    }
}

/// A write was not done, and nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<I> {
    /// What [`crate::Expect`] asked for does not hold; `current` is the entry as it is.
    #[error("the precondition on entry {position} of the write does not hold")]
    Failed { position: usize, current: Option<Arc<Entry<I>>> },
    /// The disk refused the commit. Whether it survives a crash before the next commit is unknown.
    #[error("cannot write to the store: {0}")]
    Disk(Arc<redb::Error>),
    /// The disk is full: only writes that make room are done.
    #[error("etcdserver: mvcc: database space exceeded: the disk of the store is full, only deletions are done")]
    Full,
    /// The store has reached its limit, and the write would make it larger.
    #[error(
        "etcdserver: mvcc: database space exceeded: the store has reached its limit, which --store-limit sets; objects \
         can be deleted and made smaller"
    )]
    AtLimit,
    #[error("the store is closed")]
    Closed,
}

/// The revision asked for is older than what the ring of events remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision is gone; the oldest known is {oldest}")]
pub struct Gone {
    pub oldest: u64,
}
