//! The node authorizer: a kubelet may touch its own node, the pods that run there, and what these pods
//! refer to; for everything else the rules of `system:node` hold for all nodes alike.

use api::object::{GroupResource, ObjectKey};

use super::attributes::{Attributes, ResourceTarget, Target, selected_value};
use super::bootstrap;
use super::decision::Decision;
use super::node_references::NodeReferences;
use super::pod_references::Referent;
use super::rbac::Rule;
use crate::registry::Registry;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The authorizer and what it remembers of the pods on each node.
#[derive(Debug)]
pub(super) struct NodeAuthorizer {
    rules: Vec<Rule>,
    references: NodeReferences,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self { rules: bootstrap::node_rules().iter().map(Rule::from).collect(), references: NodeReferences::default() }
    }
}

/// What the static part of the decision comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(String),
    /// Allowed when a pod on the node refers to the named object.
    IfReferenced(Referent),
    /// Allowed when the named pod runs on the node.
    IfPodIsHere,
    /// Allowed when the static rules of all nodes allow it.
    ByRule,
}

impl NodeAuthorizer {
    #[must_use]
    pub(super) fn authorize(&self, registry: &Registry, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = attributes.user.node_name() else { return Decision::none("") };
        if node.is_empty() {
            return Decision::none(format!("unknown node for user {:?}", attributes.user.name));
        }
        let unrelated = || Decision::none(format!("no relationship found between node '{node}' and this object"));
        let verdict = match &attributes.target {
            Target::Resource(target) => judge(node, attributes.verb, target),
            Target::Path(_) => Verdict::ByRule,
        };
        let (namespace, name) = match attributes.target {
            Target::Resource(target) => (target.namespace, target.name),
            Target::Path(_) => ("", ""),
        };
        match verdict {
            Verdict::Allow => Decision::allow(),
            Verdict::Refuse(reason) => Decision::none(reason),
            Verdict::IfReferenced(_) | Verdict::IfPodIsHere if name.is_empty() => {
                Decision::none("No Object name found")
            }
            Verdict::IfReferenced(kind) => {
                let found = self.references.refers(registry, node, kind, &ObjectKey::new(namespace, name));
                if found { Decision::allow() } else { unrelated() }
            }
            Verdict::IfPodIsHere => {
                let pod = registry.get(&GroupResource::new("", "pods"), &ObjectKey::new(namespace, name));
                let here = pod.is_some_and(|p| p.index.field("spec.nodeName") == Some(node));
                if here { Decision::allow() } else { unrelated() }
            }
            Verdict::ByRule if self.rules.iter().any(|r| r.allows(attributes)) => Decision::allow(),
            Verdict::ByRule => Decision::none(""),
        }
    }
}

fn judge(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    match (target.group, target.resource) {
        ("", "secrets") => read_one(Referent::Secret, verb, target),
        ("", "configmaps") => read_one(Referent::ConfigMap, verb, target),
        ("", "persistentvolumeclaims") if target.subresource == "status" => match verb {
            "update" | "patch" => Verdict::IfReferenced(Referent::Claim),
            _ => Verdict::Refuse("can only get/update/patch this type".to_owned()),
        },
        ("", "persistentvolumeclaims") => get_one(Referent::Claim, verb, target),
        ("", "persistentvolumes") => get_one(Referent::Volume, verb, target),
        ("resource.k8s.io", "resourceclaims") => get_one(Referent::ResourceClaim, verb, target),
        ("storage.k8s.io", "volumeattachments") => get_one(Referent::Attachment, verb, target),
        ("", "serviceaccounts") => service_account(verb, target),
        ("coordination.k8s.io", "leases") => lease(node, verb, target),
        ("storage.k8s.io", "csinodes") => csi_node(node, verb, target),
        ("", "nodes") => own_node(node, verb, target),
        ("", "pods") => own_pods(node, verb, target),
        _ => Verdict::ByRule,
    }
}

fn refuse(reason: &str) -> Verdict {
    Verdict::Refuse(reason.to_owned())
}

fn get_one(kind: Referent, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    if verb != "get" {
        return refuse("can only get individual resources of this type");
    }
    if !target.subresource.is_empty() {
        return refuse("cannot get subresource");
    }
    Verdict::IfReferenced(kind)
}

fn read_one(kind: Referent, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    if !matches!(verb, "get" | "list" | "watch") {
        return refuse("can only read resources of this type");
    }
    if !target.subresource.is_empty() {
        return refuse("cannot read subresource");
    }
    if target.namespace.is_empty() {
        return refuse("can only read namespaced object of this type");
    }
    Verdict::IfReferenced(kind)
}

fn service_account(verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    if verb == "get" && target.subresource.is_empty() {
        return Verdict::IfReferenced(Referent::ServiceAccount);
    }
    if verb != "create" || target.name.is_empty() {
        return refuse("can only create tokens for individual service accounts");
    }
    if target.subresource != "token" {
        return refuse("can only create token subresource of serviceaccount");
    }
    Verdict::IfReferenced(Referent::ServiceAccount)
}

/// Creates carry no name here: NodeRestriction compares it at admission.
fn lease(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if target.namespace != LEASE_NAMESPACE {
        return Verdict::Refuse(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if verb != "create" && target.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Verdict::Allow
}

fn csi_node(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !target.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if verb != "create" && target.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Verdict::Allow
}

fn own_node(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    match (target.subresource, verb) {
        // NodeRestriction limits these to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Verdict::Allow,
        ("", "get" | "list" | "watch") if target.name == node => Verdict::Allow,
        ("", "get" | "list" | "watch") => {
            Verdict::Refuse(format!("node '{node}' cannot read '{}', only its own Node object", target.name))
        }
        _ => refuse(""),
    }
}

fn own_pods(node: &str, verb: &str, target: &ResourceTarget<'_>) -> Verdict {
    match (target.subresource, verb) {
        ("", "get") => Verdict::IfPodIsHere,
        ("", "list" | "watch") if selected_value(target.field_selector, "spec.nodeName") == Some(node) => {
            Verdict::Allow
        }
        ("", "list" | "watch") if !target.name.is_empty() => Verdict::IfPodIsHere,
        ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
        // NodeRestriction limits these to mirror pods, and all to pods of the node.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Verdict::Allow,
        _ => refuse(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(verb: &str, resource: &str, place: &str, expected: &Verdict) {
        let (group, resource) = resource.rsplit_once(':').unwrap_or(("", resource));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let (name, field_selector) = name.split_once('?').unwrap_or((name, ""));
        let target = ResourceTarget { group, namespace, resource, subresource, name, field_selector };
        assert_eq!(judge("n1", verb, &target), *expected, "{verb} {group} {resource}/{subresource} {place}");
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to() {
        check("get", "secrets", "a/s", &Verdict::IfReferenced(Referent::Secret));
        check("watch", "configmaps", "a/c", &Verdict::IfReferenced(Referent::ConfigMap));
        check("update", "secrets", "a/s", &refuse("can only read resources of this type"));
        check("list", "secrets", "", &refuse("can only read namespaced object of this type"));
        check("get", "persistentvolumeclaims", "a/c", &Verdict::IfReferenced(Referent::Claim));
        check("list", "persistentvolumes", "", &refuse("can only get individual resources of this type"));
        check("create", "serviceaccounts/token", "a/sa", &Verdict::IfReferenced(Referent::ServiceAccount));
        check("create", "serviceaccounts", "a/", &refuse("can only create tokens for individual service accounts"));
    }

    #[test]
    fn a_node_touches_its_own_node_lease_and_pods_only() {
        check("update", "nodes", "n2", &Verdict::Allow);
        check("get", "nodes", "n1", &Verdict::Allow);
        check("get", "nodes", "n2", &refuse("node 'n1' cannot read 'n2', only its own Node object"));
        check("delete", "nodes", "n1", &refuse(""));
        check("update", "coordination.k8s.io:leases", "kube-node-lease/n1", &Verdict::Allow);
        let other = refuse("can only access node lease with the same name as the requesting node");
        check("update", "coordination.k8s.io:leases", "kube-node-lease/n2", &other);
        let elsewhere = refuse("can only access leases in the \"kube-node-lease\" system namespace");
        check("get", "coordination.k8s.io:leases", "kube-system/n1", &elsewhere);
        check("list", "pods", "/?spec.nodeName=n1", &Verdict::Allow);
        check(
            "list",
            "pods",
            "/?spec.nodeName=n2",
            &refuse("can only list/watch pods with spec.nodeName field selector"),
        );
        check("get", "pods", "a/p", &Verdict::IfPodIsHere);
        check("patch", "pods/status", "a/p", &Verdict::Allow);
        check("create", "pods/exec", "a/p", &refuse(""));
        check("get", "services", "a/s", &Verdict::ByRule);
    }
}
