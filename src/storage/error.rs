//! How opening, writing and reading old revisions fail.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::Entry;
use crate::key::Key;

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store {path}")]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("cannot read the store")]
    Read { source: Box<redb::Error> },
    #[error("the store holds the key {0:?}, which is not one of ours")]
    Key(String),
    #[error("the store's entry {key} cannot be read")]
    Entry { key: Key, source: Box<dyn Error + Send + Sync> },
    #[error("cannot start the store's writer")]
    Writer { source: std::io::Error },
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
    #[error("the store is closed")]
    Closed,
}

/// The revision asked for is older than what the ring of events remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision is gone; the oldest known is {oldest}")]
pub struct Gone {
    pub oldest: u64,
}
