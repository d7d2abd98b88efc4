//! Which writes may be lost by a power cut: those that only say "still alive", events, and what a
//! kubelet says of a pod that it has not made anything for yet.

use serde_json::Value;
use storage::Durability;

use super::resource::Resource;

/// The class of a write of `new` over `old`.
pub(super) fn of_write(resource: &Resource, new: &Value, old: Option<&Value>) -> Durability {
    let relaxed = match (&*resource.collection, old) {
        _ if is_event(resource) => true,
        ("coordination.k8s.io/leases", Some(old)) => same_but(new, old, &["/spec/renewTime"]),
        ("core/nodes", Some(old)) => same_but(new, old, &[]) && !conditions_differ(new, old),
        ("core/pods", Some(old)) => is_untouched(new) && is_untouched(old) && same_but(new, old, &["/status"]),
        _ => false,
    };
    if relaxed { Durability::Relaxed } else { Durability::Strict }
}

/// The class of a removal.
pub(super) fn of_delete(resource: &Resource) -> Durability {
    // A thousand events of a namespace that goes away must not cost a thousand commits.
    if is_event(resource) { Durability::Relaxed } else { Durability::Strict }
}

fn is_event(resource: &Resource) -> bool {
    &*resource.collection == "core/events"
}

/// Equal apart from the revision, conditions of the status, and the values at some pointers.
pub(super) fn same_but(new: &Value, old: &Value, ignored: &[&str]) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        for pointer in ignored.iter().chain(&["/metadata/resourceVersion", "/metadata/managedFields"]) {
            if let Some(value) = object.pointer_mut(pointer) {
                *value = Value::Null;
            }
        }
        if let Some(conditions) = object.pointer_mut("/status/conditions") {
            *conditions = Value::Null;
        }
        object
    };
    stripped(new) == stripped(old)
}

/// Nothing was made for the pod so far: its status is what the next kubelet finds out by itself.
fn is_untouched(pod: &Value) -> bool {
    let status = &pod["status"];
    let made = |list: &str| status[list].as_array().into_iter().flatten().any(|c| c.get("containerID").is_some());
    status["phase"] == "Pending"
        && status.get("podIP").is_none()
        && !["initContainerStatuses", "containerStatuses"].into_iter().any(made)
}

/// Whether conditions differ by more than their heartbeat.
fn conditions_differ(new: &Value, old: &Value) -> bool {
    let without_heartbeat = |object: &Value| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions
            .into_iter()
            .map(|mut condition| {
                if let Some(map) = condition.as_object_mut() {
                    map.remove("lastHeartbeatTime");
                }
                condition
            })
            .collect::<Vec<_>>()
    };
    without_heartbeat(new) != without_heartbeat(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::resource::Resources;

    #[track_caller]
    fn check(group: &str, resource: &str, new: &Value, old: Option<&Value>, expected: Durability) {
        let resources = Resources::built_in();
        assert_eq!(of_write(resources.get(group, resource).unwrap(), new, old), expected);
    }

    #[test]
    fn only_signs_of_life_and_events_are_relaxed() {
        let lease = |holder: &str, time: &str| json!({"metadata": {"resourceVersion": time}, "spec": {"holderIdentity": holder, "renewTime": time}});
        let (coordination, leases) = ("coordination.k8s.io", "leases");
        check(coordination, leases, &lease("a", "1"), None, Durability::Strict);
        check(coordination, leases, &lease("a", "2"), Some(&lease("a", "1")), Durability::Relaxed);
        check(coordination, leases, &lease("b", "2"), Some(&lease("a", "1")), Durability::Strict);
        let node = |ready: &str, beat: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": beat}]}});
        check("", "nodes", &node("True", "2"), Some(&node("True", "1")), Durability::Relaxed);
        check("", "nodes", &node("False", "2"), Some(&node("True", "1")), Durability::Strict);
        check("", "events", &json!({}), None, Durability::Relaxed);
        check("", "pods", &json!({}), Some(&json!({})), Durability::Strict);
        let pod = |status: Value| json!({"spec": {"nodeName": "n"}, "status": status});
        let waiting = |id: Value| json!({"phase": "Pending", "startTime": "t", "containerStatuses": [id]});
        for (old, new, expected) in [
            (json!({"phase": "Pending"}), waiting(json!({})), Durability::Relaxed),
            (json!({"phase": "Pending"}), waiting(json!({"containerID": "x"})), Durability::Strict),
            (waiting(json!({})), json!({"phase": "Pending", "podIP": "10.0.0.1"}), Durability::Strict),
            (waiting(json!({})), json!({"phase": "Failed"}), Durability::Strict),
            (json!({"phase": "Running"}), waiting(json!({})), Durability::Strict),
        ] {
            check("", "pods", &pod(new), Some(&pod(old)), expected);
        }
        let unbound = json!({"spec": {}, "status": {"phase": "Pending"}});
        check("", "pods", &pod(waiting(json!({}))), Some(&unbound), Durability::Strict);
        let resources = Resources::built_in();
        assert_eq!(of_delete(resources.get("events.k8s.io", "events").unwrap()), Durability::Relaxed);
        assert_eq!(of_delete(resources.get("", "pods").unwrap()), Durability::Strict);
    }
}
