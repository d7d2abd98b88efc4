//! The decisions of the ReplicaSet controller: how many pods to make or take, and the status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Spec;
use crate::moment;
use crate::pods::PodView;
use api::selector::LabelSelector as Selector;

/// Pods made or deleted in one round, as upstream bounds it.
const BURST: usize = 500;

const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Keep,
    Create(usize),
    Delete(usize),
}

pub(super) fn scale(active: usize, wanted: i32) -> Scale {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    match wanted.checked_sub(active) {
        Some(0) => Scale::Keep,
        Some(missing) => Scale::Create(missing.min(BURST)),
        None => Scale::Delete((active - wanted).min(BURST)),
    }
}

/// What the round found and did.
pub(super) struct Observed<'a> {
    /// The active pods as they were before this round changed anything.
    pub(super) pods: &'a [PodView],
    pub(super) terminating: usize,
    /// Why pods could not be made or deleted.
    pub(super) failure: Option<String>,
}

pub(super) fn status(
    meta: &ObjectMeta,
    old: &ReplicaSetStatus,
    spec: &Spec<'_>,
    observed: &Observed<'_>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template_labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let fully_labeled = Selector::from_map(&template_labels);
    let pods = observed.pods;
    let count = |holds: &dyn Fn(&PodView) -> bool| i32::try_from(pods.iter().filter(|p| holds(p)).count()).ok();
    ReplicaSetStatus {
        replicas: count(&|_| true).unwrap_or(i32::MAX),
        fully_labeled_replicas: nonzero(count(&|p| fully_labeled.matches(&p.index.labels))),
        ready_replicas: nonzero(count(&PodView::is_ready)),
        available_replicas: nonzero(count(&|p| p.is_available(spec.min_ready_seconds, now))),
        terminating_replicas: i32::try_from(observed.terminating).ok(),
        observed_generation: meta.generation,
        conditions: conditions(old, spec.replicas, observed, now),
    }
}

/// Upstream leaves zero counts out.
fn nonzero(count: Option<i32>) -> Option<i32> {
    count.filter(|&n| n != 0)
}

/// `ReplicaFailure` stands while pods cannot be made (or deleted, when there are too many).
fn conditions(
    old: &ReplicaSetStatus,
    wanted: i32,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let stands = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
    match &observed.failure {
        Some(why) if !stands => {
            let too_few = usize::try_from(wanted).is_ok_and(|wanted| observed.pods.len() < wanted);
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(if too_few { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                message: Some(why.clone()),
                last_transition_time: Some(moment::time(now)),
            });
        }
        Some(_) => {}
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// When the next ready pod becomes available without any further event.
pub(super) fn recheck_in(pods: &[PodView], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    pods.iter().filter_map(|p| p.available_in(min_ready_seconds, now)).filter(|d| !d.is_zero()).min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::PodTemplateSpec;

    use super::*;
    use crate::fixtures::{at, pod};

    #[test]
    fn scaling_is_bounded_by_a_burst() {
        assert_eq!(scale(3, 3), Scale::Keep);
        assert_eq!(scale(1, 3), Scale::Create(2));
        assert_eq!(scale(5, 3), Scale::Delete(2));
        assert_eq!(scale(0, 5000), Scale::Create(500));
        assert_eq!(scale(900, 0), Scale::Delete(500));
    }

    fn template() -> PodTemplateSpec {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        PodTemplateSpec { metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }), spec: None }
    }

    fn spec(template: &PodTemplateSpec, min_ready_seconds: i32) -> Spec<'_> {
        Spec { replicas: 3, min_ready_seconds, selector: Selector::from_map(&BTreeMap::new()), template }
    }

    #[test]
    fn status_counts_labels_readiness_and_availability_apart() {
        let pods = [
            pod("a").on("n").running().label("app", "web").ready(at(100)).view(),
            pod("b").on("n").running().label("app", "web").ready(at(107)).view(),
            pod("c").on("n").view(),
        ];
        let observed = Observed { pods: &pods, terminating: 1, failure: None };
        let meta = ObjectMeta { generation: Some(7), ..ObjectMeta::default() };
        let template = template();
        let got = status(&meta, &ReplicaSetStatus::default(), &spec(&template, 5), &observed, at(110));
        let expected = ReplicaSetStatus {
            replicas: 3,
            fully_labeled_replicas: Some(2),
            ready_replicas: Some(2),
            available_replicas: Some(1),
            terminating_replicas: Some(1),
            observed_generation: Some(7),
            conditions: None,
        };
        assert_eq!(got, expected);
        assert_eq!(recheck_in(&pods, 5, at(110)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn failures_come_and_go_as_a_condition() {
        let template = template();
        let spec = spec(&template, 0);
        let meta = ObjectMeta::default();
        let failed = Observed { pods: &[], terminating: 0, failure: Some("exceeded quota".to_owned()) };
        let with = status(&meta, &ReplicaSetStatus::default(), &spec, &failed, at(5));
        let condition = &with.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("exceeded quota"));
        let fine = Observed { pods: &[], terminating: 0, failure: None };
        assert_eq!(status(&meta, &with, &spec, &fine, at(6)).conditions, None);
    }
}
