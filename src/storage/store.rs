//! The handle that everybody shares.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::cache::{Cache, Scope, Stats};
use crate::codec::{Codec, Entry};
use crate::disk::{Backend, Disk, SetAside, Source};
use crate::error::{Gone, OpenError, WriteError};
use crate::gap::Gap;
use crate::health::Health;
use crate::limit::Limit;
use crate::ring::RingLimits;
use crate::watch::Watch;
use crate::writer::{self, Durability, Request, Write, Writer};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub backend: Backend,
    pub ring: RingLimits,
    /// Bytes of the newest versions of all entries, each with some bookkeeping: see [`crate::limit`].
    pub limit: u64,
}

impl Options {
    #[must_use]
    /// Without a limit.
    pub fn new(backend: Backend) -> Self {
        Self { backend, ring: RingLimits::default(), limit: u64::MAX }
    }
}

/// A shared handle. When the last one is dropped, what is not on disk yet is written and the store
/// closes; [`Storage::close`] does the same and waits for it.
pub struct Storage<C: Codec> {
    cache: Arc<RwLock<Cache<C::Index>>>,
    requests: mpsc::Sender<Request<C::Index>>,
    health: watch::Receiver<Health>,
}

impl<C: Codec> Clone for Storage<C> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache), requests: self.requests.clone(), health: self.health.clone() }
    }
}

impl<C: Codec> fmt::Debug for Storage<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

impl<C: Codec> Storage<C> {
    /// Opens or creates the store and loads it. Blocks; call it before the runtime is busy.
    ///
    /// # Errors
    /// When the file cannot be opened, or is damaged in a way that leaves open what is lost.
    pub fn open(options: &Options, codec: C) -> Result<Self, OpenError> {
        Self::open_with(options.backend.source(), options, codec)
    }

    pub(crate) fn open_with(source: Source, options: &Options, codec: C) -> Result<Self, OpenError> {
        let mut entries = Vec::new();
        let (disk, loaded) = Disk::open(source, |key, revision, bytes| {
            let content = codec.open(&key, revision, bytes)?;
            entries.push(Entry::new(key, revision, content));
            Ok(())
        })?;
        let mut cache = Cache::new(loaded.revision, options.ring, loaded.set_aside, loaded.gaps);
        for entry in entries {
            cache.load(&codec, entry);
        }
        let limit = Limit::new(options.limit, cache.cost());
        let cache = Arc::new(RwLock::new(cache));
        let (requests, queue) = mpsc::channel(writer::QUEUE);
        let (report, health) = watch::channel(Health::default());
        Writer::new(disk, codec, Arc::clone(&cache), limit, report)
            .spawn(queue)
            .map_err(|source| OpenError::Writer { source })?;
        Ok(Self { cache, requests, health })
    }

    /// Entries that are there and cannot be read, each until one of its name is written.
    #[must_use]
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.cache.read().set_aside().cloned().collect()
    }

    /// Whether nothing is set aside and nothing is known to be lost.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let cache = self.cache.read();
        cache.set_aside().next().is_none() && cache.gaps().is_empty()
    }

    /// Where entries are lost of which not even the names are known. They are remembered until the damaged
    /// file, which lies beside the database, is removed and the store is opened anew.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.cache.read().gaps().to_vec()
    }

    /// Where entries of a collection, of those whose item begins so, may be lost.
    #[must_use]
    pub fn gap_in(&self, collection: &str, item_start: &str) -> Option<Gap> {
        self.cache.read().gaps().iter().find(|gap| gap.touches(collection, item_start)).cloned()
    }

    /// Whether an entry that is not there may be among the lost ones.
    #[must_use]
    pub fn may_be_lost(&self, collection: &str, item: &str) -> bool {
        self.cache.read().may_be_lost(collection, item)
    }

    /// Whether an entry is there, or may be, and cannot be read.
    #[must_use]
    pub fn is_set_aside(&self, collection: &str, item: &str) -> bool {
        self.cache.read().is_set_aside(collection, item)
    }

    /// The newest published revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.cache.read().revision()
    }

    /// The newest revision that changed a collection.
    #[must_use]
    pub fn collection_revision(&self, collection: &str) -> u64 {
        self.cache.read().collection_revision(collection)
    }

    /// What the store counts against its limit.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.cache.read().cost()
    }

    /// Bytes of the newest versions of a collection.
    #[must_use]
    pub fn collection_bytes(&self, collection: &str) -> usize {
        self.cache.read().collection_bytes(collection)
    }

    /// How many entries a collection has.
    #[must_use]
    pub fn collection_entries(&self, collection: &str) -> usize {
        self.cache.read().collection_entries(collection)
    }

    #[must_use]
    pub fn get(&self, collection: &str, item: &str) -> Option<Arc<Entry<C::Index>>> {
        self.cache.read().get(collection, item).cloned()
    }

    /// Visits items in key order, as they were at a revision (`None`: now), and returns that revision.
    /// `visit` runs under the cache's lock: it must be short and must not call the store.
    ///
    /// # Errors
    /// [`Gone`] when the revision is too old.
    pub fn scan(
        &self,
        scope: Scope<'_>,
        at: Option<u64>,
        visit: impl FnMut(&Arc<Entry<C::Index>>) -> ControlFlow<()>,
    ) -> Result<u64, Gone> {
        self.cache.read().scan(scope, at, Instant::now(), visit)
    }

    /// The entries of a collection with an index term, in key order.
    #[must_use]
    pub fn by_term(&self, collection: &str, term: &str) -> Vec<Arc<Entry<C::Index>>> {
        self.cache.read().by_term(collection, term)
    }

    /// The changes of a collection after a revision.
    ///
    /// # Errors
    /// [`Gone`] when the revision is too old.
    pub fn watch(&self, collection: &str, after: u64) -> Result<Watch<C::Index>, Gone> {
        Watch::new(Arc::clone(&self.cache), collection, after)
    }

    /// Does all of the writes, or none; returns the new versions (tombstones for deletions).
    ///
    /// # Errors
    /// When a precondition does not hold, the disk fails, or the store is closed.
    pub async fn write(
        &self,
        writes: Vec<Write<C::Index>>,
        durability: Durability,
    ) -> Result<Vec<Arc<Entry<C::Index>>>, WriteError<C::Index>> {
        let (done, answer) = oneshot::channel();
        let request = Request::Write { writes, durability, done };
        self.requests.send(request).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Writes what is not on disk yet and closes the store: later writes fail, reads go on.
    ///
    /// # Errors
    /// When the last commit fails.
    pub async fn close(&self) -> Result<(), WriteError<C::Index>> {
        let (done, answer) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_err() {
            return Ok(());
        }
        answer.await.map_err(|_| WriteError::Closed)?
    }

    #[must_use]
    pub fn health(&self) -> Health {
        if self.requests.is_closed() { Health::Closed } else { *self.health.borrow() }
    }

    /// Waits until nothing is written any more: the store was closed, or found damaged while it was in
    /// use. Only opening it anew, which checks all of it, mends the latter.
    pub async fn closed(&self) {
        // The other error would be that the writer is gone, and that is what is waited for.
        let _ = self.health.clone().wait_for(|health| *health == Health::Closed).await;
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.cache.read().stats()
    }
}
