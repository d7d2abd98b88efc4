//! Which load balancers get which nodes' addresses: a port of a node's address is given once, and never
//! one that the node itself listens on or that leads to a pod. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::core::node_ports::{LISTENING, Port, RESERVED, read};
use api::object::ObjectKey;
use k8s_openapi::api::core::v1::{Container, LoadBalancerIngress, Node, Pod, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A node as a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Balancer {
    name: String,
    addresses: Vec<IpAddr>,
    /// Ports that are the node's own.
    own: BTreeSet<Port>,
    /// Ports of its addresses that lead to pods.
    held: BTreeMap<Port, Holder>,
}

/// The pod that has a port of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    pod: ObjectKey,
    /// The node took it. One that was only put there may be refused for the port.
    runs: bool,
}

impl Balancer {
    /// The node's external addresses if it has any, else its internal ones; nothing while it is not
    /// ready or excluded.
    pub(super) fn of(node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let excluded = node.metadata.labels.as_ref().is_some_and(|l| l.contains_key(EXCLUDE_LABEL));
        if !ready || excluded || node.metadata.deletion_timestamp.is_some() {
            return Self::default();
        }
        let all = status.addresses.unwrap_or_default();
        let of = |kind: &str| -> Vec<IpAddr> {
            all.iter().filter(|a| a.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
        };
        let external = of("ExternalIP");
        let kubelet = status.daemon_endpoints.and_then(|d| d.kubelet_endpoint).and_then(|e| Port::of(e.port, None));
        let mut own = read(&node.metadata, RESERVED);
        own.extend(read(&node.metadata, LISTENING));
        own.extend(kubelet);
        let addresses = if external.is_empty() { of("InternalIP") } else { external };
        Self { name: node.metadata.name.clone().unwrap_or_default(), addresses, own, held: BTreeMap::new() }
    }

    /// The node with what its pods have of its ports.
    pub(super) fn with_pods(mut self, pods: &[Pod]) -> Self {
        let here = |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&*self.name);
        for pod in pods.iter().filter(here) {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                continue;
            }
            let runs = phase == Some("Running");
            let text = |name: &Option<String>| name.clone().unwrap_or_default();
            let key = ObjectKey::new(&text(&pod.metadata.namespace), &text(&pod.metadata.name));
            for (ip, port) in host_ports(pod) {
                let reaches = ip.is_none_or(|ip| self.addresses.contains(&ip));
                if reaches && !self.held.get(&port).is_some_and(|holder| holder.runs) {
                    self.held.insert(port, Holder { pod: key.clone(), runs });
                }
            }
        }
        self
    }

    /// Why the node is no load balancer for this Service. One that serves gives way to a pod that runs alone.
    fn refuses(&self, candidate: &Candidate) -> Option<InUse> {
        candidate.ports.iter().find_map(|port| {
            if self.own.contains(port) {
                return Some(InUse::ByNodes(*port));
            }
            let holder = self.held.get(port).filter(|holder| holder.runs || !candidate.serves)?;
            Some(InUse::ByPod(*port, holder.pod.clone()))
        })
    }
}

/// Ports of the node that lead to the pod: at one address, or at all.
pub(super) fn host_ports(pod: &Pod) -> Vec<(Option<IpAddr>, Port)> {
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten().filter(sidecar)));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let ip = p.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified());
            Some((ip, Port::of(p.host_port?, p.protocol.as_deref())?))
        })
        .collect()
}

/// A Service of type LoadBalancer that is this controller's to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    key: ObjectKey,
    created: Option<Time>,
    ports: BTreeSet<Port>,
    families: Vec<String>,
    /// It has addresses already.
    serves: bool,
}

impl Candidate {
    pub(super) fn of(key: &ObjectKey, service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref().filter(|spec| is_ours(spec))?;
        if service.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let ports = spec.ports.iter().flatten().filter_map(|p| Port::of(p.port, p.protocol.as_deref()));
        Some(Self {
            key: key.clone(),
            created: service.metadata.creation_timestamp.clone(),
            ports: ports.collect(),
            families: spec.ip_families.clone().unwrap_or_default(),
            serves: !ingress_of(service).is_empty(),
        })
    }
}

/// A load balancer; one of a class is somebody else's to serve.
pub(super) fn is_ours(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

pub(super) fn ingress_of(service: &Service) -> Vec<LoadBalancerIngress> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    balancer.and_then(|l| l.ingress.clone()).unwrap_or_default()
}

/// Why a Service waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InUse {
    ByNodes(Port),
    By(Port, ObjectKey),
    ByPod(Port, ObjectKey),
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByNodes(port) => write!(f, "port {port} is in use by the nodes themselves"),
            Self::By(port, key) => write!(f, "port {port} is in use by Service {}/{}", key.namespace, key.name),
            Self::ByPod(port, key) => write!(f, "port {port} is in use by Pod {}/{}", key.namespace, key.name),
        }
    }
}

/// The addresses of each Service. Those that have some keep them; then the oldest comes first.
pub(super) fn assign(
    mut candidates: Vec<Candidate>,
    nodes: &[Balancer],
) -> BTreeMap<ObjectKey, Result<Vec<LoadBalancerIngress>, InUse>> {
    candidates.sort_by(|a, b| (!a.serves, &a.created, &a.key).cmp(&(!b.serves, &b.created, &b.key)));
    let mut given: BTreeMap<Port, ObjectKey> = BTreeMap::new();
    let mut assigned = BTreeMap::new();
    for candidate in candidates {
        let result = addresses(&candidate, nodes, &given);
        if result.is_ok() {
            given.extend(candidate.ports.iter().map(|port| (*port, candidate.key.clone())));
        }
        assigned.insert(candidate.key, result.map(ingress));
    }
    assigned
}

fn addresses(
    candidate: &Candidate,
    nodes: &[Balancer],
    given: &BTreeMap<Port, ObjectKey>,
) -> Result<BTreeSet<IpAddr>, InUse> {
    if let Some((port, by)) = candidate.ports.iter().find_map(|port| Some((*port, given.get(port)?))) {
        return Err(InUse::By(port, by.clone()));
    }
    let serves = |ip: &IpAddr| {
        let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        candidate.families.is_empty() || candidate.families.iter().any(|f| f == family)
    };
    let (mut free, mut taken) = (BTreeSet::new(), None);
    for node in nodes.iter().filter(|node| node.addresses.iter().any(serves)) {
        match node.refuses(candidate) {
            None => free.extend(node.addresses.iter().copied().filter(serves)),
            Some(why) => taken = Some(why),
        }
    }
    match taken {
        Some(why) if free.is_empty() => Err(why),
        Some(_) | None => Ok(free),
    }
}

fn ingress(addresses: BTreeSet<IpAddr>) -> Vec<LoadBalancerIngress> {
    let point = |ip: IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        hostname: None,
        ports: None,
    };
    addresses.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(addresses: &[(&str, &str)], listening: &str) -> Balancer {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": {RESERVED: "6443/TCP,10250/TCP", LISTENING: listening}},
            "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}},
        }))
        .unwrap();
        Balancer::of(&node)
    }

    /// A Service with these ports, created at a second; it serves when it has an address.
    fn candidate(name: &str, second: u32, ports: &[&str], serves: bool) -> Candidate {
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| port.split_once('/').unwrap())
            .map(|(number, protocol)| json!({"port": number.parse::<i32>().unwrap(), "protocol": protocol}))
            .collect();
        let ingress = if serves { json!([{"ip": "192.0.2.1"}]) } else { json!([]) };
        let service = serde_json::from_value(json!({
            "metadata": {"creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": ports},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap();
        Candidate::of(&ObjectKey::new("prod", name), &service).unwrap()
    }

    #[track_caller]
    fn check(candidates: Vec<Candidate>, nodes: &[Balancer], expected: &[(&str, Result<&[&str], &str>)]) {
        let got = assign(candidates, nodes);
        let got: Vec<(String, Result<Vec<String>, String>)> = got
            .into_iter()
            .map(|(key, result)| {
                let ips = result.map(|list| list.into_iter().filter_map(|i| i.ip).collect());
                (key.name.to_string(), ips.map_err(|e| e.to_string()))
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, result)| {
                let ips = result.map(|ips| ips.iter().map(|ip| (*ip).to_owned()).collect());
                ((*name).to_owned(), ips.map_err(str::to_owned))
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_nodes_own_ports_are_no_load_balancers() {
        let nodes = [node(&[("InternalIP", "192.0.2.9"), ("InternalIP", "2001:db8::1")], "22/TCP,53/UDP")];
        for (port, own) in [("22/TCP", true), ("6443/TCP", true), ("10250/TCP", true), ("53/UDP", true)] {
            let message = format!("port {port} is in use by the nodes themselves");
            let expected = if own { Err(message.as_str()) } else { Ok(&["192.0.2.9"][..]) };
            check(vec![candidate("web", 0, &["80/TCP", port], false)], &nodes, &[("web", expected)]);
        }
        check(
            vec![candidate("web", 0, &["80/TCP", "22/UDP", "53/TCP"], false)],
            &nodes,
            &[("web", Ok(&["192.0.2.9"]))],
        );
    }

    #[test]
    fn a_node_whose_port_is_free_serves() {
        let nodes = [
            node(&[("InternalIP", "192.0.2.9")], "80/TCP"),
            node(&[("InternalIP", "192.0.2.8"), ("ExternalIP", "198.51.100.8")], ""),
        ];
        check(vec![candidate("web", 0, &["80/TCP"], false)], &nodes, &[("web", Ok(&["198.51.100.8"]))]);
        check(vec![candidate("web", 0, &["81/TCP"], false)], &nodes, &[("web", Ok(&["192.0.2.9", "198.51.100.8"]))]);
        check(vec![candidate("web", 0, &["80/TCP"], false)], &[], &[("web", Ok(&[]))]);
    }

    #[test]
    fn a_port_is_given_to_one_service() {
        let nodes = [node(&[("InternalIP", "192.0.2.9")], "22/TCP")];
        let one: &[&str] = &["192.0.2.9"];
        let by = |name: &str| format!("port 80/TCP is in use by Service prod/{name}");
        // The older one first, and other protocols and ports beside it.
        check(
            vec![
                candidate("a", 2, &["80/TCP"], false),
                candidate("b", 1, &["80/TCP"], false),
                candidate("c", 3, &["80/UDP", "81/TCP"], false),
            ],
            &nodes,
            &[("a", Err(&by("b"))), ("b", Ok(one)), ("c", Ok(one))],
        );
        // One that serves keeps its port, however young it is.
        check(
            vec![candidate("a", 2, &["80/TCP"], true), candidate("b", 1, &["80/TCP"], false)],
            &nodes,
            &[("a", Ok(one)), ("b", Err(&by("a")))],
        );
        // One that waits for another reason holds nothing.
        check(
            vec![candidate("a", 1, &["22/TCP", "80/TCP"], false), candidate("b", 2, &["80/TCP"], false)],
            &nodes,
            &[("a", Err("port 22/TCP is in use by the nodes themselves")), ("b", Ok(one))],
        );
    }

    #[test]
    fn a_port_that_leads_to_a_pod_is_no_load_balancers() {
        let pod = |node: &str, phase: &str, port: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "prod", "name": "ingress"},
                "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [port]}]}, "status": {"phase": phase}}))
            .unwrap()
        };
        let http = json!({"containerPort": 8080, "hostPort": 80, "protocol": "TCP"});
        let at = |ip: &str| json!({"containerPort": 8080, "hostPort": 80, "hostIP": ip});
        let (yes, no) = (Ok(&["192.0.2.9"][..]), Err("port 80/TCP is in use by Pod prod/ingress"));
        for (pod, serves, expected) in [
            (pod("n", "Running", http.clone()), false, no),
            (pod("n", "Pending", http.clone()), false, no),
            (pod("n", "Running", http.clone()), true, no),
            // The node may refuse it yet.
            (pod("n", "Pending", http.clone()), true, yes),
            (pod("n", "Failed", http.clone()), false, yes),
            (pod("other", "Running", http.clone()), false, yes),
            (pod("n", "Running", at("192.0.2.9")), false, no),
            (pod("n", "Running", at("0.0.0.0")), false, no),
            (pod("n", "Running", at("127.0.0.1")), false, yes),
            (pod("n", "Running", json!({"containerPort": 80})), false, yes),
            (pod("n", "Running", json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"})), false, yes),
        ] {
            let node = node(&[("InternalIP", "192.0.2.9")], "").with_pods(std::slice::from_ref(&pod));
            check(vec![candidate("web", 0, &["80/TCP"], serves)], &[node], &[("web", expected)]);
        }
    }

    #[test]
    fn only_load_balancers_without_a_class_are_ours() {
        let spec = |body: Value| serde_json::from_value::<ServiceSpec>(body).unwrap();
        assert!(is_ours(&spec(json!({"type": "LoadBalancer"}))));
        assert!(!is_ours(&spec(json!({"type": "NodePort"}))));
        assert!(!is_ours(&spec(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}))));
    }
}
