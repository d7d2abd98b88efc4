//! CPU use as a rate, from what a cgroup had used at two looks. Pure.

use std::collections::{HashMap, HashSet};

/// Looks closer together than this say little.
const SHORTEST_NS: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Look {
    at_ns: i64,
    used_ns: u64,
    rate: Option<u64>,
}

/// By the name of what was looked at; holds only what the last round of looks was about.
#[derive(Default)]
pub(crate) struct Rates(HashMap<String, Look>);

impl Rates {
    /// Billionths of a CPU since the look before; none at the first.
    pub(super) fn next(&mut self, key: &str, at_ns: i64, used_ns: u64) -> Option<u64> {
        let before = self.0.get(key).copied();
        if let Some(before) = before.filter(|b| (0..SHORTEST_NS).contains(&(at_ns - b.at_ns))) {
            return before.rate;
        }
        let rate = before.and_then(|before| {
            let passed = u128::try_from(at_ns - before.at_ns).ok().filter(|&passed| passed > 0)?;
            let used = u128::from(used_ns.checked_sub(before.used_ns)?);
            u64::try_from(used * 1_000_000_000 / passed).ok()
        });
        self.0.insert(key.to_owned(), Look { at_ns, used_ns, rate });
        rate
    }

    pub(super) fn retain(&mut self, keys: &HashSet<String>) {
        self.0.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_give_a_rate() {
        let mut rates = Rates::default();
        let second = 1_000_000_000;
        assert_eq!(rates.next("a", 10 * second, 100), None);
        assert_eq!(rates.next("a", 12 * second, 1_000_000_100), Some(500_000_000));
        assert_eq!(rates.next("a", 12 * second + 5, 1_000_000_900), Some(500_000_000), "too close to say more");
        assert_eq!(rates.next("a", 14 * second, 50), None, "it began anew");
        assert_eq!(rates.next("a", 3 * second, 60), None, "the clock was set back");
        rates.retain(&HashSet::new());
        assert_eq!(rates.next("a", 20 * second, 100), None);
    }
}
