//! What events are about: a pod, one container of it, or the node.

use api::k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::pod::Role;

pub(crate) fn pod(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Points at `spec.containers{name}`.
pub(crate) fn container(of: &Pod, role: Role, name: &str) -> ObjectReference {
    ObjectReference { field_path: Some(format!("spec.{}{{{name}}}", role.field())), ..pod(of) }
}

/// A node's events carry its name as UID, which is what `kubectl describe node` looks for.
pub(crate) fn node(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}
