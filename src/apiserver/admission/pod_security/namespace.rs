//! What a namespace's labels may say, and which of its pods a stricter level would refuse.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::object::{GroupResource, Object};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::time::Instant;

use super::super::review::{Operation, Review};
use super::labels::{self, Level, Policies, Policy};
use super::{annotations_of, violations};
use crate::error::ApiError;
use crate::registry::Registry;

/// Upstream looks at no more pods of a namespace, and no longer.
const PODS: usize = 3_000;
const WITHIN: Duration = Duration::from_secs(1);

/// Refuses labels that are no levels or versions, and warns of the pods that break a level which is
/// enforced from now on.
///
/// # Errors
/// `Invalid`, for labels that are new or were changed.
pub(in crate::admission) fn admit(registry: &Registry, review: &mut Review<'_>) -> Result<(), ApiError> {
    let new = review.object.as_ref().map(labels_of).unwrap_or_default();
    let (policies, errors) = labels::read(&new);
    if review.operation == Operation::Create {
        return refuse(review, &errors);
    }
    let old = review.old.map(labels_of).unwrap_or_default();
    let (before, old_errors) = labels::read(&old);
    if errors != old_errors {
        refuse(review, &errors)?;
    }
    if let Some(policy) = stricter(&policies, &before) {
        let pods = registry.list(&GroupResource::new("", "pods"), Some(review.name));
        let end = Instant::now() + WITHIN;
        let mut warnings = warnings(pods, review.name, policy, || Instant::now() >= end);
        review.warnings.append(&mut warnings);
    }
    Ok(())
}

fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

fn refuse(review: &Review<'_>, errors: &[api::field::Error]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Namespace", review.name, errors)) }
}

/// The policy that is enforced from now on, unless pods were held to it, or to a stricter one, before.
fn stricter<'p>(new: &'p Policies, old: &Policies) -> Option<&'p Policy> {
    let policy = new.enforce.as_ref()?;
    let relaxed = old.enforce.as_ref().is_some_and(|old| old.version == policy.version && old.level >= policy.level);
    (!relaxed).then_some(policy)
}

/// Bytes of the pods that a change of a namespace may make [`admit`] read.
pub(in crate::admission) fn scanned_bytes(registry: &Registry) -> usize {
    registry.resources().get("", "pods").map_or(0, |pods| registry.storage().collection_bytes(&pods.collection))
}

/// The pods of one controller are alike: one of each comes first, then the rest.
fn prioritized(pods: Vec<Object>) -> Vec<Object> {
    let mut controllers: HashSet<Arc<str>> = HashSet::new();
    let is_new = |pod: &Object| pod.index.controller().is_none_or(|owner| controllers.insert(Arc::clone(&owner.uid)));
    let (mut first, more): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_new);
    first.extend(more);
    first
}

/// What is wrong with some pods.
#[derive(Debug, Default)]
struct Found {
    /// By the reasons: the first name, and how many others there are.
    by_reasons: BTreeMap<String, (String, usize)>,
    checked: usize,
}

impl Found {
    fn add(&mut self, pod: &Object, level: Level) {
        self.checked += 1;
        // A pod that cannot be read cannot be shown to be harmless either.
        let reasons = match pod.decode::<Pod>() {
            Ok(pod) => match &pod.spec {
                Some(spec) => violations(spec, annotations_of(&pod), level).iter().map(|v| v.reason).collect(),
                None => Vec::new(),
            },
            Err(_) => vec!["cannot be read"],
        };
        if reasons.is_empty() {
            return;
        }
        let name = &*pod.index.key.name;
        match self.by_reasons.entry(reasons.join(", ")) {
            Entry::Vacant(new) => {
                new.insert((name.to_owned(), 0));
            }
            Entry::Occupied(known) => {
                let (first, others) = known.into_mut();
                *others += 1;
                if name < first.as_str() {
                    name.clone_into(first);
                }
            }
        }
    }
}

/// The pods that break the policy, those that break the same of it together; as many as are checked until the
/// time is over.
fn warnings(pods: Vec<Object>, namespace: &str, policy: &Policy, is_over: impl Fn() -> bool) -> Vec<String> {
    let all = pods.len();
    let mut found = Found::default();
    for pod in prioritized(pods).iter().take(PODS) {
        found.add(pod, policy.level);
        if is_over() {
            break;
        }
    }
    let mut warnings = Vec::new();
    if found.checked < all {
        let checked = found.checked;
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"
        ));
    }
    if !found.by_reasons.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\""
        ));
    }
    let lines = found.by_reasons.into_iter().map(|(reasons, (name, others))| match others {
        0 => format!("{name}: {reasons}"),
        1 => format!("{name} (and 1 other pod): {reasons}"),
        _ => format!("{name} (and {others} other pods): {reasons}"),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort_unstable();
    warnings.append(&mut lines);
    warnings
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use api::object::{ObjectIndex, ObjectKey, Owner};
    use serde_json::json;

    use super::*;

    fn pod(name: &str, controller: &str, spec: &Value) -> Object {
        let owners = (!controller.is_empty()).then(|| Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: controller.into(),
            uid: controller.into(),
            controller: true,
            block_owner_deletion: false,
        });
        let key = ObjectKey::new("n", name);
        let index = ObjectIndex { key, owners: owners.into_iter().collect(), ..ObjectIndex::default() };
        let json = json!({"metadata": {"name": name}, "spec": spec}).to_string();
        Object { json: json.into(), index: Arc::new(index) }
    }

    fn pods() -> Vec<Object> {
        let host = json!({"containers": [], "hostNetwork": true});
        let path = json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]});
        vec![
            pod("a-1", "a", &host),
            pod("a-2", "a", &host),
            pod("a-3", "a", &host),
            pod("b-1", "b", &path),
            pod("c", "", &json!({"containers": []})),
        ]
    }

    #[track_caller]
    fn check(time: usize, expected: &[&str]) {
        let policy = Policy { level: Level::Baseline, version: "latest".into() };
        let left = Cell::new(time);
        let is_over = || {
            left.set(left.get() - 1);
            left.get() == 0
        };
        assert_eq!(warnings(pods(), "n", &policy, is_over), expected);
    }

    #[test]
    fn pods_are_told_of_once_for_each_fault() {
        let head = "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"";
        let (a, b) = ("a-1 (and 2 other pods): host namespaces", "b-1: hostPath volumes");
        check(9, &[head, a, b]);
        // When the time is over, one pod of each controller has been looked at first.
        let some = "new PodSecurity enforce level only checked against the first 3 of 5 existing pods";
        check(3, &[some, head, "a-1: host namespaces", b]);
        let one = "new PodSecurity enforce level only checked against the first 1 of 5 existing pods";
        check(1, &[one, head, "a-1: host namespaces"]);
    }
}
