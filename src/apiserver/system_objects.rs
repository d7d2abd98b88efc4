//! The objects that the server itself keeps: the bootstrap policy, the system priority classes, and
//! its services.

use std::sync::Arc;
use std::time::Duration;

use api::codec::{Decode, Encode};
use api::object::{GroupResource, ObjectKey};
use futures::future::{BoxFuture, select_all, try_join_all};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::auth::bootstrap::{self, reconcile};
use crate::config::Config;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::ApiServer;
use crate::system_services::{API, DNS, api_service, dns_service, endpoint_slice, endpoints, service_cidr};

/// Two who disagree about an object must not spin.
const SETTLE: Duration = Duration::from_secs(1);
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
const RBAC: &str = "rbac.authorization.k8s.io";
const PRIORITY_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// A write that waits for its commit. All of them wait together, so that the first start of a cluster
/// costs a few commits and not one for each object.
type Pending<'a> = BoxFuture<'a, Result<(), ApiError>>;

/// Creates what is missing and brings the rest up to date.
///
/// # Errors
/// When the store fails.
pub(crate) async fn ensure(registry: &Registry, config: &Config) -> Result<(), ApiError> {
    let mut writes: Vec<Pending<'_>> = policy(registry)?;
    for (name, value, description) in PRIORITY_CLASSES {
        let class = json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        });
        let classes = GroupResource::new("scheduling.k8s.io", "priorityclasses");
        writes.push(Box::pin(create(registry, classes, class)));
    }
    writes.push(Box::pin(services(registry, config)));
    try_join_all(writes).await.map(drop)
}

impl ApiServer {
    /// Puts the server's services and their endpoints right whenever somebody changes them, until
    /// cancelled.
    pub async fn keep_system_objects(self: Arc<Self>, cancel: CancellationToken) {
        let keep = async {
            loop {
                // Subscribed before the look, so that no change falls between the two.
                let changed = changed(&self.registry);
                if let Err(error) = services(&self.registry, &self.config).await {
                    tracing::warn!(%error, "cannot keep the services kubernetes and kube-dns");
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                    continue;
                }
                changed.await;
                tokio::time::sleep(SETTLE).await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = keep => {}
        }
    }
}

/// Ends when one of the objects of [`services`] changes.
fn changed(registry: &Registry) -> impl Future<Output = ()> + use<> {
    let after = registry.storage().revision();
    let kept = [
        ("", "services", "default", API),
        ("", "services", "kube-system", DNS),
        ("", "endpoints", "default", API),
        ("discovery.k8s.io", "endpointslices", "default", API),
        ("networking.k8s.io", "servicecidrs", "", API),
    ];
    let changes = kept.into_iter().filter_map(|(group, resource, namespace, name)| {
        let mut watch = registry.watch(registry.resources().get(group, resource)?, after).ok()?;
        Some(Box::pin(async move {
            // A watch that fell behind may have missed the change.
            while let Ok(events) = watch.next().await {
                let keys = events.iter().map(|event| &event.entry.index.key);
                if keys.into_iter().any(|key| &*key.namespace == namespace && &*key.name == name) {
                    return;
                }
            }
        }))
    });
    let changes: Vec<_> = changes.collect();
    async move { drop(select_all(changes).await) }
}

fn policy(registry: &Registry) -> Result<Vec<Pending<'_>>, ApiError> {
    let mut writes = Vec::new();
    let resource = |name| GroupResource::new(RBAC, name);
    for role in bootstrap::cluster_roles() {
        writes.push(reconcile(registry, resource("clusterroles"), "ClusterRole", role, reconcile::role)?);
    }
    for role in bootstrap::roles() {
        writes.push(reconcile(registry, resource("roles"), "Role", role, reconcile::role)?);
    }
    for binding in bootstrap::cluster_role_bindings() {
        let bindings = resource("clusterrolebindings");
        writes.push(reconcile(registry, bindings, "ClusterRoleBinding", binding, reconcile::binding)?);
    }
    for binding in bootstrap::role_bindings() {
        writes.push(reconcile(registry, resource("rolebindings"), "RoleBinding", binding, reconcile::binding)?);
    }
    Ok(writes)
}

/// Decides now; what comes of it writes.
fn reconcile<'a, K: Decode + Encode>(
    registry: &'a Registry,
    resource: GroupResource,
    kind: &str,
    wanted: K,
    decide: impl FnOnce(Option<K>, K) -> reconcile::Step<K>,
) -> Result<Pending<'a>, ApiError> {
    let complete = |object: &K| -> Result<Value, ApiError> {
        let mut value = object.to_value().map_err(ApiError::internal)?;
        value["kind"] = json!(kind);
        value["apiVersion"] = json!(format!("{RBAC}/v1"));
        Ok(value)
    };
    let key = key_of(&complete(&wanted)?);
    let stored = registry.get(&resource, &key).map(|o| o.decode::<K>()).transpose().map_err(ApiError::internal)?;
    Ok(match decide(stored, wanted) {
        reconcile::Step::Nothing => Box::pin(async { Ok(()) }),
        reconcile::Step::Create(object) => Box::pin(create(registry, resource, complete(&object)?)),
        reconcile::Step::Update(object) => {
            let new = complete(&object)?;
            Box::pin(async move {
                let change = |stored: &mut Value| {
                    stored.clone_from(&new);
                    Ok(())
                };
                registry.update(&resource, &key, change).await.map(drop)
            })
        }
        reconcile::Step::Recreate(object) => {
            let new = complete(&object)?;
            Box::pin(async move {
                registry.remove(&resource, &key).await?;
                create(registry, resource, new).await
            })
        }
    })
}

fn key_of(object: &Value) -> ObjectKey {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

/// Creates an object unless there is one of its name.
async fn create(registry: &Registry, resource: GroupResource, object: Value) -> Result<(), ApiError> {
    if registry.get(&resource, &key_of(&object)).is_some() {
        return Ok(());
    }
    match registry.create(&resource, object).await {
        Ok(_) | Err(ApiError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn services(registry: &Registry, config: &Config) -> Result<(), ApiError> {
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let cidrs = GroupResource::new("networking.k8s.io", "servicecidrs");
    tokio::try_join!(
        create(registry, cidrs, service_cidr(config)),
        create(registry, GroupResource::new("", "services"), api_service(config)),
        keep_dns(registry, dns_service(config)),
        keep(registry, GroupResource::new("", "endpoints"), endpoints(config), "subsets"),
        keep(registry, slices, endpoint_slice(config), "endpoints"),
    )
    .map(drop)
}

/// A Service of this name at another address is somebody else's, from before the name was kept.
async fn keep_dns(registry: &Registry, wanted: Value) -> Result<(), ApiError> {
    let services = GroupResource::new("", "services");
    if let Some(stored) = registry.get(&services, &key_of(&wanted)) {
        let stored: Value = serde_json::from_slice(&stored.json).map_err(ApiError::internal)?;
        if stored["spec"]["clusterIP"] != wanted["spec"]["clusterIP"] {
            tracing::warn!(address = %wanted["spec"]["clusterIP"], "a Service kube-dns with another address stays");
            return Ok(());
        }
    }
    keep(registry, services, wanted, "spec").await
}

/// Creates the object, or puts the given part of it and its ports right.
async fn keep(registry: &Registry, resource: GroupResource, wanted: Value, part: &str) -> Result<(), ApiError> {
    let key = key_of(&wanted);
    let Some(stored) = registry.get(&resource, &key) else { return create(registry, resource, wanted).await };
    let stored: Value = serde_json::from_slice(&stored.json).map_err(ApiError::internal)?;
    if stored[part] == wanted[part] && stored["ports"] == wanted["ports"] {
        return Ok(());
    }
    let change = |object: &mut Value| {
        for field in [part, "ports"] {
            if !wanted[field].is_null() {
                object[field] = wanted[field].clone();
            }
        }
        Ok(())
    };
    registry.update(&resource, &key, change).await.map(drop)
}
