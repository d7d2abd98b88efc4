//! What silence makes of a node: its conditions become unknown and its taints follow its conditions.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// A node is lost when nothing was heard of it for so long; upstream's default.
pub(super) const GRACE: Duration = Duration::from_secs(50);
const NEVER_UPDATED: &str = "NodeStatusNeverUpdated";

/// Conditions that a kubelet reports, and so turn unknown with it.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Taints against scheduling by condition and the status that calls for them.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == kind)
}

pub(super) fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |c| c.status.as_str())
}

/// The status of a node that has gone silent; nothing when it says so already.
pub(super) fn silenced(node: &Node, now: &Time) -> Option<NodeStatus> {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(NEVER_UPDATED.to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.clone()),
            }),
        }
    }
    (node.status.as_ref() != Some(&status)).then_some(status)
}

/// The taints that the node should have; those of others stay as they are.
pub(super) fn taints(node: &Node, now: &Time) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|c| c.status == status) {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    // A node that has never reported is left to its own taint of registration.
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        None => {
            wanted.extend(current.iter().any(|t| is(t, (NOT_READY, NO_SCHEDULE))).then_some((NOT_READY, NO_SCHEDULE)))
        }
        Some("False") => wanted.push((NOT_READY, NO_EXECUTE)),
        Some("Unknown") => wanted.push((UNREACHABLE, NO_EXECUTE)),
        Some(_) => {}
    }
    let mut taints: Vec<Taint> =
        current.into_iter().filter(|t| !is_ours(t) || wanted.iter().any(|w| is(t, *w))).collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| is(t, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(now.clone()),
            });
        }
    }
    taints
}

fn is(taint: &Taint, (key, effect): (&str, &str)) -> bool {
    taint.key == key && taint.effect == effect
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition = || BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    match taint.effect.as_str() {
        NO_SCHEDULE => by_condition(),
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use k8s_openapi::api::core::v1::NodeSpec;

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)], unschedulable: bool) -> Node {
        let condition = |(kind, status): &(&str, &str)| NodeCondition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        };
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).to_owned(),
            effect: (*effect).to_owned(),
            value: None,
            time_added: None,
        };
        Node {
            spec: Some(NodeSpec {
                taints: Some(taints.iter().map(taint).collect()),
                unschedulable: Some(unschedulable),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                conditions: Some(conditions.iter().map(condition).collect()),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }

    #[track_caller]
    fn check(conditions: &[(&str, &str)], before: &[(&str, &str)], unschedulable: bool, expected: &[(&str, &str)]) {
        let got = taints(&node(conditions, before, unschedulable), &Time(at(5)));
        let got: Vec<_> = got.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(got, expected, "{conditions:?} {before:?}");
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let own = ("example.com/own", NO_EXECUTE);
        check(&[("Ready", "True")], &[(NOT_READY, NO_SCHEDULE), own], false, &[own]);
        check(&[("Ready", "False")], &[own], false, &[own, (NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]);
        let lost = [(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)];
        check(&[("Ready", "Unknown")], &[(NOT_READY, NO_EXECUTE)], false, &lost);
        check(&[("Ready", "True")], &[], true, &[(UNSCHEDULABLE, NO_SCHEDULE)]);
        let pressure = ("node.kubernetes.io/disk-pressure", NO_SCHEDULE);
        check(&[("Ready", "True"), ("DiskPressure", "True")], &[], false, &[pressure]);
        check(&[], &[(NOT_READY, NO_SCHEDULE)], false, &[(NOT_READY, NO_SCHEDULE)]);
    }

    #[test]
    fn silence_makes_every_reported_condition_unknown_once() {
        let quiet = node(&[("Ready", "True"), ("NetworkUnavailable", "False")], &[], false);
        let status = silenced(&quiet, &Time(at(5))).unwrap();
        let got: Vec<_> = status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        let expected = [
            ("Ready", "Unknown"),
            ("NetworkUnavailable", "False"),
            ("MemoryPressure", "Unknown"),
            ("DiskPressure", "Unknown"),
            ("PIDPressure", "Unknown"),
        ];
        assert_eq!(got, expected);
        let told = Node { status: Some(status), ..quiet };
        assert_eq!(silenced(&told, &Time(at(9))), None);
    }
}
