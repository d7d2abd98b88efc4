//! What the caller knows about its bytes, and the entries and events made of them.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::Key;

/// Turns stored bytes into what readers want to know without decoding them.
pub trait Codec: Send + Sync + 'static {
    /// Made once per write, shared by every reader.
    type Index: Send + Sync + 'static;

    /// Rebuilds an entry from disk.
    ///
    /// # Errors
    /// When the bytes are not what [`Codec::seal`] wrote.
    fn open(&self, key: &Key, revision: u64, disk: &[u8])
    -> Result<Content<Self::Index>, Box<dyn Error + Send + Sync>>;

    /// The form that goes to disk.
    fn seal(&self, _key: &Key, bytes: &Bytes) -> Bytes {
        bytes.clone()
    }

    /// Names the secondary index terms of an entry.
    fn terms(&self, key: &Key, index: &Self::Index, add: &mut dyn FnMut(&str));
}

/// The payload of one version of an entry.
#[derive(Debug)]
pub struct Content<I> {
    pub bytes: Bytes,
    pub index: I,
}

/// One version of an entry.
#[derive(Debug)]
pub struct Entry<I> {
    pub key: Key,
    /// The revision that wrote this version; for a deletion, the deletion's.
    pub revision: u64,
    pub bytes: Bytes,
    pub index: I,
}

impl<I> Entry<I> {
    pub(crate) fn new(key: Key, revision: u64, content: Content<I>) -> Self {
        Self { key, revision, bytes: content.bytes, index: content.index }
    }
}

/// One change.
#[derive(Debug)]
pub struct Event<I> {
    /// The new version, or the tombstone.
    pub entry: Arc<Entry<I>>,
    pub old: Option<Arc<Entry<I>>>,
    pub deleted: bool,
}

impl<I> Event<I> {
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.entry.revision
    }

    /// What the ring is charged for keeping this event: its own version and the one that it replaced,
    /// which nothing else may hold any more.
    pub(crate) fn cost(&self) -> usize {
        const BOOKKEEPING: usize = 512;
        self.entry.bytes.len() + self.old.as_ref().map_or(0, |o| o.bytes.len()) + BOOKKEEPING
    }
}
