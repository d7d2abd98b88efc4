//! `pods/binding`, and `bindings` for older schedulers: gives a pod its node.

use std::sync::Arc;

use api::field::{self, Path};
use api::object::{GroupResource, ObjectKey};
use async_trait::async_trait;
use axum::response::Response;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Binding;
use serde_json::{Value, json};

use super::answer::{Carried, Posted};
use super::{Call, SpecialHandler};
use crate::error::ApiError;
use crate::registry::timestamp;
use crate::server::ApiServer;

const BINDING: Carried = Carried { group: "", version: "v1", kind: "Binding" };

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let mut posted = Posted::read(call, BINDING).await?;
        posted.admit(server, BINDING.kind).await?;
        let binding: Binding = posted.typed()?;
        let in_object = binding.metadata.name.clone().unwrap_or_default();
        let name = if posted.info.subresource.is_empty() { in_object.clone() } else { posted.info.name.clone() };
        if in_object != name {
            return Err(ApiError::BadRequest(format!(
                "the name of the object ({in_object}) does not match the name on the URL ({name})"
            )));
        }
        judge(&binding, &name)?;
        let now = timestamp(Timestamp::now());
        let pods = GroupResource::new("", "pods");
        let key = ObjectKey::new(&posted.info.namespace, &name);
        if posted.options.dry_run {
            let pod = server.registry.get(&pods, &key).ok_or_else(|| ApiError::not_found(&pods, &name))?;
            let mut pod: Value = serde_json::from_slice(&pod.json).map_err(ApiError::internal)?;
            bind(&mut pod, &name, &binding, &now)?;
        } else {
            server.registry.update(&pods, &key, |pod| bind(pod, &name, &binding, &now)).await?;
        }
        Ok(Posted::success())
    }
}

fn judge(binding: &Binding, name: &str) -> Result<(), ApiError> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(field::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_ref().is_none_or(String::is_empty) {
        errors.push(field::required(&target.child("name"), ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", name, &errors)) }
}

/// Binds the stored pod, if it may still be bound.
fn bind(pod: &mut Value, name: &str, binding: &Binding, now: &str) -> Result<(), ApiError> {
    let refuse = |detail: String| ApiError::conflict(&GroupResource::new("", "pods/binding"), name, detail);
    let metadata = &pod["metadata"];
    if let Some(uid) = binding.metadata.uid.as_deref()
        && metadata["uid"] != uid
    {
        let stored = metadata["uid"].as_str().unwrap_or_default();
        return Err(refuse(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}")));
    }
    if !metadata["deletionTimestamp"].is_null() {
        return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(refuse(format!("pod {name} is already assigned to node {node:?}")));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return Err(refuse(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    pod["spec"]["nodeName"] = json!(binding.target.name);
    if let Some(status) = pod["status"].as_object_mut() {
        // The nomination was for this moment.
        status.remove("nominatedNodeName");
    }
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod["metadata"]["annotations"][key.as_str()] = json!(value);
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        pod["metadata"]["labels"][key.as_str()] = json!(value);
    }
    set_condition(
        pod,
        &json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now}),
    );
    Ok(())
}

/// Puts a condition in the place of the one of its type; an equal status keeps its time.
pub(super) fn set_condition(pod: &mut Value, condition: &Value) {
    let generation = pod["metadata"]["generation"].clone();
    let mut condition = condition.clone();
    if !generation.is_null() {
        condition["observedGeneration"] = generation;
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(own) => {
            if own["status"] == condition["status"] {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(value: Value) -> Binding {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let to_n1 = binding(json!({"metadata": {"name": "web", "annotations": {"a": "b"}}, "target": {"name": "n1"}}));
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {},
            "status": {"phase": "Pending", "nominatedNodeName": "n0"}});
        bind(&mut pod, "web", &to_n1, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(
            pod,
            json!({"metadata": {"name": "web", "annotations": {"a": "b"}}, "spec": {"nodeName": "n1"},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True",
                    "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
        );
        assert_eq!(
            bind(&mut pod, "web", &to_n1, "x").unwrap_err().to_string(),
            "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n1\""
        );
    }

    #[test]
    fn what_must_not_be_bound_is_refused() {
        #[track_caller]
        fn check(pod: &Value, expected: &str) {
            let to_n1 = binding(json!({"metadata": {"name": "web", "uid": "u"}, "target": {"name": "n1"}}));
            let error = bind(&mut pod.clone(), "web", &to_n1, "x").unwrap_err().to_string();
            assert_eq!(error, format!("Operation cannot be fulfilled on pods/binding \"web\": {expected}"));
        }
        check(
            &json!({"metadata": {"uid": "u", "deletionTimestamp": "x"}, "spec": {}}),
            "pod web is being deleted, cannot be assigned to a host",
        );
        check(
            &json!({"metadata": {"uid": "u"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
            "pod web has non-empty .spec.schedulingGates",
        );
        check(
            &json!({"metadata": {"uid": "v"}, "spec": {}}),
            "Precondition failed: UID in precondition: u, UID in object meta: v",
        );
    }

    #[test]
    fn a_binding_names_a_node() {
        let error = judge(&binding(json!({"metadata": {}, "target": {"kind": "Node"}})), "web").unwrap_err();
        assert_eq!(error.to_string(), "Binding \"web\" is invalid: target.name: Required value");
    }
}
