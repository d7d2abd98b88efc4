//! What controllers ask of a pod, decoded from the stored bytes without building a whole `Pod`:
//! a reconcile looks at every pod of its owner each time, and most of a pod does not matter to it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::object::{Object, ObjectIndex};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::NodeSelectorTerm;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};
use tracing::error;

/// A pod as its controllers see it.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) index: Arc<ObjectIndex>,
    pub(crate) meta: Meta,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

api::decode!(Body);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) creation_timestamp: Option<Time>,
    pub(crate) deletion_timestamp: Option<Time>,
    pub(crate) deletion_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) node_name: String,
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
    pub(crate) affinity: Option<Affinity>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) init_containers: Vec<Container>,
}

/// Of a pod's affinity only node affinity matters to its owners.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) restart_policy: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) name: String,
    pub(crate) container_port: i32,
    pub(crate) protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) restart_count: i32,
    pub(crate) state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) finished_at: Option<Time>,
}

/// Clients that encode nil lists as `null` mean an empty one.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// `status.phase`; a pod that was just made has none yet and counts as pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    #[serde(other)]
    Unknown,
}

impl PodView {
    /// `None`, with a line in the log, for bytes that are no pod.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        match object.decode::<Body>() {
            Ok(Body { metadata, spec, status }) => {
                Some(Self { index: object.index.clone(), meta: metadata, spec, status })
            }
            Err(e) => {
                error!(pod = %object.index.key, "stored pod does not decode: {e}");
                None
            }
        }
    }

    /// All of these pods: one that is left out would be made again.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(crate) fn all<'o>(objects: impl IntoIterator<Item = &'o Object>) -> kube::Result<Vec<Self>> {
        let view = |object: &Object| {
            let Body { metadata, spec, status } = object.decode().map_err(kube::Error::SerdeError)?;
            Ok(Self { index: object.index.clone(), meta: metadata, spec, status })
        };
        objects.into_iter().map(view).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.index.key.name
    }

    /// The node that the pod runs on, or may only run on: a daemon's is fixed before it is bound.
    pub(crate) fn target_node(&self) -> Option<&str> {
        if !self.spec.node_name.is_empty() {
            return Some(&self.spec.node_name);
        }
        let affinity = self.spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
        let field = fields.find(|f| f.key == "metadata.name" && f.operator == "In")?;
        field.values.as_deref()?.first().map(String::as_str)
    }

    /// Succeeded or failed: no container of it will run again.
    pub(crate) fn is_finished(&self) -> bool {
        match self.status.phase {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running | Phase::Unknown => false,
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        !self.is_finished() && !self.index.deleting
    }

    /// On its way out, with containers that may still run.
    pub(crate) fn is_terminating(&self) -> bool {
        !self.is_finished() && self.index.deleting
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    fn ready(&self) -> Option<&Condition> {
        self.condition("Ready").filter(|c| c.status == "True")
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready().is_some()
    }

    fn ready_since(&self) -> Option<Timestamp> {
        self.ready().and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0)
    }

    /// How long until the pod counts as available if it stays ready; zero when it does already.
    /// `None` when it is not ready.
    pub(crate) fn available_in(&self, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
        let ready = self.ready()?;
        if min_ready_seconds <= 0 {
            return Some(Duration::ZERO);
        }
        let since = ready.last_transition_time.as_ref()?.0;
        let due = since + SignedDuration::from_secs(i64::from(min_ready_seconds));
        Some(Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO))
    }

    pub(crate) fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_in(min_ready_seconds, now) == Some(Duration::ZERO)
    }

    fn max_restarts(&self) -> (i32, i32) {
        let max =
            |statuses: &mut dyn Iterator<Item = &ContainerStatus>| statuses.map(|s| s.restart_count).max().unwrap_or(0);
        let is_sidecar = |s: &&ContainerStatus| {
            self.spec.init_containers.iter().any(|c| c.name == s.name && c.restart_policy == "Always")
        };
        (
            max(&mut self.status.container_statuses.iter()),
            max(&mut self.status.init_container_statuses.iter().filter(is_sidecar)),
        )
    }

    /// `controller.kubernetes.io/pod-deletion-cost`; what is no number costs nothing.
    fn deletion_cost(&self) -> i32 {
        self.meta
            .annotations
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0)
    }

    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.meta.creation_timestamp.as_ref().map(|t| t.0)
    }
}

/// Puts those first that are best deleted: upstream's `ActivePodsWithRanks`. `colocated` says how
/// many active pods of the same owners run on a node.
pub(crate) fn rank_for_deletion(pods: &mut [PodView], colocated: &BTreeMap<String, usize>, now: Timestamp) {
    let on_node = |pod: &PodView| colocated.get(&pod.spec.node_name).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        let phase = |p: &PodView| match p.status.phase {
            Phase::Pending => 0,
            Phase::Unknown => 1,
            Phase::Running | Phase::Succeeded | Phase::Failed => 2,
        };
        (!a.spec.node_name.is_empty())
            .cmp(&!b.spec.node_name.is_empty())
            .then_with(|| phase(a).cmp(&phase(b)))
            .then_with(|| a.is_ready().cmp(&b.is_ready()))
            .then_with(|| a.deletion_cost().cmp(&b.deletion_cost()))
            .then_with(|| on_node(b).cmp(&on_node(a)))
            .then_with(|| younger_first(a, b, a.ready_since(), b.ready_since(), now))
            .then_with(|| b.max_restarts().cmp(&a.max_restarts()))
            .then_with(|| younger_first(a, b, a.created(), b.created(), now))
    });
}

/// Compares ages by their order of magnitude, so that among pods of about the same age the UID
/// decides and not the second in which they started.
fn younger_first(a: &PodView, b: &PodView, at: Option<Timestamp>, bt: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (at, bt) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(x), Some(y)) if x == y => Ordering::Equal,
        (Some(x), Some(y)) => magnitude(now, x).cmp(&magnitude(now, y)).then_with(|| a.index.uid.cmp(&b.index.uid)),
    }
}

fn magnitude(now: Timestamp, then: Timestamp) -> i64 {
    let nanos = now.duration_since(then).as_nanos();
    if nanos <= 0 { -1 } else { i64::from(nanos.ilog2()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PodBuilder, at, pod};

    #[track_caller]
    fn goes_first(first: PodBuilder, second: PodBuilder) {
        let (first, second) = (first.view(), second.view());
        let colocated = BTreeMap::from([("crowded".to_owned(), 3), ("n1".to_owned(), 1)]);
        for mut pods in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
            rank_for_deletion(&mut pods, &colocated, at(1_000_000));
            assert_eq!(pods[0].name(), first.name());
        }
    }

    fn running(name: &str) -> PodBuilder {
        pod(name).on("n1").running().ready(at(100_000)).created(at(100))
    }

    #[test]
    fn a_pod_that_cannot_be_read_is_not_left_out() {
        let sound = pod("sound").object();
        let mut damaged = pod("damaged").object();
        damaged.json = r#"{"metadata": {"name": "damaged"}, "spec": {"nodeName": 1}}"#.to_owned().into();
        assert_eq!(PodView::all([&sound]).unwrap().len(), 1);
        assert!(PodView::all([&sound, &damaged]).is_err(), "another would be made in its place");
    }

    #[test]
    fn deletion_prefers_what_is_missed_least() {
        goes_first(pod("unassigned"), pod("pending").on("n1"));
        goes_first(pod("pending").on("n1"), pod("unknown").on("n1").phase("Unknown"));
        goes_first(pod("unknown").on("n1").phase("Unknown"), pod("running").on("n1").running());
        goes_first(pod("not-ready").on("n1").running(), running("ready"));
        goes_first(running("cheap").annotation("controller.kubernetes.io/pod-deletion-cost", "-1"), running("normal"));
        goes_first(running("in-a-crowd").on("crowded"), running("alone"));
        goes_first(running("just-ready").ready(at(999_990)), running("long-ready"));
        goes_first(running("restarted").restarts(4), running("steady"));
        goes_first(running("young").created(at(999_990)), running("old"));
    }

    #[test]
    fn availability_counts_from_the_moment_of_readiness() {
        let ready = pod("a").on("n1").running().ready(at(100)).view();
        assert_eq!(ready.available_in(0, at(100)), Some(Duration::ZERO));
        assert_eq!(ready.available_in(10, at(103)), Some(Duration::from_secs(7)));
        assert!(ready.is_available(10, at(110)));
        assert_eq!(pod("b").on("n1").running().view().available_in(0, at(100)), None);
    }
}
