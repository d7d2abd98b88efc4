//! Turns for what pods make of ConfigMaps, Secrets and their own metadata.
//!
//! A change of one Secret wakes every pod that names it, and each may name it in sixty volumes. What one pod makes of
//! it is bounded where it is made; here the sum over all pods is. Those with little have turns of their own, so
//! that they never wait for those with much.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of sources up to which a turn is one of many.
pub(crate) const LITTLE: usize = 256 << 10;
/// Turns with little, at one time.
const LITTLE_TURNS: usize = 32;
/// KiB of sources at one time beyond that: two objects of a megabyte, each in base64. What is larger has a turn
/// to itself.
const LARGE_KIB: usize = 3 << 10;

/// What is made. Kinds do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Files,
    Variables,
}

#[derive(Debug)]
pub(crate) struct SourceRoom {
    little: Arc<Semaphore>,
    files: Arc<Semaphore>,
    variables: Arc<Semaphore>,
}

impl Default for SourceRoom {
    fn default() -> Self {
        let room = |places| Arc::new(Semaphore::new(places));
        Self { little: room(LITTLE_TURNS), files: room(LARGE_KIB), variables: room(LARGE_KIB) }
    }
}

/// Held for as long as what is made is in memory. Whoever has one asks for no other.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    is_little: bool,
    /// Bytes of sources that may be added.
    left: usize,
}

impl SourceRoom {
    /// Waits for a turn for so many bytes of sources, in the order of asking.
    pub(crate) async fn enter(&self, purpose: Purpose, bytes: usize) -> Turn {
        let is_little = bytes <= LITTLE;
        let (room, places) = match purpose {
            _ if is_little => (&self.little, 1),
            Purpose::Files => (&self.files, large_places(bytes)),
            Purpose::Variables => (&self.variables, large_places(bytes)),
        };
        let permit = room.clone().acquire_many_owned(places).await;
        Turn {
            _permit: permit.expect("invariant: the semaphore is never closed"),
            is_little,
            left: if is_little { LITTLE - bytes } else { 0 },
        }
    }
}

fn large_places(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10).min(LARGE_KIB)).unwrap_or(u32::MAX)
}

impl Turn {
    pub(crate) fn is_little(&self) -> bool {
        self.is_little
    }

    /// Whether so much more may be made in this turn.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn those_with_much_wait_for_each_other_and_those_with_little_for_none_of_them() {
        let room = SourceRoom::default();
        let first = room.enter(Purpose::Files, 1_400_000).await;
        let second = room.enter(Purpose::Files, 1_400_000).await;
        let mut third = pin!(room.enter(Purpose::Files, 1_400_000));
        assert!(poll!(&mut third).is_pending());
        assert!(!first.is_little() && !second.is_little());
        assert!(room.enter(Purpose::Files, LITTLE).await.is_little());
        drop(room.enter(Purpose::Variables, usize::MAX).await);
        drop(first);
        let third = third.await;
        let mut largest = pin!(room.enter(Purpose::Files, usize::MAX));
        assert!(poll!(&mut largest).is_pending(), "what is larger than the room has it alone");
        drop((second, third));
        assert!(poll!(&mut largest).is_ready());
    }

    #[tokio::test]
    async fn a_turn_with_little_takes_more_until_it_is_not_little() {
        let room = SourceRoom::default();
        let mut turn = room.enter(Purpose::Files, 0).await;
        assert!(turn.take(LITTLE / 2) && !turn.take(LITTLE) && turn.take(LITTLE / 2) && !turn.take(1) && turn.take(0));
        let mut large = room.enter(Purpose::Files, LITTLE + 1).await;
        assert!(!large.take(1));
    }
}
