//! This node's own object: registration, status and lease; and the checks every ten seconds that
//! keep memory and disk from running out. The status waits for no work on the disk.

pub(crate) mod disk_use;
pub(crate) mod disk_walks;
mod eviction;
mod host_ports;
mod housekeeper;
mod image_gc;
mod lease;
mod limits;
mod machine;
mod pressure;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Backoff, EventType, kube, status as api_status};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use host_ports::HostPorts;
pub(crate) use host_ports::balanced;
use housekeeper::Housekeeper;
pub(crate) use machine::{Machine, meminfo};
pub(crate) use status::Pressure;

use crate::events;
use crate::kubelet::Kubelet;

/// Status, pressure and disk are looked at this often.
const CHECK: Duration = Duration::from_secs(10);

/// The housekeeper waits so long for the count of a pod, which may itself wait for the counts of others.
const PATIENCE: Duration = disk_walks::WALK_DEADLINE.saturating_mul(2);

/// The pod network's rules are looked at this often.
const REPAIR: Duration = Duration::from_secs(60);

/// Registers the node and keeps its object true until `token` is cancelled.
pub(crate) async fn run(kubelet: Arc<Kubelet>, token: CancellationToken) {
    let Some(registered) = token.run_until_cancelled(register(&kubelet)).await else { return };
    let name = kubelet.cfg.node_name.clone();
    let about = events::node(&name);
    kubelet.recorder.event(&about, EventType::Normal, "Starting", "Starting kubelet.");
    let lease = lease::keep(kubelet.cluster.clone(), kubelet.client.clone(), name, token.clone());
    let housekeeper = Housekeeper::new(kubelet.clone());
    let (node, host_ports) = registered;
    let keeper = Keeper::new(kubelet, node, host_ports);
    tokio::join!(lease, token.run_until_cancelled(housekeeper.run()), keeper.run(token.clone()));
}

/// Creates the Node object, or brings the labels of the one that is there up to date.
async fn register(kubelet: &Kubelet) -> (Node, HostPorts) {
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let mut failures = 0;
    loop {
        match try_register(kubelet, &api).await {
            Ok(registered) => {
                info!(node = kubelet.cfg.node_name, "node registered");
                return registered;
            }
            Err(e) => {
                warn!("node not registered, will retry: {}", api_status::message(&e));
                tokio::time::sleep(Backoff::CONNECT.delay(failures)).await;
                failures += 1;
            }
        }
    }
}

/// The node, and what it says of the host's ports as far as that is known to be so.
async fn try_register(kubelet: &Kubelet, api: &Api<Node>) -> kube::Result<(Node, HostPorts)> {
    let cfg = &kubelet.cfg;
    let labels = labels(kubelet);
    let host_ports = HostPorts::to_be_sent(kubelet).await;
    let mut annotations = host_ports.annotations(kubelet);
    annotations.insert("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(cfg.node_name.clone()),
            labels: Some(labels.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: cfg.pod_cidr.clone(),
            pod_cidrs: cfg.pod_cidr.clone().map(|c| vec![c]),
            taints: (!cfg.taints.is_empty()).then(|| cfg.taints.clone()),
            ..NodeSpec::default()
        }),
        ..Node::default()
    };
    match api.create(&PostParams::default(), &node).await {
        Err(e) if api_status::is_already_exists(&e) => {}
        other => return other.map(|node| (node, host_ports)),
    }
    let there = api.get(&cfg.node_name).await?;
    let current = there.metadata.labels.clone().unwrap_or_default();
    if labels.iter().all(|(k, v)| current.get(k) == Some(v)) {
        return Ok((there, HostPorts::default()));
    }
    let patch = json!({ "metadata": { "labels": labels } });
    let node = api.patch(&cfg.node_name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok((node, HostPorts::default()))
}

fn labels(kubelet: &Kubelet) -> BTreeMap<String, String> {
    let arch = kubelet.machine.architecture;
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", kubelet.cfg.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    labels.extend(kubelet.cfg.labels.clone());
    labels
}

struct Keeper {
    kubelet: Arc<Kubelet>,
    /// As the API server has it.
    sent: NodeStatus,
    /// Of the Node when that was so.
    revision: Option<String>,
    sent_at: Option<Instant>,
    pressure: pressure::Watch,
    host_ports: HostPorts,
    repaired_at: Option<Instant>,
    /// As was told last.
    unschedulable: bool,
}

impl Keeper {
    fn new(kubelet: Arc<Kubelet>, node: Node, host_ports: HostPorts) -> Self {
        let sent = node.status.unwrap_or_default();
        let before = sent.node_info.as_ref().map(|i| i.boot_id.clone()).filter(|id| !id.is_empty());
        let now = &kubelet.machine.boot_id;
        if before.is_some_and(|before| before != *now) {
            let name = &kubelet.cfg.node_name;
            let message = format!("Node {name} has been rebooted, boot id: {now}");
            kubelet.recorder.event(&events::node(name), EventType::Warning, "Rebooted", &message);
        }
        Self {
            kubelet,
            sent,
            revision: None,
            sent_at: None,
            pressure: pressure::Watch::default(),
            host_ports,
            repaired_at: None,
            unschedulable: false,
        }
    }

    async fn run(mut self, token: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // Before the node is ready: a Service that takes it for its load balancer must know.
            self.host_ports.publish(&self.kubelet).await;
            let pressure = self.pressure.check(&self.kubelet).await;
            *self.kubelet.pressure.lock() = pressure;
            if let Err(e) = self.post_status(pressure).await {
                warn!("node status not posted, will retry: {}", api_status::message(&e));
            }
            self.repair_network().await;
        }
    }

    /// Somebody may have flushed the rules of the pod network.
    async fn repair_network(&mut self) {
        if self.repaired_at.is_some_and(|at| at.elapsed() < REPAIR) {
            return;
        }
        self.repaired_at = Some(Instant::now());
        if let Err(e) = self.kubelet.network.repair().await {
            warn!("pod network not repaired, will retry: {e}");
        }
    }

    /// As upstream every ten seconds: what others have written over is to be put right.
    fn see_changes_of_others(&mut self) {
        // Unread it is written over whole, as what it was last known to be.
        let Ok(Some(node)) = self.kubelet.cluster.get::<Node>("", &self.kubelet.cfg.node_name) else { return };
        let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        if let Some(reason) =
            schedulable_event(std::mem::replace(&mut self.unschedulable, unschedulable), unschedulable)
        {
            self.tell(reason);
        }
        if node.metadata.resource_version != self.revision {
            self.revision = node.metadata.resource_version;
            self.sent = node.status.unwrap_or_default();
        }
    }

    fn tell(&self, reason: &str) {
        let name = &self.kubelet.cfg.node_name;
        let message = format!("Node {name} status is now: {reason}");
        self.kubelet.recorder.event(&events::node(name), EventType::Normal, reason, &message);
    }

    async fn post_status(&mut self, pressure: Pressure) -> kube::Result<()> {
        let kubelet = Arc::clone(&self.kubelet);
        self.see_changes_of_others();
        let wanted = status::compute(status::Inputs {
            cfg: &kubelet.cfg,
            machine: &kubelet.machine,
            allocatable: &kubelet.allocatable,
            images: kubelet.runtime.list_images(),
            pressure,
            old: &self.sent,
            now: Timestamp::now(),
        });
        let due = self.sent_at.is_none_or(|at| at.elapsed() >= status::HEARTBEAT);
        let Some(patch) = status::patch(&self.sent, &wanted, due) else { return Ok(()) };
        let api: Api<Node> = Api::all(kubelet.client.clone());
        let name = &kubelet.cfg.node_name;
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(node) => self.revision = node.metadata.resource_version,
            Err(e) if api_status::is_not_found(&e) => {
                // Somebody deleted it: a node that lives comes back.
                (_, self.host_ports) = register(&kubelet).await;
                self.sent = NodeStatus::default();
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        for reason in status::condition_events(&self.sent, &wanted) {
            self.tell(reason);
        }
        self.sent = wanted;
        self.sent_at = Some(Instant::now());
        Ok(())
    }
}

/// What is told of a node that was cordoned or uncordoned.
fn schedulable_event(was_unschedulable: bool, is_unschedulable: bool) -> Option<&'static str> {
    match (was_unschedulable, is_unschedulable) {
        (false, true) => Some("NodeNotSchedulable"),
        (true, false) => Some("NodeSchedulable"),
        (false, false) | (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordon_is_told_once() {
        assert_eq!(schedulable_event(false, true), Some("NodeNotSchedulable"));
        assert_eq!(schedulable_event(true, true), None);
        assert_eq!(schedulable_event(true, false), Some("NodeSchedulable"));
        assert_eq!(schedulable_event(false, false), None);
    }
}
