//! What a namespace's labels may say, and which of its pods a stricter level would refuse.

use std::collections::BTreeMap;

use api::object::GroupResource;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::super::review::{Operation, Review};
use super::labels::{self, Policies, Policy};
use super::{annotations_of, violations};
use crate::error::ApiError;
use crate::registry::Registry;

/// Upstream looks at no more pods of a namespace.
const PODS: usize = 3_000;

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
        let mut warnings = warnings(registry, review.name, policy);
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

/// The pods that break the policy, those that break the same of it together.
fn warnings(registry: &Registry, namespace: &str, policy: &Policy) -> Vec<String> {
    let mut found: Vec<(String, String, usize)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for object in registry.list(&GroupResource::new("", "pods"), Some(namespace)).iter().take(PODS) {
        // A pod that cannot be read cannot be shown to be harmless either.
        let reasons = match object.decode::<Pod>() {
            Ok(pod) => match &pod.spec {
                Some(spec) => violations(spec, annotations_of(&pod), policy.level).iter().map(|v| v.reason).collect(),
                None => Vec::new(),
            },
            Err(_) => vec!["cannot be read"],
        };
        if reasons.is_empty() {
            continue;
        }
        let reasons = reasons.join(", ");
        if let Some(place) = known.get(&reasons) {
            found[*place].2 += 1;
        } else {
            known.insert(reasons.clone(), found.len());
            found.push((object.index.key.name.to_string(), reasons, 0));
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let head =
        format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\"");
    let lines = found.into_iter().map(|(name, reasons, others)| match others {
        0 => format!("{name}: {reasons}"),
        1 => format!("{name} (and 1 other pod): {reasons}"),
        _ => format!("{name} (and {others} other pods): {reasons}"),
    });
    std::iter::once(head).chain(lines).collect()
}
