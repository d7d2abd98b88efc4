//! The one writer: takes all waiting requests as a batch, decides each against the state that the
//! batch has so far, commits the batch with one fsync, publishes it, and acknowledges it.
//!
//! It has a thread of its own, because a commit blocks on the disk.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::codec::{Codec, Content, Entry, Event};
use crate::disk::{Change, Disk};
use crate::error::WriteError;
use crate::key::Key;

/// Requests that may wait. Each waiting client has at most one; more clients than this wait in line.
pub(crate) const QUEUE: usize = 1024;
/// Requests in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 512;
/// Revisions reserved at once: how many are lost by a crash, and how many relaxed writes go without
/// a commit.
const BLOCK: u64 = 10_000;
/// The longest that a relaxed write stays in memory only: 72 commits a day cost a card 4 MB.
const RELAXED_FOR: Duration = Duration::from_secs(20 * 60);

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk.
    Strict,
    /// At once; it goes to disk with the next strict write, and a crash before that loses it.
    Relaxed,
}

/// What must hold for a write to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The entry's current version has this revision.
    Revision(u64),
    Present,
}

type Make<I> = Box<dyn FnOnce(u64) -> Content<I> + Send>;
type MakeTombstone<I> = Box<dyn FnOnce(u64, &Entry<I>) -> Content<I> + Send>;

/// What to do with the entry. The functions run in the writer: they must be short.
pub enum Action<I> {
    /// Makes the new version, given its revision.
    Put(Make<I>),
    /// Makes the tombstone, given its revision and the version that is deleted.
    Delete(MakeTombstone<I>),
}

impl<I> fmt::Debug for Action<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "Put",
            Self::Delete(_) => "Delete",
        })
    }
}

/// One conditional change of one entry. A deletion of an absent entry fails whatever it expects.
#[derive(Debug)]
pub struct Write<I> {
    pub key: Key,
    pub expect: Expect,
    pub action: Action<I>,
}

type Written<I> = Vec<Arc<Entry<I>>>;
type Answer<I> = Result<Written<I>, WriteError<I>>;

pub(crate) enum Request<I> {
    Write { writes: Vec<Write<I>>, durability: Durability, done: oneshot::Sender<Answer<I>> },
    Close { done: oneshot::Sender<Result<(), WriteError<I>>> },
}

pub(crate) struct Writer<C: Codec> {
    disk: Disk,
    codec: C,
    cache: Arc<RwLock<Cache<C::Index>>>,
    /// The last revision given out; those of a failed batch are not given out again.
    revision: u64,
    /// Entries whose version on disk is older than the published one.
    unwritten: BTreeSet<Key>,
    /// When the oldest of them must be written.
    deadline: Option<Instant>,
}

/// A batch that was decided but is not visible yet.
struct Batch<I> {
    events: Vec<Event<I>>,
    /// The newest version by key; `None` when deleted.
    newest: HashMap<Key, Option<Arc<Entry<I>>>>,
    strict: bool,
    answers: Vec<(oneshot::Sender<Answer<I>>, Written<I>)>,
}

impl<C: Codec> Writer<C> {
    pub(crate) fn new(disk: Disk, codec: C, cache: Arc<RwLock<Cache<C::Index>>>) -> Self {
        let revision = cache.read().revision();
        Self { disk, codec, cache, revision, unwritten: BTreeSet::new(), deadline: None }
    }

    pub(crate) fn spawn(self, queue: mpsc::Receiver<Request<C::Index>>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("storage".into()).spawn(move || runtime.block_on(self.run(queue)))?;
        Ok(())
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request<C::Index>>) {
        loop {
            let first = match self.deadline {
                None => queue.recv().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, queue.recv()).await {
                    Ok(request) => request,
                    Err(_) => {
                        self.flush_in_time();
                        continue;
                    }
                },
            };
            let Some(first) = first else { break };
            let mut batch = Batch::new();
            let mut next = Some(first);
            let mut closing = None;
            while let Some(request) = next {
                match request {
                    Request::Write { writes, durability, done } => self.decide(&mut batch, writes, durability, done),
                    Request::Close { done } => closing = Some(done),
                }
                let full = closing.is_some() || batch.answers.len() >= BATCH;
                next = if full { None } else { queue.try_recv().ok() };
            }
            self.finish(batch);
            if let Some(done) = closing {
                queue.close();
                let result = self.commit(&HashMap::new(), true).map_err(|e| WriteError::Disk(Arc::new(e)));
                // Once acknowledged, the file can be opened by someone else.
                drop(self);
                // The one who closed the store may have stopped waiting.
                let _ = done.send(result);
                return;
            }
        }
        if let Err(error) = self.commit(&HashMap::new(), true) {
            tracing::error!(%error, "the store was closed without its last relaxed writes");
        }
    }

    fn flush_in_time(&mut self) {
        if let Err(error) = self.commit(&HashMap::new(), false) {
            tracing::warn!(%error, "relaxed writes stay in memory");
            self.deadline = Some(Instant::now() + RELAXED_FOR);
        }
    }

    fn decide(
        &mut self,
        batch: &mut Batch<C::Index>,
        writes: Vec<Write<C::Index>>,
        durability: Durability,
        done: oneshot::Sender<Answer<C::Index>>,
    ) {
        for (position, write) in writes.iter().enumerate() {
            let current = self.current(batch, &write.key);
            if !write.allowed(current.as_deref()) {
                // The client may have gone; its answer then reaches nobody.
                let _ = done.send(Err(WriteError::Failed { position, current }));
                return;
            }
        }
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            let old = self.current(batch, &write.key);
            self.revision += 1;
            let (content, deleted) = match write.action {
                Action::Put(make) => (make(self.revision), false),
                Action::Delete(make) => {
                    let old = old.as_deref().expect("invariant: deletions of absent entries were refused");
                    (make(self.revision, old), true)
                }
            };
            let entry = Arc::new(Entry::new(write.key.clone(), self.revision, content));
            batch.newest.insert(write.key, (!deleted).then(|| Arc::clone(&entry)));
            batch.events.push(Event { entry: Arc::clone(&entry), old, deleted });
            written.push(entry);
        }
        batch.strict |= durability == Durability::Strict;
        batch.answers.push((done, written));
    }

    fn current(&self, batch: &Batch<C::Index>, key: &Key) -> Option<Arc<Entry<C::Index>>> {
        match batch.newest.get(key) {
            Some(newest) => newest.clone(),
            None => self.cache.read().get(&key.collection, &key.item).cloned(),
        }
    }

    fn finish(&mut self, batch: Batch<C::Index>) {
        if batch.events.is_empty() {
            return;
        }
        if batch.strict || self.revision > self.disk.ceiling() {
            if let Err(error) = self.commit(&batch.newest, false) {
                // Whether the failed transaction reached the disk is unknown: the published versions
                // of its keys are written again by the next commit, so that the two agree.
                self.unwritten.extend(batch.newest.into_keys());
                self.deadline.get_or_insert_with(|| Instant::now() + RELAXED_FOR);
                let error = Arc::new(error);
                for (done, _) in batch.answers {
                    let _ = done.send(Err(WriteError::Disk(Arc::clone(&error))));
                }
                return;
            }
        } else {
            self.unwritten.extend(batch.newest.into_keys());
            self.deadline.get_or_insert_with(|| Instant::now() + RELAXED_FOR);
        }
        self.cache.write().publish(&self.codec, batch.events, Instant::now());
        for (done, written) in batch.answers {
            let _ = done.send(Ok(written));
        }
    }

    /// Writes the newest versions of a batch, and the published versions of all that is unwritten.
    fn commit(
        &mut self,
        newest: &HashMap<Key, Option<Arc<Entry<C::Index>>>>,
        closing: bool,
    ) -> Result<(), redb::Error> {
        let ceiling = match self.disk.ceiling() {
            _ if closing => self.revision,
            ceiling if self.revision > ceiling => self.revision + BLOCK,
            ceiling => ceiling,
        };
        let value = |e: &Entry<C::Index>| (e.revision, self.codec.seal(&e.key, &e.bytes));
        let mut changes = Vec::with_capacity(newest.len() + self.unwritten.len());
        {
            // Not held over the commit: a waiting writer of the lock would stop all readers.
            let cache = self.cache.read();
            for key in self.unwritten.iter().filter(|key| !newest.contains_key(key)) {
                let entry = cache.get(&key.collection, &key.item);
                changes.push(Change { key: key.clone(), value: entry.map(|e| value(e)) });
            }
        }
        changes.extend(newest.iter().map(|(k, e)| Change { key: k.clone(), value: e.as_deref().map(value) }));
        self.disk.commit(changes, ceiling, closing)?;
        self.unwritten.clear();
        self.deadline = None;
        Ok(())
    }
}

impl<I> Batch<I> {
    fn new() -> Self {
        Self { events: Vec::new(), newest: HashMap::new(), strict: false, answers: Vec::new() }
    }
}

impl<I> Write<I> {
    fn allowed(&self, current: Option<&Entry<I>>) -> bool {
        let expected = match self.expect {
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.is_some_and(|e| e.revision == revision),
            Expect::Present => current.is_some(),
        };
        expected && (current.is_some() || matches!(self.action, Action::Put(_)))
    }
}
