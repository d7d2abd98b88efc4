//! How long to wait after repeated failures of the same thing: crashes of one container, pulls of
//! one image.

use std::time::Duration;

use client::Backoff;
use jiff::Timestamp;

/// 10 s doubling to 300 s, as upstream backs off restarts and pulls.
pub(crate) const BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(10), factor: 2.0, max: Duration::from_secs(300), jitter: 0.0 };

/// A failure this long after the one before counts as the first again.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Consecutive failures of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    count: u32,
    last: Option<Timestamp>,
}

impl Failures {
    /// Counts one more failure, which happened at `at`.
    pub(crate) fn add(&mut self, at: Timestamp) {
        self.count = if self.expired(at) { 1 } else { self.count.saturating_add(1) };
        self.last = Some(at);
    }

    /// The delay that applies to something that failed at `at`, and when it is over; `None` when it
    /// may be tried at once.
    pub(crate) fn hold(&self, at: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        if self.count == 0 || self.expired(at) {
            return None;
        }
        let delay = BACKOFF.base_delay(self.count - 1);
        let until = at.checked_add(delay).ok()?;
        // A failure in the future: the clock was set back, and nothing may wait until it has caught up.
        (at <= now && now < until).then_some((delay, until))
    }

    /// When the last failure was.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// Nothing failed for so long that the next failure counts as the first.
    pub(crate) fn expired(&self, at: Timestamp) -> bool {
        self.last.is_none_or(|last| {
            at.duration_since(last) > jiff::SignedDuration::try_from(FORGET_AFTER).unwrap_or_default()
        })
    }
}

/// Go's text of a duration of whole seconds: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_seconds(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_failure_is_retried_at_once_and_later_ones_wait_longer() {
        let mut f = Failures::default();
        assert_eq!(f.hold(at(100), at(100)), None);
        f.add(at(100));
        assert_eq!(f.hold(at(105), at(106)), Some((Duration::from_secs(10), at(115))));
        assert_eq!(f.hold(at(105), at(115)), None);
        f.add(at(105));
        assert_eq!(f.hold(at(116), at(116)), Some((Duration::from_secs(20), at(136))));
        for n in 0..8 {
            f.add(at(200 + n));
        }
        assert_eq!(f.hold(at(210), at(211)).unwrap().0, Duration::from_secs(300));
    }

    #[test]
    fn nothing_waits_for_a_clock_that_was_set_back() {
        let mut f = Failures::default();
        f.add(at(1_000_000));
        assert_eq!(f.hold(at(1_000_000), at(50)), None);
        f.add(at(50));
        assert_eq!(f.hold(at(50), at(51)), Some((Duration::from_secs(20), at(70))));
    }

    #[test]
    fn ten_quiet_minutes_reset_it() {
        let mut f = Failures::default();
        f.add(at(0));
        f.add(at(10));
        assert_eq!(f.hold(at(620), at(620)), None);
        f.add(at(620));
        assert_eq!(f.hold(at(630), at(630)).unwrap().0, Duration::from_secs(10));
    }

    #[test]
    fn durations_read_as_gos() {
        for (s, text) in [(10, "10s"), (80, "1m20s"), (160, "2m40s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_seconds(Duration::from_secs(s)), text);
        }
    }
}
