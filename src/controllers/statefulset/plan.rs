//! One round of a StatefulSet: which pod to make or delete next, and the status.
//!
//! Ordered sets take one step at a time and wait for each pod to become available; parallel ones
//! take all steps of scaling at once. Updates go from the highest ordinal down, either way.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};

use super::pods::{REVISION_LABEL, ordinal};
use crate::percent::{Round as Rounding, scaled};
use crate::pods::{Phase, PodView};

/// Ordinals that a round looks at beyond as many as there are pods: so many are made in a round at the most, as
/// a ReplicaSet's are. The size of a set is anybody's number, and must not be the length of a list.
const BURST: i32 = 500;

/// What to do next, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// Make the pod of this ordinal from this revision.
    Create {
        ordinal: i32,
        revision: String,
    },
    /// Its containers have ended: the pod is made anew.
    Recreate(Box<PodView>),
    ScaleDown(Box<PodView>),
    Update(Box<PodView>),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) status: StatefulSetStatus,
    pub(super) recheck: Option<Duration>,
}

/// Names of the revisions that pods run now and shall run.
pub(super) struct Revisions<'a> {
    pub(super) current: &'a str,
    pub(super) update: &'a str,
}

struct Round<'a> {
    spec: &'a StatefulSetSpec,
    revisions: &'a Revisions<'a>,
    /// One entry an ordinal, from `start` on; the last ones may be left for a later round.
    replicas: Vec<Option<&'a PodView>>,
    /// Beyond the wanted ordinals, highest first.
    condemned: Vec<&'a PodView>,
    start: i32,
    now: Timestamp,
}

pub(super) fn plan(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    pods: &[PodView],
    revisions: &Revisions<'_>,
    now: Timestamp,
) -> Plan {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let wanted = spec.replicas.unwrap_or(1);
    let mut by_ordinal = BTreeMap::new();
    for pod in pods {
        if let Some(n) = ordinal(name, pod.name()) {
            by_ordinal.entry(n).or_insert(pod);
        }
    }
    let end = start.saturating_add(wanted);
    let is_condemned = |n: &i32| *n < start || *n >= end;
    let condemned = by_ordinal.iter().rev().filter(|(n, _)| is_condemned(n)).map(|(_, pod)| *pod).collect();
    let looked_at = i32::try_from(pods.len()).unwrap_or(i32::MAX).saturating_add(BURST).min(wanted);
    let replicas = (start..start.saturating_add(looked_at)).map(|n| by_ordinal.get(&n).copied()).collect();
    let round = Round { spec, revisions, replicas, condemned, start, now };
    let steps = if set.metadata.deletion_timestamp.is_some() { Vec::new() } else { round.steps() };
    let status = round.status(set, pods, &steps);
    let recheck = pods.iter().filter_map(|p| p.available_in(round.min_ready(), now)).filter(|d| !d.is_zero()).min();
    Plan { steps, status, recheck }
}

fn revision_of(pod: &PodView) -> &str {
    pod.index.labels.get(REVISION_LABEL).map_or("", |r| r)
}

impl Round<'_> {
    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_running_and_ready(pod: &PodView) -> bool {
        pod.status.phase == Phase::Running && pod.is_ready()
    }

    fn is_available(&self, pod: &PodView) -> bool {
        Self::is_running_and_ready(pod) && pod.is_available(self.min_ready(), self.now)
    }

    fn partition(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }

    fn is_rolling(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete")
    }

    /// A missing pod below the partition, or one that the update has not reached, is made as it was.
    fn revision_for(&self, ordinal: i32) -> String {
        let below = self.is_rolling() && ordinal < self.start.saturating_add(self.partition());
        if below { self.revisions.current } else { self.revisions.update }.to_owned()
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.scale_up(&mut steps) && self.scale_down(&mut steps) && self.is_rolling() {
            self.update(&mut steps);
        }
        steps
    }

    /// `false` when the round ends here.
    fn scale_up(&self, steps: &mut Vec<Step>) -> bool {
        for (ordinal, pod) in (self.start..=i32::MAX).zip(&self.replicas) {
            let settled = match pod {
                None => {
                    steps.push(Step::Create { ordinal, revision: self.revision_for(ordinal) });
                    false
                }
                Some(pod) if pod.is_finished() => {
                    if !pod.index.deleting {
                        steps.push(Step::Recreate(Box::new((*pod).clone())));
                    }
                    false
                }
                Some(pod) => !pod.index.deleting && self.is_available(pod),
            };
            if !settled && self.is_ordered() {
                return false;
            }
        }
        // Nothing is updated while pods are being made.
        steps.is_empty()
    }

    fn scale_down(&self, steps: &mut Vec<Step>) -> bool {
        // The first that is not well may go though others wait for it.
        let unhealthy = self.replicas.iter().flatten().copied().chain(self.condemned.iter().rev().copied());
        let first_unhealthy = unhealthy.into_iter().find(|p| !Self::is_running_and_ready(p) || p.index.deleting);
        for pod in &self.condemned {
            if pod.index.deleting {
                if self.is_ordered() {
                    return false;
                }
                continue;
            }
            let is_first = first_unhealthy.is_some_and(|f| f.index.uid == pod.index.uid);
            if self.is_ordered() && !self.is_available(pod) && !is_first {
                return false;
            }
            steps.push(Step::ScaleDown(Box::new((*pod).clone())));
            if self.is_ordered() {
                return false;
            }
        }
        steps.is_empty()
    }

    /// Takes old pods from the top, past those that are updated and well.
    fn update(&self, steps: &mut Vec<Step>) {
        let most = self.max_unavailable();
        let mut down = 0;
        let lowest = self.start.saturating_add(self.partition());
        let from_top = (self.start..=i32::MAX).zip(&self.replicas).collect::<Vec<_>>().into_iter().rev();
        for pod in from_top.filter(|(ordinal, _)| *ordinal >= lowest).filter_map(|(_, pod)| *pod) {
            let is_old = revision_of(pod) != self.revisions.update && !pod.index.deleting;
            if is_old {
                steps.push(Step::Update(Box::new(pod.clone())));
            }
            if is_old || pod.index.deleting || !self.is_available(pod) {
                down += 1;
            }
            if down >= most {
                return;
            }
        }
    }

    fn max_unavailable(&self) -> usize {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let replicas = self.spec.replicas.unwrap_or(1);
        let most = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |v| scaled(v, replicas, Rounding::Up));
        usize::try_from(most).unwrap_or(1).max(1)
    }

    fn status(&self, set: &StatefulSet, pods: &[PodView], steps: &[Step]) -> StatefulSetStatus {
        let before = set.status.clone().unwrap_or_default();
        let count = |holds: &dyn Fn(&PodView) -> bool| {
            i32::try_from(pods.iter().filter(|p| holds(p)).count()).unwrap_or(i32::MAX)
        };
        let made_of = |revision: &str| {
            let made = steps.iter().filter(|s| matches!(s, Step::Create { revision: r, .. } if r == revision)).count();
            let gone = steps.iter().filter(|s| match s {
                Step::ScaleDown(p) | Step::Update(p) | Step::Recreate(p) => revision_of(p) == revision,
                Step::Create { .. } => false,
            });
            let stands = count(&|p| !p.index.deleting && revision_of(p) == revision);
            stands + i32::try_from(made).unwrap_or(0) - i32::try_from(gone.count()).unwrap_or(0)
        };
        let created = steps.iter().filter(|s| matches!(s, Step::Create { .. })).count();
        let replicas = count(&|_| true) + i32::try_from(created).unwrap_or(0);
        let mut status = StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas,
            ready_replicas: nonzero(count(&Self::is_running_and_ready)),
            available_replicas: Some(count(&|p| self.is_available(p))),
            current_replicas: nonzero(made_of(self.revisions.current)),
            updated_replicas: nonzero(made_of(self.revisions.update)),
            current_revision: Some(self.revisions.current.to_owned()),
            update_revision: Some(self.revisions.update.to_owned()),
            collision_count: before.collision_count.or(Some(0)),
            conditions: before.conditions,
        };
        let is_updated = self.is_rolling()
            && status.updated_replicas == nonzero(status.replicas)
            && status.ready_replicas == nonzero(status.replicas);
        if is_updated {
            status.current_revision.clone_from(&status.update_revision);
            status.current_replicas = status.updated_replicas;
        }
        status
    }
}

fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|&n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PodBuilder, at, pod};
    use k8s_openapi::api::apps::v1::{
        RollingUpdateStatefulSetStrategy, StatefulSetOrdinals, StatefulSetUpdateStrategy,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn set(replicas: i32, policy: &str, partition: i32) -> StatefulSet {
        StatefulSet {
            metadata: ObjectMeta { name: Some("web".into()), ..ObjectMeta::default() },
            spec: Some(StatefulSetSpec {
                replicas: Some(replicas),
                pod_management_policy: Some(policy.into()),
                update_strategy: Some(StatefulSetUpdateStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateStatefulSetStrategy {
                        partition: Some(partition),
                        max_unavailable: None,
                    }),
                }),
                ..StatefulSetSpec::default()
            }),
            status: None,
        }
    }

    fn up(name: &str, revision: &str) -> PodBuilder {
        pod(name).on("n").running().ready(at(1)).label(REVISION_LABEL, revision)
    }

    fn run(set: &StatefulSet, pods: &[PodBuilder]) -> Plan {
        let pods: Vec<_> = pods.iter().cloned().map(PodBuilder::view).collect();
        let revisions = Revisions { current: "old", update: "new" };
        plan(set, set.spec.as_ref().unwrap(), &pods, &revisions, at(100))
    }

    #[track_caller]
    fn check(set: &StatefulSet, pods: &[PodBuilder], expected: &[&str]) {
        let say = |step: &Step| match step {
            Step::Create { ordinal, revision } => format!("create {ordinal} {revision}"),
            Step::Recreate(pod) => format!("recreate {}", pod.name()),
            Step::ScaleDown(pod) => format!("scale down {}", pod.name()),
            Step::Update(pod) => format!("update {}", pod.name()),
        };
        let got: Vec<_> = run(set, pods).steps.iter().map(say).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn ordered_sets_take_one_step_and_wait() {
        let ordered = set(3, "OrderedReady", 0);
        check(&ordered, &[], &["create 0 new"]);
        check(&ordered, &[pod("web-0").on("n").running()], &[]);
        check(&ordered, &[up("web-0", "new")], &["create 1 new"]);
        check(&ordered, &[up("web-0", "new"), up("web-2", "new")], &["create 1 new"]);
        check(&ordered, &[up("web-0", "new").phase("Failed")], &["recreate web-0"]);
        check(
            &set(1, "OrderedReady", 0),
            &[up("web-0", "new"), up("web-1", "new"), up("web-2", "new")],
            &["scale down web-2"],
        );
        let one_leaves = [up("web-0", "new"), up("web-1", "new"), up("web-2", "new").deleting(at(9))];
        check(&set(1, "OrderedReady", 0), &one_leaves, &[]);
    }

    #[test]
    fn parallel_sets_scale_at_once() {
        check(&set(2, "Parallel", 0), &[], &["create 0 new", "create 1 new"]);
        let pods = [up("web-0", "new"), up("web-1", "new"), up("web-2", "new")];
        check(&set(1, "Parallel", 0), &pods, &["scale down web-2", "scale down web-1"]);
    }

    #[test]
    fn updates_go_from_the_top_and_stop_at_the_partition() {
        let ordered = set(3, "OrderedReady", 0);
        check(&ordered, &[up("web-0", "old"), up("web-1", "old"), up("web-2", "old")], &["update web-2"]);
        check(&ordered, &[up("web-0", "old"), up("web-1", "old"), up("web-2", "new")], &["update web-1"]);
        let waiting = [up("web-0", "old"), up("web-1", "old"), up("web-2", "new").phase("Pending")];
        check(&set(3, "Parallel", 0), &waiting, &[]);
        let parted = set(3, "OrderedReady", 2);
        check(&parted, &[up("web-0", "old"), up("web-1", "old"), up("web-2", "new")], &[]);
        check(&parted, &[up("web-0", "old")], &["create 1 old"]);
        check(&parted, &[up("web-0", "old"), up("web-1", "old")], &["create 2 new"]);
    }

    #[test]
    fn a_set_of_any_size_is_made_in_bursts() {
        let huge = |policy: &str| set(i32::MAX, policy, 0);
        check(&huge("OrderedReady"), &[], &["create 0 new"]);
        let steps = run(&huge("Parallel"), &[up("web-0", "new"), up("web-2147483646", "new")]).steps;
        assert_eq!(steps.len(), 501);
        assert!(
            matches!(steps[0], Step::Create { ordinal: 1, .. })
                && matches!(steps[500], Step::Create { ordinal: 501, .. })
        );
        let mut last = set(2, "Parallel", i32::MAX);
        last.spec.as_mut().unwrap().ordinals = Some(StatefulSetOrdinals { start: Some(i32::MAX - 1) });
        check(&last, &[up("web-0", "new")], &["create 2147483646 old"]);
    }

    #[test]
    fn ordinals_may_start_elsewhere() {
        let mut shifted = set(2, "Parallel", 0);
        shifted.spec.as_mut().unwrap().ordinals = Some(StatefulSetOrdinals { start: Some(5) });
        check(&shifted, &[], &["create 5 new", "create 6 new"]);
        check(&shifted, &[up("web-0", "new"), up("web-5", "new"), up("web-6", "new")], &["scale down web-0"]);
    }

    #[test]
    fn a_finished_update_becomes_the_current_revision() {
        let done = run(&set(1, "OrderedReady", 0), &[up("web-0", "new")]).status;
        assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("new"), Some(1)));
        let half = run(&set(2, "OrderedReady", 0), &[up("web-0", "old"), up("web-1", "new")]).status;
        assert_eq!((half.current_revision.as_deref(), half.updated_replicas), (Some("old"), Some(1)));
    }
}
