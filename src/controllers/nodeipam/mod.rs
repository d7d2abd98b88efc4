//! Every node gets a /24 of the cluster's pod network.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use api::object::ObjectKey;
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::api::Patch;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::pod_control;

const ACCOUNT: &str = "node-controller";
const NODE_PREFIX: u8 = 24;

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
    network: Ipv4Net,
    /// Given out by this process; a source that lags must not make it give one out twice.
    given: Mutex<HashMap<ObjectKey, Ipv4Net>>,
}

/// Runs the node IPAM controller until cancelled.
pub(crate) async fn run(cluster: Cluster, network: Ipv4Net, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), "node-ipam-controller", "");
    let reconciler = Reconciler { cluster: cluster.clone(), recorder, network, given: Mutex::default() };
    // One worker: two must not choose the same network.
    Controller::new(reconciler, cluster, client).watches::<Node>(come_and_gone).run(token).await;
}

fn come_and_gone(change: &Change) -> Vec<ObjectKey> {
    match change {
        Change::Applied { object, old: None } | Change::Deleted { object } => vec![object.index.key.clone()],
        Change::Applied { .. } | Change::Synced | Change::Resync => Vec::new(),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    spec: Spec,
}

api::decode!(Body);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "node-ipam-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let mut used = HashMap::new();
        for node in self.cluster.objects::<Node>(&Query::ALL) {
            // The network of a node that cannot be read would be given to another one.
            let body: Body = node.decode().map_err(kube::Error::SerdeError)?;
            let cidr = body.spec.pod_cidr.and_then(|c| c.parse::<Ipv4Net>().ok());
            used.insert(node.index.key.clone(), cidr);
        }
        let chosen = {
            let mut given = self.given.lock();
            given.retain(|node, _| used.contains_key(node));
            match used.get(key) {
                // The node is gone, or has its network.
                None | Some(Some(_)) => return Ok(Outcome::Done),
                Some(None) => {}
            }
            let taken: Vec<Ipv4Net> = used.values().flatten().chain(given.values()).copied().collect();
            let chosen = given.get(key).copied().or_else(|| first_free(self.network, &taken));
            chosen.inspect(|&cidr| {
                given.insert(key.clone(), cidr);
            })
        };
        let Some(cidr) = chosen else {
            if let Some(node) = self.cluster.get::<Node>("", &key.name)? {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.recorder.event(&pod_control::reference(&node), EventType::Normal, "CIDRNotAvailable", &message);
            }
            return Ok(Outcome::Done);
        };
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        w.patch::<Node, _>("", &key.name, &Patch::Merge(patch)).await?;
        Ok(Outcome::Done)
    }
}

fn first_free(network: Ipv4Net, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let first = u32::from(network.network());
    let last = u32::from(network.broadcast());
    let size = 1_u32 << (32 - NODE_PREFIX);
    (first..=last)
        .step_by(size as usize)
        .filter_map(|address| Ipv4Net::new(Ipv4Addr::from(address), NODE_PREFIX).ok())
        .find(|cidr| !taken.iter().any(|t| t.contains(cidr) || cidr.contains(t)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_network_is_given() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let all = net("10.244.0.0/16");
        assert_eq!(first_free(all, &[]), Some(net("10.244.0.0/24")));
        assert_eq!(first_free(all, &[net("10.244.0.0/24"), net("10.244.2.0/24")]), Some(net("10.244.1.0/24")));
        assert_eq!(first_free(all, &[net("10.244.0.0/23")]), Some(net("10.244.2.0/24")));
        assert_eq!(first_free(net("10.1.0.0/24"), &[net("10.1.0.0/24")]), None);
    }
}
