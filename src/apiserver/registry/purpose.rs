//! Which writes are done though the store is full: those that end in less, and those that keep nodes alive.

use serde_json::Value;
use storage::Purpose;

use super::durability::same_but;
use super::resource::Resource;

/// Where nodes renew their leases.
const NODE_LEASES: &str = "kube-node-lease";

/// Why `new` is written over `old`.
pub(super) fn of_write(resource: &Resource, new: &Value, old: Option<&Value>) -> Purpose {
    let metadata = &new["metadata"];
    // Until it is gone, an object that is being deleted is written several times.
    let is_removal = !metadata["deletionTimestamp"].is_null();
    let is_upkeep = match (&*resource.collection, old) {
        ("coordination.k8s.io/leases", _) => metadata["namespace"] == NODE_LEASES,
        ("core/nodes", None) => true,
        ("core/nodes" | "core/pods", Some(old)) => same_but(new, old, &["/status"]),
        _ => false,
    };
    match (is_upkeep, is_removal) {
        (true, is_removal) => Purpose::Upkeep { is_removal },
        (false, true) => Purpose::Removal,
        (false, false) => Purpose::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::resource::Resources;

    #[track_caller]
    fn check((group, resource): (&str, &str), new: &Value, old: Option<&Value>, expected: Purpose) {
        let resources = Resources::built_in();
        assert_eq!(of_write(resources.get(group, resource).unwrap(), new, old), expected);
    }

    #[test]
    fn nodes_and_the_status_of_pods_go_on_and_nothing_that_a_user_sizes() {
        const UPKEEP: Purpose = Purpose::Upkeep { is_removal: false };
        let (leases, nodes, pods) = (("coordination.k8s.io", "leases"), ("", "nodes"), ("", "pods"));
        let lease = |namespace: &str| json!({"metadata": {"namespace": namespace}, "spec": {"renewTime": "t"}});
        check(leases, &lease(NODE_LEASES), None, UPKEEP);
        check(leases, &lease("default"), Some(&lease("default")), Purpose::Ordinary);
        let status = |phase: &str| json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": phase}});
        let other = json!({"metadata": {"labels": {"a": "c"}}, "status": {"phase": "a"}});
        for resource in [nodes, pods] {
            check(resource, &status("b"), Some(&status("a")), UPKEEP);
            check(resource, &other, Some(&status("a")), Purpose::Ordinary);
        }
        check(nodes, &status("a"), None, UPKEEP);
        check(pods, &status("a"), None, Purpose::Ordinary);
        let going = |phase: &str| json!({"metadata": {"deletionTimestamp": "t"}, "status": {"phase": phase}});
        check(pods, &going("b"), Some(&going("a")), Purpose::Upkeep { is_removal: true });
        check(pods, &going("a"), Some(&status("a")), Purpose::Removal);
        check(("", "configmaps"), &going("b"), Some(&going("a")), Purpose::Removal);
        check(("", "configmaps"), &status("b"), Some(&status("a")), Purpose::Ordinary);
    }
}
