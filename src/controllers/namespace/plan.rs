//! The conditions by which a terminating namespace tells what it waits for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::config::ServedResource;

/// Objects of one resource that are still there, with all their finalizers.
#[derive(Debug)]
pub(super) struct Remaining {
    pub(super) resource: ServedResource,
    pub(super) count: usize,
    pub(super) finalizers: Vec<String>,
}

pub(super) fn has_finalizer(namespace: &Namespace, name: &str) -> bool {
    namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == name)
}

pub(super) fn is_pods(resource: &ServedResource) -> bool {
    resource.group.is_empty() && resource.resource == "pods"
}

/// While there are pods, nothing else was asked to go yet.
pub(super) fn asked_to_go(mut left: Vec<Remaining>) -> Vec<Remaining> {
    if left.iter().any(|r| is_pods(&r.resource)) {
        left.retain(|r| is_pods(&r.resource));
    }
    left
}

pub(super) fn status(
    namespace: &Namespace,
    remaining: &[Remaining],
    failures: &[String],
    now: &Time,
) -> NamespaceStatus {
    let old = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let conditions = [
        fine("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        content_failure(failures),
        content_remaining(remaining),
        finalizers_remaining(remaining),
    ];
    let conditions = conditions.into_iter().map(|c| since(c, &old, now)).collect();
    NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) }
}

/// A condition that says the same as before keeps its time.
fn since(mut condition: NamespaceCondition, old: &[NamespaceCondition], now: &Time) -> NamespaceCondition {
    let before = old.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
    condition.last_transition_time = before.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(now.clone()));
    condition
}

fn condition(kind: &str, status: &str, reason: &str, message: String) -> NamespaceCondition {
    NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    }
}

fn fine(kind: &str, reason: &str, message: &str) -> NamespaceCondition {
    condition(kind, "False", reason, message.to_owned())
}

fn content_failure(failures: &[String]) -> NamespaceCondition {
    const KIND: &str = "NamespaceDeletionContentFailure";
    if failures.is_empty() {
        return fine(KIND, "ContentDeleted", "All content successfully deleted, may be waiting on finalization");
    }
    let message = format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "));
    condition(KIND, "True", "ContentDeletionFailed", message)
}

fn content_remaining(remaining: &[Remaining]) -> NamespaceCondition {
    const KIND: &str = "NamespaceContentRemaining";
    if remaining.is_empty() {
        return fine(KIND, "ContentRemoved", "All content successfully removed");
    }
    let mut parts: Vec<String> = remaining
        .iter()
        .map(|r| format!("{}.{} has {} resource instances", r.resource.resource, r.resource.group, r.count))
        .collect();
    parts.sort();
    let message = format!("Some resources are remaining: {}", parts.join(", "));
    condition(KIND, "True", "SomeResourcesRemain", message)
}

fn finalizers_remaining(remaining: &[Remaining]) -> NamespaceCondition {
    const KIND: &str = "NamespaceFinalizersRemaining";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in remaining.iter().flat_map(|r| &r.finalizers) {
        *counts.entry(finalizer).or_default() += 1;
    }
    if counts.is_empty() {
        return fine(KIND, "ContentHasNoFinalizers", "All content-preserving finalizers finished");
    }
    let parts: Vec<String> = counts.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let message = format!("Some content in the namespace has finalizers remaining: {}", parts.join(", "));
    condition(KIND, "True", "SomeFinalizersRemain", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;

    fn pods(count: usize, finalizers: &[&str]) -> Remaining {
        let resource = ServedResource {
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            kind: "Pod".into(),
            namespaced: true,
            stored: true,
        };
        Remaining { resource, count, finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect() }
    }

    #[track_caller]
    fn check(remaining: &[Remaining], kind: &str, status_: &str, message: &str) {
        let got = status(&Namespace::default(), remaining, &[], &Time(at(1)));
        let conditions = got.conditions.unwrap();
        let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
        assert_eq!((found.status.as_str(), found.message.as_deref().unwrap()), (status_, message));
    }

    #[test]
    fn conditions_say_what_is_left() {
        check(&[], "NamespaceContentRemaining", "False", "All content successfully removed");
        let left = [pods(2, &["example.com/keep"])];
        let message = "Some resources are remaining: pods. has 2 resource instances";
        check(&left, "NamespaceContentRemaining", "True", message);
        let message =
            "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances";
        check(&left, "NamespaceFinalizersRemaining", "True", message);
    }

    #[test]
    fn pods_go_before_the_rest() {
        let others = || {
            let mut others = pods(3, &[]);
            others.resource.resource = "configmaps".into();
            others
        };
        let names =
            |left: Vec<Remaining>| asked_to_go(left).into_iter().map(|r| r.resource.resource).collect::<Vec<_>>();
        assert_eq!(names(vec![others(), pods(1, &[])]), ["pods"]);
        assert_eq!(names(vec![others()]), ["configmaps"]);
    }

    #[test]
    fn an_unchanged_condition_keeps_its_time() {
        let mut namespace = Namespace::default();
        namespace.status = Some(status(&namespace, &[], &[], &Time(at(1))));
        let later = status(&namespace, &[pods(1, &[])], &[], &Time(at(9)));
        let times: Vec<_> = later.conditions.unwrap().into_iter().map(|c| c.last_transition_time.unwrap().0).collect();
        assert_eq!(times, [at(1), at(1), at(1), at(9), at(1)]);
    }
}
