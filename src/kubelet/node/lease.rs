//! The node's lease: proof of life for the node lifecycle controller. Only `renewTime` changes, so
//! that the store need not write each renewal through.

use std::time::Duration;

use api::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use api::k8s_openapi::api::core::v1::Node;
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use api::object::{GroupResource, ObjectKey};
use client::{Backoff, Cluster, kube, status};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(200), factor: 2.0, max: Duration::from_secs(7), jitter: 0.1 };

pub(super) async fn keep(cluster: Cluster, client: kube::Client, node: String, token: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut failures = 0;
    loop {
        let pause = match renew(&cluster, &api, &node).await {
            Ok(()) => {
                failures = 0;
                RENEW_EVERY
            }
            Err(e) => {
                // In the first moments the namespace may not be there yet.
                if failures > 3 {
                    warn!("node lease not renewed, will retry: {}", status::message(&e));
                }
                failures += 1;
                RETRY.delay(failures - 1)
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn renew(cluster: &Cluster, api: &Api<Lease>, node: &str) -> kube::Result<()> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({ "spec": { "renewTime": now } });
    match api.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(e) if status::is_not_found(&e) => {}
        // It says no more than what follows: a damaged one is replaced, else the node would count as dead.
        Err(_) if cluster.source().is_unreadable(&GroupResource::of::<Lease>(), &ObjectKey::new(NAMESPACE, node)) => {}
        other => return other.map(drop),
    }
    let owner = cluster.get::<Node>("", node)?.map(|n| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: n.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
