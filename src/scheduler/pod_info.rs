//! What the scheduler remembers of a pod: a small projection, not the pod.

use std::net::IpAddr;
use std::sync::Arc;

use api::k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use api::object::{Object, ObjectIndex};
use jiff::Timestamp;

use crate::resources::{Resources, requested, scored, with_held};
use crate::terms::AffinityTerm;

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

impl HostPort {
    /// An address of all zeros stands for every address.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == "0.0.0.0" || &*other.ip == "0.0.0.0")
    }

    /// Whether this address of the node is among those that it asks for.
    pub(crate) fn takes_of(&self, ip: IpAddr) -> bool {
        self.ip.parse::<IpAddr>().is_ok_and(|own| own.is_unspecified() || own == ip)
    }
}

/// A preferred term with its weight; negative for anti-affinity.
#[derive(Clone, Debug)]
pub(crate) struct WeightedTerm {
    pub term: AffinityTerm,
    pub weight: i64,
}

/// A pod's demands on nodes and on other pods.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub index: Arc<ObjectIndex>,
    pub requested: Resources,
    pub scored: Resources,
    pub ports: Vec<HostPort>,
    pub priority: i32,
    pub started: Option<Timestamp>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred: Vec<WeightedTerm>,
}

impl PodInfo {
    pub(crate) fn new(object: &Object, pod: &Pod) -> Self {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let held = with_held(spec, pod.status.as_ref());
        let terms = Terms::parse(spec, &object.index);
        Self {
            index: object.index.clone(),
            requested: requested(&held),
            scored: scored(&held),
            ports: host_ports(spec),
            priority: spec.priority.unwrap_or(0),
            started: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            affinity: terms.required,
            anti_affinity: terms.required_anti,
            preferred: terms.preferred,
        }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.index.uid
    }
}

struct Terms {
    required: Vec<AffinityTerm>,
    required_anti: Vec<AffinityTerm>,
    preferred: Vec<WeightedTerm>,
}

impl Terms {
    fn parse(spec: &PodSpec, index: &ObjectIndex) -> Self {
        let affinity = spec.affinity.as_ref();
        let with = affinity.and_then(|a| a.pod_affinity.as_ref());
        let against = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let parse = |t: &PodAffinityTerm| AffinityTerm::parse(t, &index.key.namespace, &index.labels);
        let weigh = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<WeightedTerm> {
            let weighted = terms.into_iter().flatten();
            weighted
                .map(|w| WeightedTerm { term: parse(&w.pod_affinity_term), weight: sign * i64::from(w.weight) })
                .collect()
        };
        let mut preferred =
            weigh(with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        preferred
            .extend(weigh(against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1));
        Self {
            required: with
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(parse)
                .collect(),
            required_anti: against
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(parse)
                .collect(),
            preferred,
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|&p| p > 0)?;
            let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some(HostPort { ip: ip.into(), protocol: p.protocol.as_deref().unwrap_or("TCP").into(), port })
        })
        .collect()
}
