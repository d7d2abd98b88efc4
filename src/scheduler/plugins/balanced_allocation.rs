//! Nodes on which CPU and memory would be used to like degrees are liked better.

use crate::framework::{Candidate, MAX_SCORE, Score};
use crate::pod_info::PodInfo;
use crate::resources::Resources;

pub(crate) struct BalancedAllocation<'a> {
    wanted: &'a Resources,
}

impl<'a> BalancedAllocation<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Self {
        Self { wanted: &pod.requested }
    }
}

impl Score for BalancedAllocation<'_> {
    fn weight(&self) -> i64 {
        1
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "shares between 0 and 1, and a score up to 100"
    )]
    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let (total, used) = (&candidate.node.allocatable, &candidate.info.requested);
        let share = |used: i64, total: i64| if total <= 0 { 1.0 } else { (used as f64 / total as f64).min(1.0) };
        let cpu = share(used.milli_cpu + self.wanted.milli_cpu, total.milli_cpu);
        let memory = share(used.memory + self.wanted.memory, total.memory);
        // The standard deviation of two shares is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }

    fn normalize(&self, _scores: &mut [i64]) {}
}
