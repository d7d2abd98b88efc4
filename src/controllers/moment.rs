//! Moments as objects record them: whole seconds, so that what was written compares equal to what
//! is read back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// When something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Never,
    In(Duration),
    Now,
}

pub(crate) fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// How long after `start` the time `now` is still short of `seconds`; `None` once they have passed.
pub(crate) fn remaining(start: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let due = start.saturating_add(SignedDuration::from_secs(seconds)).ok()?;
    Duration::try_from(due.duration_since(now)).ok().filter(|d| !d.is_zero())
}
