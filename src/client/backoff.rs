//! Exponential back-off, the only one in the tree.

use std::time::Duration;

use rand::Rng;

/// Delays that grow from `base` by `factor` up to `max`, each lengthened by up to `jitter` of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub base: Duration,
    pub factor: f64,
    pub max: Duration,
    pub jitter: f64,
}

impl Backoff {
    /// client-go's default for a failing key: 5 ms doubling to 1000 s.
    pub const RECONCILE: Self =
        Self { base: Duration::from_millis(5), factor: 2.0, max: Duration::from_secs(1000), jitter: 0.0 };

    /// For calls to a server that is away: 200 ms doubling to 30 s.
    pub const CONNECT: Self =
        Self { base: Duration::from_millis(200), factor: 2.0, max: Duration::from_secs(30), jitter: 0.5 };

    /// For parts of this process that wait for something of their machine, such as a port: 200 ms doubling
    /// to 10 s. Nobody else is asked, so there is no one to spare, and no crowd to spread.
    pub const PART: Self =
        Self { base: Duration::from_millis(200), factor: 2.0, max: Duration::from_secs(10), jitter: 0.0 };

    /// The delay before try `attempt` + 1; the first failure is attempt 0. Deterministic.
    #[must_use]
    pub fn base_delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        if seconds >= self.max.as_secs_f64() { self.max } else { Duration::from_secs_f64(seconds) }
    }

    /// [`Self::base_delay`] with jitter added.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let base = self.base_delay(attempt);
        if self.jitter > 0.0 { base.mul_f64(1.0 + rand::rng().random_range(0.0..self.jitter)) } else { base }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_stays_there() {
        let b = Backoff { base: Duration::from_secs(10), factor: 2.0, max: Duration::from_secs(300), jitter: 0.0 };
        let seconds: Vec<u64> = (0..8).map(|n| b.delay(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(b.delay(u32::MAX), b.max);
    }

    #[test]
    fn jitter_only_lengthens() {
        let b = Backoff { jitter: 0.5, ..Backoff::CONNECT };
        for n in 0..20 {
            let (low, got) = (b.base_delay(n), b.delay(n));
            assert!(got >= low && got <= low.mul_f64(1.5), "{n}: {got:?}");
        }
    }
}
