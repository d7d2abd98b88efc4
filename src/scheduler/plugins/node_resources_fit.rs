//! What the pod asks for must be free, and nodes with more left are liked better (LeastAllocated).

use crate::framework::{Candidate, Filter, MAX_SCORE, Rejection, Remedy, Score};
use crate::pod_info::PodInfo;
use crate::resources::Resources;

pub(crate) const NAME: &str = "NodeResourcesFit";

pub(crate) struct NodeResourcesFit<'a> {
    wanted: &'a Resources,
    scored: &'a Resources,
}

impl<'a> NodeResourcesFit<'a> {
    pub(crate) fn new(pod: &'a PodInfo) -> Self {
        Self { wanted: &pod.requested, scored: &pod.scored }
    }
}

/// What is lacking, and whether the whole node would be too small.
fn shortage(wanted: &Resources, candidate: Candidate<'_>) -> (Vec<String>, bool) {
    let (allocatable, used) = (&candidate.node.allocatable, &candidate.info.requested);
    let (mut reasons, mut hopeless) = (Vec::new(), false);
    if candidate.info.pods.len() + 1 > candidate.node.allowed_pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, want: i64, used: i64, total: i64| {
        if want > 0 && want > total - used {
            reasons.push(format!("Insufficient {name}"));
            hopeless |= want > total;
        }
    };
    check("cpu", wanted.milli_cpu, used.milli_cpu, allocatable.milli_cpu);
    check("memory", wanted.memory, used.memory, allocatable.memory);
    check("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, allocatable.ephemeral_storage);
    for (name, &want) in &wanted.scalar {
        let of = |r: &Resources| r.scalar.get(name).copied().unwrap_or(0);
        check(name, want, of(used), of(allocatable));
    }
    (reasons, hopeless)
}

impl Filter for NodeResourcesFit<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        let (reasons, hopeless) = shortage(self.wanted, candidate);
        if reasons.is_empty() {
            return Ok(());
        }
        let remedy = if hopeless { Remedy::None } else { Remedy::Preemption };
        Err(Rejection { plugin: NAME, reasons, remedy })
    }
}

impl Score for NodeResourcesFit<'_> {
    fn weight(&self) -> i64 {
        1
    }

    /// The mean of the free shares of CPU and memory once the pod is there.
    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let (total, used) = (&candidate.node.allocatable, &candidate.info.scored);
        let free = |total: i64, used: i64| {
            if total <= 0 || used > total { 0 } else { (total - used) * MAX_SCORE / total }
        };
        let cpu = free(total.milli_cpu, used.milli_cpu + self.scored.milli_cpu);
        let memory = free(total.memory, used.memory + self.scored.memory);
        i64::midpoint(cpu, memory)
    }

    fn normalize(&self, _scores: &mut [i64]) {}
}
