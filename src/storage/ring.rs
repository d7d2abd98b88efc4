//! The recent events of one collection, and the limits under which they are kept.
//!
//! All rings share one byte cap. What is over it is taken from the collection that uses most, but not
//! below the floor, so that a busy kind (leases, events) never pushes out the history of quiet ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::Event;
use crate::error::Gone;

/// How much history is kept for watches and consistent lists.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// All collections together; always holds.
    pub bytes: usize,
    /// A collection under this is not taken from while another is over it.
    pub floor: usize,
    /// Older events are dropped even when there is room.
    pub age: Duration,
}

impl Default for RingLimits {
    /// 16 MiB is 1,400 changes of an 11 KB pod; 5 minutes is the history that upstream keeps.
    fn default() -> Self {
        Self { bytes: 16 << 20, floor: 128 << 10, age: Duration::from_secs(300) }
    }
}

#[derive(Debug)]
struct Slot<I> {
    event: Arc<Event<I>>,
    at: Instant,
}

/// The events of one collection in the order of their revisions.
#[derive(Debug)]
pub(crate) struct Ring<I> {
    slots: VecDeque<Slot<I>>,
    bytes: usize,
    /// Every event after this revision is here.
    complete_after: u64,
}

impl<I> Ring<I> {
    pub(crate) fn new(complete_after: u64) -> Self {
        Self { slots: VecDeque::new(), bytes: 0, complete_after }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn push(&mut self, event: Arc<Event<I>>, now: Instant) {
        self.bytes += event.cost();
        self.slots.push_back(Slot { event, at: now });
    }

    /// Drops the oldest event; `None` when there is none. Returns the bytes freed.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let slot = self.slots.pop_front()?;
        let cost = slot.event.cost();
        self.bytes -= cost;
        self.complete_after = slot.event.revision();
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        Some(cost)
    }

    /// Drops what is older than `age`; returns the bytes freed.
    pub(crate) fn expire(&mut self, now: Instant, age: Duration) -> usize {
        let mut freed = 0;
        while self.slots.front().is_some_and(|s| now.saturating_duration_since(s.at) > age) {
            freed += self.pop().unwrap_or(0);
        }
        freed
    }

    /// The events after a revision, oldest first.
    pub(crate) fn after(&self, revision: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Event<I>>>, Gone> {
        if revision < self.complete_after {
            return Err(Gone { oldest: self.complete_after });
        }
        let start = self.slots.partition_point(|s| s.event.revision() <= revision);
        Ok(self.slots.range(start..).map(|s| &s.event))
    }
}
