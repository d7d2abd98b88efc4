//! Steps of the wall clock. A board without a battery starts in 1970 and leaps when it has asked a time
//! server; whoever waits for a moment on the wall must not wait for the leap as well.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Slewing and the time between two looks stay below this.
const SMALLEST: SignedDuration = SignedDuration::from_secs(1);

/// Compares the wall clock with the one that never steps.
pub(super) struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Clock {
    pub(super) fn new(wall: Timestamp, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// How far the wall clock was set since the last look.
    pub(super) fn step(&mut self, wall: Timestamp, steady: Instant) -> Option<SignedDuration> {
        let passed = SignedDuration::try_from(steady.duration_since(self.steady)).unwrap_or(SignedDuration::MAX);
        let by = wall.duration_since(self.wall).checked_sub(passed)?;
        if by.abs() < SMALLEST {
            return None;
        }
        *self = Self { wall, steady };
        Some(by)
    }
}

/// Moves a moment along with the clock.
pub(super) fn shift(at: &mut Timestamp, by: SignedDuration) {
    *at = at.checked_add(by).unwrap_or(*at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_steps_count() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut clock = Clock::new(at(100), began);
        assert_eq!(clock.step(at(160), after(60)), None, "a minute passed");
        assert_eq!(clock.step(at(1_000_070), after(70)), Some(SignedDuration::from_secs(999_900)));
        assert_eq!(clock.step(at(1_000_080), after(80)), None, "it is told once");
        assert_eq!(clock.step(at(50), after(90)), Some(SignedDuration::from_secs(50 - 1_000_090)));
        let mut moment = at(1_000_100);
        shift(&mut moment, SignedDuration::from_secs(-1_000_000));
        assert_eq!(moment, at(100));
    }
}
