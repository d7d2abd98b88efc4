//! A bounded cache whose entries are all forgotten after the same time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

pub(super) struct Cache<K, V> {
    limit: usize,
    lifetime: Duration,
    entries: HashMap<K, (Instant, V)>,
    /// From the oldest to the newest.
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(limit: usize, lifetime: Duration) -> Self {
        Self { limit, lifetime, entries: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (since, value) = self.entries.get(key)?;
        (now.duration_since(*since) < self.lifetime).then(|| value.clone())
    }

    /// Keeps a value; the oldest gives way to it.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        if self.entries.insert(key, (now, value)).is_some() {
            self.order.retain(|other| *other != key);
        }
        self.order.push_back(key);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_end_with_their_time_and_the_oldest_gives_way() {
        let mut cache = Cache::new(2, Duration::from_secs(10));
        let start = Instant::now();
        cache.put(1, "a", start);
        assert_eq!(cache.get(&1, start + Duration::from_secs(9)), Some("a"));
        assert_eq!(cache.get(&1, start + Duration::from_secs(10)), None);
        cache.put(2, "b", start);
        cache.put(1, "c", start);
        cache.put(3, "d", start);
        assert_eq!((cache.get(&1, start), cache.get(&2, start), cache.get(&3, start)), (Some("c"), None, Some("d")));
        assert_eq!((cache.entries.len(), cache.order.len()), (2, 2));
    }
}
