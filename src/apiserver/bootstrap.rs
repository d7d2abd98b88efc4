//! The objects that every cluster has from its first start: the system namespaces.

use api::object::{GroupResource, ObjectKey};
use serde_json::json;

use crate::error::ApiError;
use crate::registry::Registry;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn first_objects(registry: &Registry) -> Result<(), ApiError> {
    let namespaces = GroupResource::new("", "namespaces");
    for name in NAMESPACES {
        if registry.get(&namespaces, &ObjectKey::new("", name)).is_some() {
            continue;
        }
        let namespace = json!({
            "kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        registry.create(&namespaces, namespace).await?;
    }
    Ok(())
}
