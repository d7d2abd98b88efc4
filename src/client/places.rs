//! Places that clients share who are not trusted: a bounded number of them, divided by source.
//!
//! There is always a place for the newest. When too many are taken, the source that holds the most
//! gives up its oldest: a client that opens many displaces itself, and one that opens few is left alone
//! for as long as there are fewer sources than places.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A bounded set of places. Cloning is cheap and gives the same set.
pub struct Places<S> {
    limit: usize,
    /// From the oldest to the newest; searched from end to end, so limits are hundreds.
    taken: Arc<Mutex<Vec<Entry<S>>>>,
}

struct Entry<S> {
    source: S,
    lost: CancellationToken,
}

/// One place; dropping it gives it back.
pub struct Place<S> {
    taken: Arc<Mutex<Vec<Entry<S>>>>,
    lost: CancellationToken,
}

impl<S> Clone for Places<S> {
    fn clone(&self) -> Self {
        Self { limit: self.limit, taken: Arc::clone(&self.taken) }
    }
}

impl<S: Clone + Eq + Hash> Places<S> {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// A place for this source, which holds no more than `share` of them.
    #[must_use]
    pub fn take(&self, source: S, share: usize) -> Place<S> {
        let lost = CancellationToken::new();
        let mut taken = self.taken.lock();
        taken.push(Entry { source: source.clone(), lost: lost.clone() });
        let own = taken.iter().filter(|entry| entry.source == source).count();
        if own > share {
            give_up_oldest(&mut taken, &source);
        } else if taken.len() > self.limit {
            let greediest = greediest(&taken, source);
            give_up_oldest(&mut taken, &greediest);
        }
        drop(taken);
        Place { taken: Arc::clone(&self.taken), lost }
    }

    /// How many places are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.lock().len()
    }
}

/// Who holds the most; the newcomer if nobody holds more.
fn greediest<S: Clone + Eq + Hash>(taken: &[Entry<S>], newcomer: S) -> S {
    let mut held: HashMap<&S, usize> = HashMap::new();
    for entry in taken {
        *held.entry(&entry.source).or_default() += 1;
    }
    let most = held.values().copied().max().unwrap_or_default();
    if held.get(&newcomer) == Some(&most) && most > 1 {
        return newcomer;
    }
    let oldest = taken.iter().find(|entry| held[&entry.source] == most);
    oldest.map_or(newcomer, |entry| entry.source.clone())
}

fn give_up_oldest<S: Eq>(taken: &mut Vec<Entry<S>>, source: &S) {
    if let Some(oldest) = taken.iter().position(|entry| entry.source == *source) {
        taken.remove(oldest).lost.cancel();
    }
}

impl<S> Place<S> {
    /// Waits until the place was given to somebody else.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether it was.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        if self.is_lost() {
            return;
        }
        // Marks it, so that it is found among the others.
        self.lost.cancel();
        self.taken.lock().retain(|entry| !entry.lost.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes places for sources in turn and tells whose were lost, by their positions.
    #[track_caller]
    fn check(limit: usize, share: usize, sources: &str, lost: &[usize]) {
        let places = Places::new(limit);
        let held: Vec<_> = sources.chars().map(|source| places.take(source, share)).collect();
        let found: Vec<_> = held.iter().enumerate().filter(|(_, place)| place.is_lost()).map(|(at, _)| at).collect();
        assert_eq!(found, lost, "{sources}");
        assert!(places.taken() <= limit);
        drop(held);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn the_greediest_source_gives_up_its_oldest() {
        check(4, 9, "abcd", &[]);
        check(4, 9, "aaaaaaa", &[0, 1, 2]);
        check(4, 9, "baaaaaa", &[1, 2, 3]);
        check(4, 9, "aaaab", &[0]);
        check(4, 9, "aabbc", &[0]);
        // Nobody holds more than one: the oldest of all goes.
        check(4, 9, "abcde", &[0]);
        // Equals: the newcomer's own.
        check(4, 9, "aabbb", &[2]);
    }

    #[test]
    fn a_source_holds_no_more_than_its_share() {
        check(9, 2, "aaab", &[0]);
        check(9, 2, "abaabb", &[0, 1]);
    }

    #[tokio::test]
    async fn who_loses_a_place_is_told() {
        let places = Places::new(1);
        let first = places.take(1, 1);
        let second = places.take(2, 1);
        first.lost().await;
        assert!(!second.is_lost());
        drop(second);
        assert!(!places.take(3, 1).is_lost());
    }
}
