//! The published state: the newest version of every entry, its secondary index and the rings.
//!
//! Only the writer changes it, a whole batch under one lock, so that a reader sees either all or
//! nothing of a batch and the revision that belongs to it.

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::codec::{Codec, Entry, Event};
use crate::disk::SetAside;
use crate::error::Gone;
use crate::gap::Gap;
use crate::history::History;
use crate::key::Key;
use crate::limit;
use crate::ring::{Ring, RingLimits};

/// A part of a collection: the items with a prefix, from a start on.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub collection: &'a str,
    /// Empty for all items.
    pub prefix: &'a str,
    /// The first item that may be visited; empty to start at the beginning.
    pub start: &'a str,
}

/// The size of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionStats {
    pub collection: Arc<str>,
    pub entries: usize,
    pub bytes: usize,
    pub events: usize,
}

/// The size of everything that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    pub revision: u64,
    pub ring_bytes: usize,
    pub collections: Vec<CollectionStats>,
}

/// Some events of a collection, and the revision up to which they are everything.
type Events<I> = (Vec<Arc<Event<I>>>, u64);
type OldVersion<I> = Option<Arc<Entry<I>>>;
type Items<I> = BTreeMap<Arc<str>, Arc<Entry<I>>>;

#[derive(Debug)]
struct Collection<I> {
    items: Items<I>,
    bytes: usize,
    terms: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    ring: Ring<I>,
    /// Tells watchers the newest revision of this collection.
    published: watch::Sender<u64>,
}

#[derive(Debug)]
pub(crate) struct Cache<I> {
    revision: u64,
    /// Nothing is known of changes before this revision.
    opened_at: u64,
    collections: HashMap<Arc<str>, Collection<I>>,
    /// Of all present entries.
    cost: u64,
    limits: RingLimits,
    ring_bytes: usize,
    history: History,
    /// By name on disk.
    set_aside: BTreeMap<String, SetAside>,
    gaps: Vec<Gap>,
    /// Names in gaps of which it is known that they are absent: they were there and were deleted.
    absent: VecDeque<String>,
}

/// Of more names it is forgotten that they are absent, the oldest first: they may be lost again, which
/// nobody acts upon. Searched through only where there are gaps.
const MOST_ABSENT: usize = 4096;

impl<I> Cache<I> {
    pub(crate) fn new(revision: u64, limits: RingLimits, set_aside: Vec<SetAside>, gaps: Vec<Gap>) -> Self {
        Self {
            revision,
            opened_at: revision,
            collections: HashMap::new(),
            cost: 0,
            limits,
            ring_bytes: 0,
            history: History::new(limits.age),
            set_aside: set_aside.into_iter().map(|entry| (entry.name.clone(), entry)).collect(),
            gaps,
            absent: VecDeque::new(),
        }
    }

    pub(crate) fn set_aside(&self) -> impl Iterator<Item = &SetAside> {
        self.set_aside.values()
    }

    pub(crate) fn is_set_aside(&self, collection: &str, item: &str) -> bool {
        // Nearly always there are none, and no name is made.
        !self.set_aside.is_empty() && self.set_aside.contains_key(&Key::new(collection, item).to_string())
            || self.may_be_lost(collection, item)
    }

    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub(crate) fn may_be_lost(&self, collection: &str, item: &str) -> bool {
        if self.gaps.is_empty() || self.get(collection, item).is_some() {
            return false;
        }
        let name = Key::new(collection, item).to_string();
        self.gaps.iter().any(|gap| gap.holds(&name)) && !self.absent.contains(&name)
    }

    /// Notes that an entry was deleted, where its absence would else be in doubt.
    fn note_absent(&mut self, name: String) {
        if self.gaps.iter().any(|gap| gap.holds(&name)) && !self.absent.contains(&name) {
            if self.absent.len() == MOST_ABSENT {
                self.absent.pop_front();
            }
            self.absent.push_back(name);
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn collection_revision(&self, collection: &str) -> u64 {
        self.collections.get(collection).map_or(self.opened_at, |c| *c.published.borrow())
    }

    pub(crate) fn get(&self, collection: &str, item: &str) -> Option<&Arc<Entry<I>>> {
        self.collections.get(collection)?.items.get(item)
    }

    fn collection(&mut self, name: &Arc<str>) -> &mut Collection<I> {
        let opened_at = self.opened_at;
        self.collections.entry(Arc::clone(name)).or_insert_with(|| Collection {
            items: BTreeMap::new(),
            bytes: 0,
            terms: HashMap::new(),
            ring: Ring::new(opened_at),
            published: watch::Sender::new(opened_at),
        })
    }

    /// Adds an entry that was read from disk.
    pub(crate) fn load<C: Codec<Index = I>>(&mut self, codec: &C, entry: Entry<I>) {
        let (added, removed) = self.collection(&entry.key.collection.clone()).put(codec, Arc::new(entry));
        self.cost = self.cost + added - removed;
    }

    /// Makes a committed batch visible; `events` are in the order of their revisions.
    pub(crate) fn publish<C: Codec<Index = I>>(&mut self, codec: &C, events: Vec<Event<I>>, now: Instant) {
        let mut touched: Vec<watch::Sender<u64>> = Vec::new();
        self.history.note(self.revision, now);
        for event in events {
            self.revision = event.revision();
            self.ring_bytes += event.cost();
            if !self.set_aside.is_empty() {
                self.set_aside.remove(&event.entry.key.to_string());
            }
            if !self.gaps.is_empty() && event.deleted {
                self.note_absent(event.entry.key.to_string());
            }
            let collection = self.collection(&event.entry.key.collection.clone());
            let (added, removed) = if event.deleted {
                (0, collection.remove(codec, &event.entry.key.item))
            } else {
                collection.put(codec, Arc::clone(&event.entry))
            };
            collection.ring.push(Arc::new(event), now);
            if !touched.iter().any(|t| t.same_channel(&collection.published)) {
                touched.push(collection.published.clone());
            }
            self.cost = self.cost + added - removed;
        }
        self.trim(now);
        // Still under the cache's lock, so that a collection's revision and its items agree.
        for sender in touched {
            sender.send_replace(self.revision);
        }
    }

    fn trim(&mut self, now: Instant) {
        for collection in self.collections.values_mut() {
            self.ring_bytes -= collection.ring.expire(now, self.limits.age);
        }
        while self.ring_bytes > self.limits.bytes {
            let floor = self.limits.floor;
            let rings = || self.collections.iter().map(|(name, c)| (c.ring.bytes(), name));
            let largest = rings().filter(|(bytes, _)| *bytes > floor).max().or_else(|| rings().max());
            let Some(name) = largest.map(|(_, name)| Arc::clone(name)) else { return };
            match self.collection(&name).ring.pop() {
                Some(freed) => self.ring_bytes -= freed,
                None => return,
            }
        }
    }

    /// Visits the items of a scope in key order, as they were at a revision; without one, as they are.
    pub(crate) fn scan(
        &self,
        scope: Scope<'_>,
        at: Option<u64>,
        now: Instant,
        mut visit: impl FnMut(&Arc<Entry<I>>) -> ControlFlow<()>,
    ) -> Result<u64, Gone> {
        let at = at.unwrap_or(self.revision).min(self.revision);
        let oldest = self.history.oldest(now);
        if at < oldest {
            return Err(Gone { oldest });
        }
        let Some(collection) = self.collections.get(scope.collection) else {
            return if at < self.opened_at { Err(Gone { oldest: self.opened_at }) } else { Ok(at) };
        };
        // Undo, newest first: what stays in the map is the state before the oldest undone event.
        let mut undone: BTreeMap<Arc<str>, OldVersion<I>> = BTreeMap::new();
        for event in collection.ring.after(at)?.rev() {
            undone.insert(Arc::clone(&event.entry.key.item), event.old.clone());
        }
        let from = scope.start.max(scope.prefix);
        let bounds: (Bound<&str>, Bound<&str>) = (Bound::Included(from), Bound::Unbounded);
        let merged = Merged {
            now: collection.items.range::<str, _>(bounds).peekable(),
            undone: undone.range::<str, _>(bounds).peekable(),
        };
        for entry in merged {
            if !entry.key.item.starts_with(scope.prefix) || visit(entry).is_break() {
                break;
            }
        }
        Ok(at)
    }

    /// The entries with an index term, in key order.
    pub(crate) fn by_term(&self, collection: &str, term: &str) -> Vec<Arc<Entry<I>>> {
        let Some(collection) = self.collections.get(collection) else { return Vec::new() };
        let items = collection.terms.get(term).into_iter().flatten();
        items.filter_map(|item| collection.items.get(item).cloned()).collect()
    }

    /// At most `limit` events after a revision, none beyond the one that reaches so many bytes, and the revision
    /// up to which that is everything.
    pub(crate) fn events_after(
        &self,
        collection: &str,
        revision: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Events<I>, Gone> {
        let Some(collection) = self.collections.get(collection) else {
            return if revision < self.opened_at {
                Err(Gone { oldest: self.opened_at })
            } else {
                Ok((Vec::new(), self.revision.max(revision)))
            };
        };
        let (mut events, mut taken) = (Vec::new(), 0);
        let mut complete = self.revision.max(revision);
        for event in collection.ring.after(revision)? {
            if events.len() == limit || taken >= bytes {
                complete = events.last().map_or(revision, |last: &Arc<Event<I>>| last.revision());
                break;
            }
            taken += event.entry.bytes.len();
            events.push(Arc::clone(event));
        }
        Ok((events, complete))
    }

    /// `None` while nothing was ever in the collection; see [`Self::ensure`].
    pub(crate) fn subscribe(&self, collection: &str) -> Option<watch::Receiver<u64>> {
        self.collections.get(collection).map(|c| c.published.subscribe())
    }

    pub(crate) fn ensure(&mut self, collection: &str) -> watch::Receiver<u64> {
        self.collection(&collection.into()).published.subscribe()
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    pub(crate) fn collection_bytes(&self, collection: &str) -> usize {
        self.collections.get(collection).map_or(0, |c| c.bytes)
    }

    pub(crate) fn collection_entries(&self, collection: &str) -> usize {
        self.collections.get(collection).map_or(0, |c| c.items.len())
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut collections: Vec<_> = self
            .collections
            .iter()
            .map(|(name, c)| CollectionStats {
                collection: Arc::clone(name),
                entries: c.items.len(),
                bytes: c.bytes,
                events: c.ring.len(),
            })
            .collect();
        collections.sort_by(|a, b| a.collection.cmp(&b.collection));
        Stats { revision: self.revision, ring_bytes: self.ring_bytes, collections }
    }
}

impl<I> Collection<I> {
    /// Returns the cost of the entry, and that of the one that it replaces.
    fn put<C: Codec<Index = I>>(&mut self, codec: &C, entry: Arc<Entry<I>>) -> (u64, u64) {
        let (added, removed) = (limit::cost(&entry), self.remove(codec, &entry.key.item));
        self.bytes += entry.bytes.len();
        let item = Arc::clone(&entry.key.item);
        codec.terms(&entry.key, &entry.index, &mut |term| {
            self.terms.entry(term.into()).or_default().insert(Arc::clone(&item));
        });
        self.items.insert(item, entry);
        (added, removed)
    }

    /// Returns the cost of what was there.
    fn remove<C: Codec<Index = I>>(&mut self, codec: &C, item: &str) -> u64 {
        let Some(old) = self.items.remove(item) else { return 0 };
        self.bytes -= old.bytes.len();
        codec.terms(&old.key, &old.index, &mut |term| {
            if let Some(items) = self.terms.get_mut(term) {
                items.remove(item);
                if items.is_empty() {
                    self.terms.remove(term);
                }
            }
        });
        limit::cost(&old)
    }
}

/// The present items with the undone changes laid over them, in key order.
struct Merged<'a, I> {
    now: Peekable<Range<'a, Arc<str>, Arc<Entry<I>>>>,
    undone: Peekable<Range<'a, Arc<str>, OldVersion<I>>>,
}

impl<'a, I> Iterator for Merged<'a, I> {
    type Item = &'a Arc<Entry<I>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((undone_key, _)) = self.undone.peek() else {
                return self.now.next().map(|(_, entry)| entry);
            };
            match self.now.peek() {
                Some((key, _)) if key < undone_key => return self.now.next().map(|(_, entry)| entry),
                Some((key, _)) if key == undone_key => {
                    self.now.next();
                }
                Some(_) | None => {}
            }
            if let Some((_, Some(entry))) = self.undone.next() {
                return Some(entry);
            }
        }
    }
}
