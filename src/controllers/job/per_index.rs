//! `spec.backoffLimitPerIndex`: each index of an Indexed Job fails by itself, after its own number of
//! failures.
//!
//! The count travels in annotations from a failed pod to its replacement. For that the last failed
//! pod of an index keeps its finalizer, and is not counted, until the replacement is there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::PodFailurePolicy;

use super::failure_policy::{self, Verdict};
use super::indexes;
use crate::pods::PodView;

pub(super) const COUNTED: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often the pods of an index failed before the one that carries this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i32,
    /// By the action `Ignore` of the failure policy.
    pub(super) ignored: i32,
}

impl Failures {
    pub(super) fn before(pod: &PodView) -> Self {
        let number = |name| pod.meta.annotations.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Self { counted: number(COUNTED), ignored: number(IGNORED) }
    }

    /// With the failure of this pod itself, as its replacement carries it.
    pub(super) fn with(policy: Option<&PodFailurePolicy>, pod: &PodView) -> Self {
        let Self { counted, ignored } = Self::before(pod);
        match failure_policy::judge(policy, pod) {
            Verdict::Ignore => Self { counted, ignored: ignored + 1 },
            Verdict::Count | Verdict::FailJob(_) | Verdict::FailIndex => Self { counted: counted + 1, ignored },
        }
    }

    pub(super) fn total(self) -> i32 {
        self.counted + self.ignored
    }
}

/// Whether this failure is the one that fails the pod's index for good.
pub(super) fn fails_index(limit: i32, policy: Option<&PodFailurePolicy>, pod: &PodView) -> bool {
    match failure_policy::judge(policy, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => Failures::before(pod).counted >= limit,
    }
}

/// The last failed pod of each index that is neither settled nor worked on.
pub(super) fn held<'p>(failed: impl Iterator<Item = &'p PodView>, settled: &BTreeSet<i32>) -> BTreeMap<i32, PodView> {
    let mut held: BTreeMap<i32, &PodView> = BTreeMap::new();
    for pod in failed {
        let Some(index) = indexes::of(pod).filter(|i| !settled.contains(i)) else { continue };
        let last = held.entry(index).or_insert(pod);
        if Failures::before(pod).total() > Failures::before(last).total() {
            *last = pod;
        }
    }
    held.into_iter().map(|(index, pod)| (index, pod.clone())).collect()
}
