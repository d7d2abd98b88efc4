//! Joins events that differ in their message alone (client-go's event aggregator): a refused create
//! names another generated name each time, and a hundred events would say the same.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Messages that similar events may have, each in an event of its own, before they are joined.
const MESSAGES: usize = 10;
/// After this time without a similar event the counting begins anew.
const WITHIN: Duration = Duration::from_secs(600);
/// What joined events start with, as upstream's.
const PREFIX: &str = "(combined from similar events): ";

#[derive(Debug)]
struct Seen {
    messages: HashSet<String>,
    last: Instant,
}

/// The messages of late, by what else an event says.
#[derive(Debug)]
pub(crate) struct SimilarEvents<K> {
    seen: HashMap<K, Seen>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone> SimilarEvents<K> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { seen: HashMap::new(), capacity }
    }

    /// The message of the one event that stands for all similar ones, once there are too many.
    pub(crate) fn joined(&mut self, similar: &K, message: &str, now: Instant) -> Option<String> {
        self.make_room(similar);
        let seen = self.seen.entry(similar.clone()).or_insert_with(|| Seen { messages: HashSet::new(), last: now });
        if now.duration_since(seen.last) > WITHIN {
            seen.messages.clear();
        }
        seen.last = now;
        let is_new = !seen.messages.contains(message);
        // The last place stays free: a message that would take it is joined, and so is every further one.
        if is_new && seen.messages.len() + 1 < MESSAGES {
            seen.messages.insert(message.to_owned());
            return None;
        }
        is_new.then(|| format!("{PREFIX}{message}"))
    }

    fn make_room(&mut self, similar: &K) {
        if self.seen.len() < self.capacity || self.seen.contains_key(similar) {
            return;
        }
        let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.last).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.seen.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_tenth_message_and_those_after_it_are_joined() {
        let mut events = SimilarEvents::new(4);
        for i in 1..10 {
            assert_eq!(events.joined(&"web", &format!("m{i}"), Instant::now()), None, "{i}");
        }
        for i in 10..13 {
            let expected = format!("(combined from similar events): m{i}");
            assert_eq!(events.joined(&"web", &format!("m{i}"), Instant::now()), Some(expected));
        }
        assert_eq!(events.joined(&"web", "m1", Instant::now()), None, "one that has an event of its own");
        assert_eq!(events.joined(&"db", "m13", Instant::now()), None, "about something else");
        tokio::time::advance(WITHIN + Duration::from_secs(1)).await;
        assert_eq!(events.joined(&"web", "m14", Instant::now()), None, "much later");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_seen_longest_ago_is_forgotten() {
        let mut events = SimilarEvents::new(2);
        for key in ["a", "b", "c"] {
            events.joined(&key, "m", Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let mut left: Vec<_> = events.seen.keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left, ["b", "c"]);
    }
}
