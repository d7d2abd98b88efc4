//! Marks the server's own node as `control-plane`. A kubelet may not give itself a role (the
//! NodeRestriction admission), so whoever installs the control plane does, as kubeadm would.

use api::k8s_openapi::api::core::v1::Node;
use client::{Change, Cluster, status};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const ROLE: &str = "node-role.kubernetes.io/control-plane";

/// Labels the node whenever it appears without the role, until cancelled.
pub(super) async fn keep(cluster: Cluster, node: String, token: CancellationToken) {
    let client = cluster.as_user("system:coracle-installer", &["system:masters"]);
    let nodes: Api<Node> = Api::all(client);
    let patch = json!({ "metadata": { "labels": { ROLE: "" } } });
    let mut changes = cluster.subscribe::<Node>();
    while let Some(Some(change)) = token.run_until_cancelled(changes.next()).await {
        let Change::Applied { object, .. } = change else { continue };
        if *object.index.key.name != *node || object.index.labels.contains_key(ROLE) {
            continue;
        }
        if let Err(e) = nodes.patch(&node, &PatchParams::default(), &Patch::Merge(&patch)).await {
            warn!("the node's role could not be set: {}", status::message(&e));
        }
    }
    token.cancelled().await;
}
