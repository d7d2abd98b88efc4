//! The scheduler's picture of the cluster: nodes with their pods, assumed ones included.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::core::node_ports::Port;
use api::object::ObjectKey;

use crate::node_info::{NodeInfo, NodeView};
use crate::pod_info::PodInfo;
use crate::terms::Labels;

/// Nodes by name; pods by UID on them.
#[derive(Default)]
pub(crate) struct Cache {
    nodes: BTreeMap<Arc<str>, NodeInfo>,
    /// On which node each pod is.
    places: HashMap<Arc<str>, Arc<str>>,
    /// Labels of namespaces, for affinity terms that select namespaces.
    pub namespaces: HashMap<Arc<str>, Labels>,
    /// What Services of type LoadBalancer have of nodes' addresses.
    balancers: HashMap<ObjectKey, BTreeSet<(IpAddr, Port)>>,
    /// Pods that preempted others and wait for a node, with that node's name.
    nominated: HashMap<Arc<str>, (Arc<str>, Arc<PodInfo>)>,
}

impl Cache {
    /// Nodes that exist.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&NodeView, &NodeInfo)> {
        self.nodes.values().filter_map(|info| info.node.as_ref().map(|view| (view, info)))
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// All pods that have a node.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&NodeView, &Arc<PodInfo>)> {
        self.nodes().flat_map(|(view, info)| info.pods.values().map(move |pod| (view, pod)))
    }

    /// The old view, if there was one.
    pub(crate) fn set_node(&mut self, view: NodeView) -> Option<NodeView> {
        self.nodes.entry(view.index.key.name.clone()).or_default().node.replace(view)
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    pub(crate) fn balanced(&self) -> impl Iterator<Item = &(IpAddr, Port)> {
        self.balancers.values().flatten()
    }

    /// Whether the Service has given up any of what it had.
    pub(crate) fn set_balanced(&mut self, service: &ObjectKey, has: BTreeSet<(IpAddr, Port)>) -> bool {
        if has.is_empty() {
            return self.balancers.remove(service).is_some();
        }
        let had = self.balancers.entry(service.clone()).or_default();
        let gave_up = !had.is_subset(&has);
        *had = has;
        gave_up
    }

    /// Puts the pod on a node, or moves it there.
    pub(crate) fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        let uid = pod.index.uid.clone();
        if self.places.get(&uid).is_some_and(|at| **at != *node) {
            self.remove_pod(&uid);
        }
        self.nominated.remove(&uid);
        let name: Arc<str> = node.into();
        self.places.insert(uid, name.clone());
        self.nodes.entry(name).or_default().add(pod);
    }

    /// Takes the pod off its node; whether it was on one.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        self.nominated.remove(uid);
        let Some(name) = self.places.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&name) {
            info.remove(uid);
            if info.pods.is_empty() && info.node.is_none() {
                self.nodes.remove(&name);
            }
        }
        true
    }

    pub(crate) fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let name = self.places.get(uid)?;
        self.nodes.get(name)?.pods.get(uid)
    }

    pub(crate) fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominated.insert(pod.index.uid.clone(), (node.into(), pod));
    }

    pub(crate) fn forget_nomination(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// Pods nominated to the node that come before a pod of this priority.
    pub(crate) fn nominated_to<'a>(
        &'a self,
        node: &'a str,
        priority: i32,
        except: &'a str,
    ) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.nominated
            .values()
            .filter(move |(at, pod)| **at == *node && pod.priority >= priority && pod.uid() != except)
            .map(|(_, pod)| pod)
    }
}
