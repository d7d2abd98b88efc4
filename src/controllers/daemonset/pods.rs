//! The pods of a DaemonSet: bound to a node by affinity, tolerating what a node goes through.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration};

use crate::claim;
use crate::generate_name::generate_name;
use crate::nodes::{self, NodeView};
use crate::pod_control;

pub(super) const HASH_LABEL: &str = "controller-revision-hash";
pub(super) const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that daemons live through, by effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a daemon belongs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Run,
    /// No new pod, but one that is there may stay: only taints against scheduling stand in the way.
    Stay,
    No,
}

pub(super) fn place(spec: &PodSpec, node: &NodeView) -> Place {
    let name_fits = spec.node_name.as_deref().is_none_or(|n| n.is_empty() || n == node.name());
    if !name_fits || !nodes::affinity_admits(spec, node.name(), &node.index.labels) {
        return Place::No;
    }
    let tolerations = tolerations(spec);
    let repels = |t: &&Taint| !tolerations.iter().any(|toleration| nodes::tolerates(toleration, t));
    let mut repelling = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule").filter(repels).peekable();
    if repelling.peek().is_none() {
        Place::Run
    } else if repelling.any(|t| t.effect == "NoExecute") {
        Place::No
    } else {
        Place::Stay
    }
}

/// The template's tolerations and those of every daemon.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let network = spec.host_network.unwrap_or(false).then_some(NETWORK_UNAVAILABLE);
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            value: None,
            toleration_seconds: None,
        };
        let same = |t: &Toleration| t.key == toleration.key && t.effect == toleration.effect;
        match all.iter_mut().find(|t| same(t)) {
            Some(existing) => *existing = toleration,
            None => all.push(toleration),
        }
    }
    all
}

pub(super) fn new_pod(set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) -> Pod {
    let meta = &set.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_control::from_template(&spec.template, namespace, claim::controller_ref::<DaemonSet>(meta));
    pod.metadata.generate_name = Some(generate_name(meta.name.as_deref().unwrap_or_default()));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.tolerations = Some(tolerations(pod_spec));
        bind(pod_spec, node);
    }
    pod
}

pub(super) fn template_generation(set: &DaemonSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get("deprecated.daemonset.template.generation").map(String::as_str)
}

/// The scheduler may put the pod on this node only.
fn bind(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object::{ObjectIndex, ObjectKey};
    use std::sync::Arc;

    fn node(taint: Option<(&str, &str)>) -> NodeView {
        let taints =
            taint.map(|(key, effect)| Taint { key: key.into(), effect: effect.into(), value: None, time_added: None });
        let index = ObjectIndex {
            key: ObjectKey::new("", "n1"),
            labels: [("disk".into(), "ssd".into())].into(),
            ..ObjectIndex::default()
        };
        NodeView { index: Arc::new(index), taints: taints.into_iter().collect(), unschedulable: false }
    }

    #[test]
    fn nodes_are_chosen_by_selector_and_taints() {
        let plain = PodSpec::default();
        let selecting =
            |disk: &str| PodSpec { node_selector: Some([("disk".into(), disk.into())].into()), ..PodSpec::default() };
        let rows = [
            (plain.clone(), node(None), Place::Run),
            (selecting("ssd"), node(None), Place::Run),
            (selecting("hdd"), node(None), Place::No),
            (plain.clone(), node(Some(("example.com/a", "NoSchedule"))), Place::Stay),
            (plain.clone(), node(Some(("example.com/a", "NoExecute"))), Place::No),
            (plain.clone(), node(Some(("example.com/a", "PreferNoSchedule"))), Place::Run),
            (plain.clone(), node(Some(("node.kubernetes.io/unschedulable", "NoSchedule"))), Place::Run),
            (plain, node(Some(("node.kubernetes.io/network-unavailable", "NoSchedule"))), Place::Stay),
        ];
        for (spec, node, expected) in rows {
            assert_eq!(place(&spec, &node), expected, "{spec:?} {:?}", node.taints);
        }
    }

    #[test]
    fn a_pod_is_bound_in_every_term() {
        let mut spec = PodSpec::default();
        bind(&mut spec, "n1");
        assert!(nodes::affinity_admits(&spec, "n1", &[].into()));
        assert!(!nodes::affinity_admits(&spec, "n2", &[].into()));
    }
}
