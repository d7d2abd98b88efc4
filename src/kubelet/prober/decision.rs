//! From single results to a verdict: thresholds. Pure.

use api::k8s_openapi::api::core::v1::Probe;

use super::ProbeKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passing,
    Failing,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    success: u32,
    failure: u32,
}

impl Thresholds {
    pub(super) fn of(probe: &Probe) -> Self {
        let at_least_one =
            |v: Option<i32>, default| v.and_then(|v| u32::try_from(v).ok()).filter(|&v| v > 0).unwrap_or(default);
        Self { success: at_least_one(probe.success_threshold, 1), failure: at_least_one(probe.failure_threshold, 3) }
    }
}

/// Counts equal results in a row.
pub(super) struct Tracker {
    thresholds: Thresholds,
    /// What is assumed, or was told last.
    verdict: Option<Verdict>,
    last: Option<bool>,
    run: u32,
}

impl Tracker {
    /// A container is taken for alive, and for neither ready nor started, until a probe says so.
    /// `failures` came before in a row; the one that decides is always a new one.
    pub(super) fn new(kind: ProbeKind, thresholds: Thresholds, failures: u32) -> Self {
        let run = failures.min(thresholds.failure - 1);
        let verdict = match kind {
            ProbeKind::Liveness => Some(Verdict::Passing),
            ProbeKind::Readiness => Some(Verdict::Failing),
            ProbeKind::Startup => None,
        };
        Self { thresholds, verdict, last: (run > 0).then_some(false), run }
    }

    /// The verdict, when this result changes it.
    pub(super) fn next(&mut self, success: bool) -> Option<Verdict> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let (needed, verdict) = if success {
            (self.thresholds.success, Verdict::Passing)
        } else {
            (self.thresholds.failure, Verdict::Failing)
        };
        if self.run < needed || self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Failing, Passing};

    #[track_caller]
    fn check(kind: ProbeKind, success: u32, failure: u32, results: &[bool], expected: &[Option<Verdict>]) {
        let mut tracker = Tracker::new(kind, Thresholds { success, failure }, 0);
        let got: Vec<_> = results.iter().map(|&r| tracker.next(r)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        check(
            ProbeKind::Liveness,
            1,
            3,
            &[true, false, false, true, false, false, false],
            &[None, None, None, None, None, None, Some(Failing)],
        );
        check(
            ProbeKind::Readiness,
            2,
            1,
            &[true, true, true, false, true],
            &[None, Some(Passing), None, Some(Failing), None],
        );
        check(ProbeKind::Startup, 1, 2, &[false, true], &[None, Some(Passing)]);
        check(ProbeKind::Startup, 1, 2, &[false, false], &[None, Some(Failing)]);
    }

    #[test]
    fn failures_of_before_count_but_never_alone() {
        for (before, results, expected) in [
            (0, [false, false], [None, None]),
            (1, [false, false], [None, Some(Failing)]),
            (2, [false, false], [Some(Failing), None]),
            (u32::MAX, [true, false], [Some(Passing), None]),
            (u32::MAX, [false, true], [Some(Failing), Some(Passing)]),
        ] {
            let thresholds = Thresholds { success: 1, failure: 3 };
            let mut tracker = Tracker::new(ProbeKind::Startup, thresholds, before);
            assert_eq!(results.map(|result| tracker.next(result)), expected, "{before} {results:?}");
        }
    }

    #[test]
    fn unset_thresholds_are_upstreams_defaults() {
        let t = Thresholds::of(&Probe::default());
        assert_eq!((t.success, t.failure), (1, 3));
    }
}
