//! How large the store may become, and who may still write when it is.
//!
//! All entries rest in memory, so a store without a limit ends as a process that is killed, at each start anew. At
//! the limit nothing grows but by what has to go on: each kind of write has a level of its own above it, so that
//! nobody can use up what the cluster lives from.

use crate::codec::Entry;

/// A part of the limit that stays for writes which go on, above it.
const RESERVE: u64 = 16;
/// A refused store is taken for full until this part of the limit is free: room for some large objects.
const ENOUGH: u64 = 32;
/// An update that grows an entry by so little leaves it as it was: another digit of its revision, a time, a counter.
const SLIGHT: i64 = 64;
/// Memory of an entry beside its bytes: its index, its places in maps, its name.
const BESIDE: u64 = 512;

/// What an entry counts: nearly its memory.
pub(crate) fn cost<I>(entry: &Entry<I>) -> u64 {
    (entry.bytes.len() + entry.key.item.len()) as u64 + BESIDE
}

/// Why a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Ordinary,
    /// It belongs to a deletion.
    Removal,
    /// The cluster does not go on without it, and its size is none of a user's choice: signs of life of a node,
    /// the status of a pod, also of one that is being deleted.
    Upkeep {
        is_removal: bool,
    },
}

impl Purpose {
    /// Such writes are done on a full disk, too.
    pub(crate) fn is_removal(self) -> bool {
        match self {
            Self::Ordinary => false,
            Self::Removal => true,
            Self::Upkeep { is_removal } => is_removal,
        }
    }
}

/// The limit of a store, and whether it was met.
#[derive(Debug)]
pub(crate) struct Limit {
    most: u64,
    /// Where the reserve begins: a store may have been larger than its limit when it was opened.
    reserve_from: u64,
    is_reached: bool,
}

impl Limit {
    pub(crate) fn new(most: u64, now: u64) -> Self {
        let mut limit = Self { most, reserve_from: most.max(now), is_reached: false };
        if now >= most {
            limit.reach(now);
        }
        limit
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// Whether a write may make the store, which is of size `now`, larger by `growth`.
    pub(crate) fn allows(&self, purpose: Purpose, is_update: bool, now: u64, growth: i64) -> bool {
        let Ok(growing) = u64::try_from(growth) else { return true };
        let reserve = self.most / RESERVE;
        let up_to = match purpose {
            Purpose::Upkeep { .. } => self.reserve_from.saturating_add(reserve),
            Purpose::Removal => self.reserve_from.saturating_add(reserve / 2),
            Purpose::Ordinary if is_update && growth <= SLIGHT => self.reserve_from.saturating_add(reserve / 4),
            Purpose::Ordinary => self.most,
        };
        growing == 0 || now.saturating_add(growing) <= up_to
    }

    /// Notes that a write was refused; says so the first time.
    pub(crate) fn reach(&mut self, now: u64) {
        if !self.is_reached {
            self.is_reached = true;
            tracing::warn!(
                bytes = now,
                limit = self.most,
                "the store has reached its limit: objects can be deleted and made smaller until there is room; \
                 --store-limit sets another one"
            );
        }
    }

    /// Looks whether there is room again.
    pub(crate) fn look(&mut self, now: u64) {
        if self.is_reached && now <= self.most - self.most / ENOUGH {
            self.is_reached = false;
            tracing::info!(bytes = now, limit = self.most, "the store has room again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 16 << 20;
    const RESERVED: u64 = MOST / RESERVE;

    #[track_caller]
    fn check(limit: &Limit, now: u64, growth: i64, expected: [bool; 4]) {
        let allows = |purpose, is_update| limit.allows(purpose, is_update, now, growth);
        let got = [
            allows(Purpose::Ordinary, false),
            allows(Purpose::Ordinary, true),
            allows(Purpose::Removal, true),
            allows(Purpose::Upkeep { is_removal: false }, true),
        ];
        assert_eq!(got, expected, "{growth} at {now}");
    }

    #[test]
    fn each_purpose_has_a_level_of_its_own() {
        let limit = Limit::new(MOST, 0);
        check(&limit, MOST - 1000, 1000, [true; 4]);
        check(&limit, MOST - 1000, 1001, [false, false, true, true]);
        check(&limit, MOST, 10, [false, true, true, true]);
        check(&limit, MOST + RESERVED / 4, 10, [false, false, true, true]);
        check(&limit, MOST + RESERVED / 2, 10, [false, false, false, true]);
        check(&limit, MOST + RESERVED, 10, [false; 4]);
        check(&limit, MOST * 2, 0, [true; 4]);
        check(&limit, MOST * 2, -1, [true; 4]);
        check(&Limit::new(u64::MAX, 0), u64::MAX, 1 << 40, [true; 4]);
    }

    #[test]
    fn a_store_that_was_larger_already_has_its_reserve_above() {
        let limit = Limit::new(MOST, 3 * MOST);
        assert!(limit.is_reached());
        check(&limit, 3 * MOST, 10, [false, true, true, true]);
        check(&limit, 3 * MOST, 1000, [false, false, true, true]);
        check(&limit, 3 * MOST + RESERVED, 1, [false; 4]);
    }

    #[test]
    fn a_refusal_stands_until_there_is_room_for_more_than_one() {
        let mut limit = Limit::new(MOST, 0);
        assert!(!limit.is_reached());
        limit.reach(MOST - 10);
        limit.look(MOST - 10);
        assert!(limit.is_reached());
        limit.look(MOST - MOST / ENOUGH);
        assert!(!limit.is_reached());
    }
}
