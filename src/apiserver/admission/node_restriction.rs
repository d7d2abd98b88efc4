//! NodeRestriction: a kubelet changes its own node, its own pods and its own lease, and cannot give
//! itself labels or taints that would draw other workloads to it.

use std::collections::{BTreeMap, BTreeSet};

use api::object::{GroupResource, ObjectKey};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use serde_json::Value;

use super::review::{Operation, Review};
use crate::auth::pod_references::{Referent, references_of};
use crate::error::ApiError;
use crate::registry::Registry;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io";
/// The labels under kubernetes.io and k8s.io that a kubelet sets about itself.
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

pub(super) fn admit(registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let Some(node) = review.user.node_name() else { return Ok(()) };
    if review.operation == Operation::Connect {
        return Ok(());
    }
    if node.is_empty() {
        return Err(review.forbidden(format!("could not determine node from user {:?}", review.user.name)));
    }
    match (&*review.resource.group, &*review.resource.resource, review.subresource) {
        ("", "pods", "") => pod(registry, review, node),
        ("", "pods", "status") => pod_status(review, node),
        ("", "pods", "eviction") => pod_eviction(registry, review, node),
        ("", "pods", other) => {
            Err(review
                .forbidden(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")))
        }
        ("", "nodes", _) => own_node(review, node),
        ("", "persistentvolumeclaims", "status") => claim_status(review, node),
        ("", "persistentvolumeclaims", _) => Err(review.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") => token(registry, review, node),
        ("coordination.k8s.io", "leases", _) => lease(review, node),
        ("storage.k8s.io", "csinodes", _) if written_name(review) != node => {
            Err(review.forbidden("can only access CSINode with the same name as the requesting node"))
        }
        _ => Ok(()),
    }
}

fn stored_pod(registry: &Registry, review: &Review<'_>, name: &str) -> Result<api::object::Object, ApiError> {
    let pods = GroupResource::new("", "pods");
    registry.get(&pods, &ObjectKey::new(review.namespace, name)).ok_or_else(|| ApiError::not_found(&pods, name))
}

fn pod(registry: &Registry, review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    match review.operation {
        Operation::Create => {
            let uid = || {
                let key = ObjectKey::new("", node);
                registry.get(&GroupResource::new("", "nodes"), &key).map(|n| n.index.uid.to_string())
            };
            judge_mirror_pod(&review.typed()?, node, uid).map_err(|e| review.forbidden(e))
        }
        Operation::Delete => {
            let pod = stored_pod(registry, review, review.name)?;
            if pod.index.field("spec.nodeName") == Some(node) {
                return Ok(());
            }
            Err(review.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        Operation::Update | Operation::Connect => Err(review.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
    }
}

/// A node makes pods only as mirrors of its static pods, and these refer to nothing in the API.
fn judge_mirror_pod(pod: &Pod, node: &str, node_uid: impl FnOnce() -> Option<String>) -> Result<(), String> {
    let spec = pod.spec.clone().unwrap_or_default();
    if !pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_ANNOTATION)) {
        return Err(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if spec.node_name.as_deref() != Some(node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let own = format!("node {node:?} can only create pods with an owner reference set to itself");
    let owner = match pod.metadata.owner_references.as_deref() {
        Some([owner]) => owner,
        Some([_, _, ..]) => {
            return Err(format!("node {node:?} can only create pods with a single owner reference set to itself"));
        }
        Some([]) | None => return Err(own),
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return Err(own);
    }
    if owner.controller != Some(true) {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let uid = node_uid().ok_or_else(|| format!("nodes {node:?} not found"))?;
    if owner.uid != uid {
        return Err(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
    }
    let reference = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return reference("a service account");
    }
    let references = references_of(pod);
    let from_template = spec.resource_claims.is_some_and(|claims| !claims.is_empty());
    let refers = |kind: Referent| {
        kind == Referent::ResourceClaim && from_template || references.iter().any(|(found, _)| *found == kind)
    };
    for (kind, name) in [
        (Referent::Secret, "secrets"),
        (Referent::ConfigMap, "configmaps"),
        (Referent::TrustBundle, "clustertrustbundles"),
        (Referent::Claim, "persistentvolumeclaims"),
        (Referent::ResourceClaim, "resourceclaims"),
    ] {
        if refers(kind) {
            return reference(name);
        }
    }
    Ok(())
}

fn pod_status(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let old = review.old.unwrap_or(&Value::Null);
    if old["spec"]["nodeName"] != *node {
        return Err(review
            .forbidden(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")));
    }
    if review.object.as_ref().is_some_and(|new| !same_map(&new["metadata"]["labels"], &old["metadata"]["labels"])) {
        return Err(review.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

/// Absent and empty are the same.
fn same_map(a: &Value, b: &Value) -> bool {
    let entries = |v: &Value| v.as_object().cloned().unwrap_or_default();
    entries(a) == entries(b)
}

fn pod_eviction(registry: &Registry, review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let pod = stored_pod(registry, review, review.name)?;
    if pod.index.field("spec.nodeName") == Some(node) {
        return Ok(());
    }
    Err(review.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn own_node(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let name = written_name(review);
    if name != node {
        return Err(review.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    match review.operation {
        Operation::Create => {
            let labels = review.typed::<Node>()?.metadata.labels.unwrap_or_default();
            let forbidden = forbidden_labels(&labels, &BTreeMap::new());
            if forbidden.is_empty() {
                return Ok(());
            }
            Err(review.forbidden(format!("node {node:?} is not allowed to set the following labels: {forbidden}")))
        }
        Operation::Update => {
            let (new, old): (Node, Node) = (review.typed()?, review.typed_old()?);
            judge_node_update(&new, &old, node).map_err(|e| review.forbidden(e))
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

fn judge_node_update(new: &Node, old: &Node, node: &str) -> Result<(), String> {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints(new) != taints(old) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let empty = BTreeMap::new();
    let labels = |n: &Node| n.metadata.labels.clone().unwrap_or_else(|| empty.clone());
    let forbidden = forbidden_labels(&labels(new), &labels(old));
    if !forbidden.is_empty() {
        return Err(format!("is not allowed to modify labels: {forbidden}"));
    }
    if new.metadata.owner_references != old.metadata.owner_references {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    Ok(())
}

/// The changed labels that are not a kubelet's to change, sorted and joined.
fn forbidden_labels(new: &BTreeMap<String, String>, old: &BTreeMap<String, String>) -> String {
    let keys: BTreeSet<&str> = new.keys().chain(old.keys()).map(String::as_str).collect();
    let forbidden: Vec<&str> = keys.into_iter().filter(|k| new.get(*k) != old.get(*k) && is_forbidden(k)).collect();
    forbidden.join(", ")
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within =
        |domain: &str| namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if within(RESTRICTED_PREFIX) {
        return true;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    let own = KUBELET_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    reserved && !own
}

fn claim_status(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let strip = |mut claim: PersistentVolumeClaim| {
        claim.metadata.resource_version = None;
        claim.metadata.managed_fields = None;
        if let Some(status) = claim.status.as_mut() {
            status.capacity = None;
            status.conditions = None;
            status.allocated_resources = None;
            status.allocated_resource_statuses = None;
        }
        claim
    };
    if strip(review.typed()?) == strip(review.typed_old()?) {
        return Ok(());
    }
    Err(review.forbidden(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    )))
}

fn token(registry: &Registry, review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let request: TokenRequest = review.typed()?;
    let reference = request.spec.and_then(|s| s.bound_object_ref).unwrap_or_default();
    let name = reference.name.as_deref().unwrap_or_default();
    if reference.api_version.as_deref() != Some("v1") || reference.kind.as_deref() != Some("Pod") || name.is_empty() {
        return Err(review.forbidden("node requested token not bound to a pod"));
    }
    let Some(uid) = reference.uid.filter(|u| !u.is_empty()) else {
        return Err(review.forbidden("node requested token with a pod binding without a uid"));
    };
    let pod = stored_pod(registry, review, name)?;
    if *pod.index.uid != *uid {
        return Err(review.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )));
    }
    if pod.index.field("spec.nodeName") != Some(node) {
        return Err(review.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

fn lease(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    if review.namespace != "kube-node-lease" {
        return Err(review.forbidden("can only access leases in the \"kube-node-lease\" system namespace"));
    }
    if written_name(review) != node {
        return Err(review.forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

/// A create may carry its name in the object only.
fn written_name<'r>(review: &'r Review<'_>) -> &'r str {
    let in_object = || review.object.as_ref().and_then(|o| o["metadata"]["name"].as_str());
    if review.name.is_empty() { in_object().unwrap_or_default() } else { review.name }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::DeepMerge;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_steer_workloads_are_not_the_nodes_to_set() {
        #[track_caller]
        fn check(label: &str, forbidden: bool) {
            assert_eq!(is_forbidden(label), forbidden, "{label}");
        }
        check("disk", false);
        check("example.com/disk", false);
        check("kubernetes.io/hostname", false);
        check("node.kubernetes.io/gpu", false);
        check("a.kubelet.kubernetes.io/x", false);
        check("node-role.kubernetes.io/control-plane", true);
        check("node-restriction.kubernetes.io/fips", true);
        check("x.k8s.io/y", true);
        check("notkubernetes.io/y", false);
    }

    #[test]
    fn a_node_may_not_change_its_taints_labels_or_owners() {
        #[track_caller]
        fn check(change: &Value, expected: Result<(), &str>) {
            let old: Node = serde_json::from_value(json!({"metadata": {"labels": {"a": "1"}}, "spec": {}})).unwrap();
            let mut new = old.clone();
            new.merge_from(serde_json::from_value(change.clone()).unwrap());
            assert_eq!(judge_node_update(&new, &old, "n"), expected.map_err(str::to_owned), "{change}");
        }
        check(&json!({"metadata": {"labels": {"a": "2"}}}), Ok(()));
        let message = "is not allowed to modify labels: node-role.kubernetes.io/x";
        check(&json!({"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}}), Err(message));
        let message = "node \"n\" is not allowed to modify taints";
        check(&json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), Err(message));
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "m", "uid": "u"});
        let message = "node \"n\" is not allowed to modify ownerReferences";
        check(&json!({"metadata": {"ownerReferences": [owner]}}), Err(message));
    }

    #[track_caller]
    fn check_pod(annotated: bool, spec: &Value, owner: &Value, expected: Result<(), &str>) {
        let annotations = if annotated { json!({MIRROR_ANNOTATION: "x"}) } else { json!({}) };
        let metadata = json!({"annotations": annotations, "ownerReferences": owner});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let got = judge_mirror_pod(&pod, "n", || Some("u".to_owned()));
        assert_eq!(got, expected.map_err(str::to_owned), "{spec}");
    }

    #[test]
    fn a_node_makes_only_mirror_pods_of_its_own() {
        let spec = json!({"nodeName": "n", "containers": []});
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]);
        check_pod(true, &spec, &owner, Ok(()));
        let message =
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n\" can only create mirror pods";
        check_pod(false, &spec, &owner, Err(message));
        let message = "node \"n\" can only create pods with spec.nodeName set to itself";
        check_pod(true, &json!({"nodeName": "m", "containers": []}), &owner, Err(message));
        let message = "node \"n\" can only create pods with an owner reference set to itself";
        check_pod(true, &spec, &json!(null), Err(message));
        for (part, what) in [
            (json!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
            (
                json!({"volumes": [{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]}),
                "secrets",
            ),
            (
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]}),
                "configmaps",
            ),
            (json!({"volumes": [{"name": "v", "ephemeral": {}}]}), "persistentvolumeclaims"),
            (json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]}), "resourceclaims"),
        ] {
            let mut spec = spec.clone();
            spec.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            let message = format!("node \"n\" can not create pods that reference {what}");
            check_pod(true, &spec, &owner, Err(&message));
        }
        let message = "node \"n\" can not create pods that reference secrets";
        let secret =
            json!({"nodeName": "n", "containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
        check_pod(true, &secret, &owner, Err(message));
    }
}
