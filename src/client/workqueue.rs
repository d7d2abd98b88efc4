//! A queue of keys to work on: a key waits once however often it is added, and is never handed out
//! twice at a time (client-go's workqueue).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Backoff;

/// Cloning gives another handle on the same queue.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    /// Told on every change that may give a waiting [`WorkQueue::get`] something to do.
    wake: Notify,
    backoff: Backoff,
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there once its present work is done.
    dirty: HashSet<K>,
    processing: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    /// When each delayed key is due, so that the earliest wish wins.
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    closed: bool,
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake: Notify::new(), backoff }) }
    }

    /// Work on `key` as soon as possible.
    pub fn add(&self, key: K) {
        self.inner.state.lock().enqueue(key);
        self.inner.wake.notify_one();
    }

    /// Work on `key` after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.inner.state.lock();
        if let Some(&slot) = state.due.get(&key) {
            if slot.0 <= at {
                return;
            }
            state.delayed.remove(&slot);
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.delayed.insert(slot, key.clone());
        state.due.insert(key, slot);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Work on `key` again after a delay that grows with each call until [`Self::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let attempt = {
            let mut state = self.inner.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures - 1
        };
        self.add_after(key, self.inner.backoff.delay(attempt));
    }

    /// `key` succeeded: its next failure starts from the shortest delay.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// How often in a row `key` has failed.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key; the caller must call [`Self::done`] with it. `None` once the queue is closed.
    pub async fn get(&self) -> Option<K> {
        loop {
            let next_due = {
                let mut state = self.inner.state.lock();
                if state.closed {
                    // Another waiter must see the end as well.
                    self.inner.wake.notify_one();
                    return None;
                }
                state.release_due(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.inner.wake.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|&(at, _)| at)
            };
            match next_due {
                Some(at) => {
                    // An elapsed timer and a wake-up both mean: look again.
                    let _ = tokio::time::timeout_at(at, self.inner.wake.notified()).await;
                }
                None => self.inner.wake.notified().await,
            }
        }
    }

    /// The work on `key` has ended; if it was added meanwhile it is due again.
    pub fn done(&self, key: &K) {
        let mut state = self.inner.state.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Ends every [`Self::get`].
    pub fn close(&self) {
        self.inner.state.lock().closed = true;
        self.inner.wake.notify_one();
    }

    /// Keys that wait to be handed out now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.state.lock().ready.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn enqueue(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.enqueue(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> WorkQueue<&'static str> {
        WorkQueue::new(Backoff::RECONCILE)
    }

    #[tokio::test]
    async fn a_key_waits_once_and_is_not_handed_out_while_worked_on() {
        let q = queue();
        q.add("a");
        q.add("a");
        q.add("b");
        assert_eq!(q.get().await, Some("a"));
        q.add("a");
        assert_eq!(q.get().await, Some("b"));
        assert!(q.is_empty(), "a is being worked on");
        q.done(&"a");
        assert_eq!(q.get().await, Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_in_the_order_they_are_due_and_the_earliest_wish_wins() {
        let q = queue();
        let start = Instant::now();
        q.add_after("late", Duration::from_secs(60));
        q.add_after("soon", Duration::from_secs(5));
        q.add_after("late", Duration::from_secs(10));
        q.add_after("late", Duration::from_secs(90));
        assert_eq!(q.get().await, Some("soon"));
        assert_eq!(q.get().await, Some("late"));
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_lengthen_the_delay_until_forgotten() {
        let q = queue();
        let mut seen = vec![];
        for _ in 0..3 {
            let start = Instant::now();
            q.add_rate_limited("x");
            let key = q.get().await.unwrap();
            q.done(&key);
            seen.push(start.elapsed().as_millis());
        }
        assert_eq!(seen, [5, 10, 20]);
        q.forget(&"x");
        assert_eq!(q.failures(&"x"), 0);
    }

    #[tokio::test]
    async fn closing_ends_every_waiter() {
        let q = queue();
        let (a, b) = (q.clone(), q.clone());
        let waiters = async { tokio::join!(a.get(), b.get()) };
        let closer = async {
            tokio::task::yield_now().await;
            q.close();
        };
        let (got, ()) = tokio::join!(waiters, closer);
        assert_eq!(got, (None, None));
    }
}
