//! The one writer: takes all waiting requests as a batch, decides each against the state that the
//! batch has so far, commits the batch with one fsync, publishes it, and acknowledges it.
//!
//! It has a thread of its own, because a commit blocks on the disk.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::codec::{Codec, Content, Entry, Event};
use crate::disk::{Change, Disk};
use crate::error::WriteError;
use crate::health::Health;
use crate::key::Key;
use crate::limit::{self, Limit, Purpose};

/// Requests that may wait. Each waiting client has at most one; more clients than this wait in line.
pub(crate) const QUEUE: usize = 1024;
/// Requests in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 512;
/// Revisions reserved at once: how many are lost by a crash, and how many relaxed writes go without
/// a commit.
const BLOCK: u64 = 10_000;
/// The longest that a relaxed write stays in memory only: 72 commits a day cost a card 4 MB.
const RELAXED_FOR: Duration = Duration::from_secs(20 * 60);
/// After a commit that failed, when the next one is tried.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

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
    /// A deletion is a [`Purpose::Removal`] whatever this says.
    pub purpose: Purpose,
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
    /// The last commit failed.
    is_failing: bool,
    limit: Limit,
    /// Dropped with the writer: whoever waits then knows that nothing is written any more.
    health: watch::Sender<Health>,
}

/// The newest version of an entry; `None` when deleted.
type Newest<I> = Option<Arc<Entry<I>>>;

/// A batch that was decided but is not visible yet.
struct Batch<I> {
    events: Vec<Event<I>>,
    /// The newest version by key.
    newest: HashMap<Key, Newest<I>>,
    strict: bool,
    /// In the order of their events.
    decided: Vec<Decided<I>>,
    /// By how much it makes the store larger.
    growth: i64,
    /// Requests that are refused for that.
    beyond_limit: Vec<oneshot::Sender<Answer<I>>>,
}

/// A request that will be done with its batch.
struct Decided<I> {
    done: oneshot::Sender<Answer<I>>,
    written: Written<I>,
    makes_room: bool,
}

impl<C: Codec> Writer<C> {
    pub(crate) fn new(
        disk: Disk,
        codec: C,
        cache: Arc<RwLock<Cache<C::Index>>>,
        limit: Limit,
        health: watch::Sender<Health>,
    ) -> Self {
        let revision = cache.read().revision();
        let writer = Self {
            disk,
            codec,
            cache,
            revision,
            unwritten: BTreeSet::new(),
            deadline: None,
            is_failing: false,
            limit,
            health,
        };
        writer.tell_health();
        writer
    }

    fn tell_health(&self) {
        let now = if self.disk.is_broken() {
            Health::Closed
        } else if self.disk.is_full() {
            Health::Full
        } else if self.is_failing {
            Health::Failing
        } else if self.limit.is_reached() {
            Health::AtLimit
        } else {
            Health::Good
        };
        self.health.send_if_modified(|health| std::mem::replace(health, now) != now);
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
                        self.tell_health();
                        continue;
                    }
                },
            };
            let Some(first) = first else { break };
            self.disk.look_for_room();
            self.tell_health();
            let mut batch = Batch::new();
            let mut next = Some(first);
            let mut closing = None;
            while let Some(request) = next {
                match request {
                    Request::Write { writes, durability, done } => self.decide(&mut batch, writes, durability, done),
                    Request::Close { done } => closing = Some(done),
                }
                let full = closing.is_some() || batch.decided.len() >= BATCH;
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
            self.deadline = Some(Instant::now() + AGAIN_AFTER);
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
        let makes_room = writes.iter().all(|write| write.purpose().is_removal());
        if self.disk.is_full() && !makes_room && durability == Durability::Strict {
            let _ = done.send(Err(WriteError::Full));
            return;
        }
        let before = (self.revision, batch.events.len(), batch.growth);
        let mut replaced = Vec::with_capacity(writes.len());
        let mut written = Vec::with_capacity(writes.len());
        let mut is_allowed = true;
        for write in writes {
            let purpose = write.purpose();
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
            let growth = growth(old.as_deref(), (!deleted).then_some(&entry));
            is_allowed &= self.limit.allows(purpose, old.is_some(), self.size(batch), growth);
            batch.growth += growth;
            let newest = (!deleted).then(|| Arc::clone(&entry));
            replaced.push((write.key.clone(), batch.newest.insert(write.key, newest)));
            batch.events.push(Event { entry: Arc::clone(&entry), old, deleted });
            written.push(entry);
        }
        if !is_allowed {
            // Nobody has seen any of it.
            (self.revision, batch.growth) = (before.0, before.2);
            batch.events.truncate(before.1);
            batch.put_back(replaced);
            self.limit.reach(self.size(batch));
            batch.beyond_limit.push(done);
            return;
        }
        batch.strict |= durability == Durability::Strict;
        batch.decided.push(Decided { done, written, makes_room });
    }

    /// What the store counts with a batch.
    fn size(&self, batch: &Batch<C::Index>) -> u64 {
        self.cache.read().cost().saturating_add_signed(batch.growth)
    }

    fn current(&self, batch: &Batch<C::Index>, key: &Key) -> Newest<C::Index> {
        match batch.newest.get(key) {
            Some(newest) => newest.clone(),
            None => self.cache.read().get(&key.collection, &key.item).cloned(),
        }
    }

    fn finish(&mut self, mut batch: Batch<C::Index>) {
        if !batch.beyond_limit.is_empty() {
            // Before the answers: who is refused may ask why.
            self.tell_health();
            for done in batch.beyond_limit.drain(..) {
                let _ = done.send(Err(WriteError::AtLimit));
            }
        }
        if batch.events.is_empty() {
            return;
        }
        if !batch.strict && self.revision <= self.disk.ceiling() {
            self.keep_for_later(&batch);
        } else if let Err(error) = self.commit(&batch.newest, false) {
            self.keep_for_later(&batch);
            let has_more_room = self.disk.make_room(&error);
            if !has_more_room {
                return self.fail(batch, error);
            }
            tracing::warn!("the disk of the store is full: only deletions are done until there is room");
            // Before the answers: who is refused may ask why.
            self.tell_health();
            batch = self.without_what_takes_room(batch);
            if let Err(error) = self.commit(&batch.newest, false) {
                return self.fail(batch, error);
            }
        }
        self.cache.write().publish(&self.codec, batch.events, Instant::now());
        self.limit.look(self.cache.read().cost());
        self.tell_health();
        for Decided { done, written, .. } in batch.decided {
            let _ = done.send(Ok(written));
        }
    }

    /// The published versions of these keys are written by a later commit. After a commit that failed,
    /// too: whether it reached the disk is unknown, and so that the two agree it is written over.
    fn keep_for_later(&mut self, batch: &Batch<C::Index>) {
        self.unwritten.extend(batch.newest.keys().cloned());
        let within = if self.is_failing { AGAIN_AFTER } else { RELAXED_FOR };
        let deadline = Instant::now() + within;
        self.deadline = Some(self.deadline.map_or(deadline, |set| set.min(deadline)));
    }

    fn fail(&self, batch: Batch<C::Index>, error: redb::Error) {
        self.tell_health();
        let error = Arc::new(error);
        for Decided { done, .. } in batch.decided {
            let is_full = self.disk.is_full();
            let _ = done.send(Err(if is_full { WriteError::Full } else { WriteError::Disk(Arc::clone(&error)) }));
        }
    }

    /// Refuses the requests of a batch that take room, and those that build on one of them.
    fn without_what_takes_room(&self, batch: Batch<C::Index>) -> Batch<C::Index> {
        let mut kept = Batch::new();
        let mut events = batch.events.into_iter();
        for decided in batch.decided {
            let own: Vec<Event<C::Index>> = events.by_ref().take(decided.written.len()).collect();
            let builds_on_kept = |event: &Event<C::Index>| {
                let before = self.current(&kept, &event.entry.key);
                before.map(|e| e.revision) == event.old.as_ref().map(|e| e.revision)
            };
            if !decided.makes_room || !own.iter().all(builds_on_kept) {
                let _ = decided.done.send(Err(WriteError::Full));
                continue;
            }
            for event in own {
                let newest = (!event.deleted).then(|| Arc::clone(&event.entry));
                kept.newest.insert(event.entry.key.clone(), newest);
                kept.events.push(event);
            }
            kept.decided.push(decided);
        }
        kept
    }

    /// Writes the newest versions of a batch, and the published versions of all that is unwritten.
    fn commit(&mut self, newest: &HashMap<Key, Newest<C::Index>>, closing: bool) -> Result<(), redb::Error> {
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
        let done = self.disk.commit(changes, ceiling, closing);
        self.is_failing = done.is_err();
        done?;
        self.unwritten.clear();
        self.deadline = None;
        Ok(())
    }
}

/// By how much a change of an entry makes the store larger.
fn growth<I>(old: Option<&Entry<I>>, new: Option<&Arc<Entry<I>>>) -> i64 {
    let cost = |entry: &Entry<I>| i64::try_from(limit::cost(entry)).unwrap_or(i64::MAX);
    new.map_or(0, |entry| cost(entry)) - old.map_or(0, cost)
}

impl<I> Batch<I> {
    fn new() -> Self {
        Self {
            events: Vec::new(),
            newest: HashMap::new(),
            strict: false,
            decided: Vec::new(),
            growth: 0,
            beyond_limit: Vec::new(),
        }
    }

    /// Of each key, what was the newest version of this batch, if it had one.
    fn put_back(&mut self, replaced: Vec<(Key, Option<Newest<I>>)>) {
        for (key, newest) in replaced.into_iter().rev() {
            match newest {
                Some(newest) => self.newest.insert(key, newest),
                None => self.newest.remove(&key),
            };
        }
    }
}

impl<I> Write<I> {
    fn purpose(&self) -> Purpose {
        if matches!(self.action, Action::Delete(_)) { Purpose::Removal } else { self.purpose }
    }

    fn allowed(&self, current: Option<&Entry<I>>) -> bool {
        let expected = match self.expect {
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.is_some_and(|e| e.revision == revision),
            Expect::Present => current.is_some(),
        };
        expected && (current.is_some() || matches!(self.action, Action::Put(_)))
    }
}
