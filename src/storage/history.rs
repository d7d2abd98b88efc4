//! How far back a consistent list may reach: the clock on which upstream compacts its store.
//!
//! The rings alone would answer for any age as long as a collection is quiet. Clients count on a
//! revision, and with it a paged list, to end: it is known for as long as the rings aim to keep
//! events, and gone within another fifth of that.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Notes in one such span: what a revision outlives it by, at most.
const NOTES: u32 = 5;

/// What the newest revision was, from time to time.
#[derive(Debug)]
pub(crate) struct History {
    age: Duration,
    /// Oldest first; of those that are older than `age` only the last is of use.
    notes: VecDeque<(Instant, u64)>,
}

impl History {
    pub(crate) fn new(age: Duration) -> Self {
        Self { age, notes: VecDeque::new() }
    }

    /// Says that `revision` has been the newest one until now.
    pub(crate) fn note(&mut self, revision: u64, now: Instant) {
        if self.notes.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < self.age / NOTES) {
            return;
        }
        while self.notes.get(1).is_some_and(|(at, _)| self.is_over(*at, now)) {
            self.notes.pop_front();
        }
        self.notes.push_back((now, revision));
    }

    /// The oldest revision that is still to be answered for.
    pub(crate) fn oldest(&self, now: Instant) -> u64 {
        let over = self.notes.iter().rev().find(|(at, _)| self.is_over(*at, now));
        over.map_or(0, |(_, revision)| *revision)
    }

    fn is_over(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) >= self.age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_known_for_its_age_and_hardly_longer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(Duration::from_secs(300));
        for seconds in 0..=1000 {
            history.note(100 + seconds, at(seconds));
            let oldest = history.oldest(at(seconds));
            // What was the newest revision 300 s ago is known; what was 360 s ago is not.
            assert!(oldest <= 100 + seconds.saturating_sub(300), "{seconds}: {oldest}");
            assert!(seconds < 360 || oldest > 100 + seconds - 361, "{seconds}: {oldest}");
        }
        assert!(history.notes.len() <= 7, "{}", history.notes.len());
    }

    #[test]
    fn without_writes_the_newest_revision_stays_known() {
        let start = Instant::now();
        let mut history = History::new(Duration::from_secs(300));
        history.note(7, start);
        assert_eq!(history.oldest(start + Duration::from_secs(10_000)), 7);
    }
}
