//! `pods/eviction`: a delete that respects disruption budgets. None are served, so nothing holds it
//! back; it is told in the pod's conditions that it was evicted.

use std::sync::Arc;

use api::object::{GroupResource, ObjectKey};
use async_trait::async_trait;
use axum::response::Response;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::json;

use super::answer::{Carried, Posted};
use super::binding::set_condition;
use super::{Call, SpecialHandler, loopback};
use crate::error::ApiError;
use crate::registry::timestamp;
use crate::request::RequestInfo;
use crate::server::ApiServer;

const EVICTION: Carried = Carried { group: "policy", version: "v1", kind: "Eviction" };

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let mut posted = Posted::read(call, EVICTION).await?;
        posted.admit(server, EVICTION.kind).await?;
        let eviction: Eviction = posted.typed()?;
        let name = posted.info.name.clone();
        let in_object = eviction.metadata.name.unwrap_or_else(|| name.clone());
        if in_object != name {
            return Err(ApiError::BadRequest(format!(
                "name in URL does not match name in Eviction object: {name} vs {in_object}"
            )));
        }
        let mut options =
            serde_json::to_value(eviction.delete_options.unwrap_or_default()).map_err(ApiError::internal)?;
        options["kind"] = json!("DeleteOptions");
        options["apiVersion"] = json!("v1");
        if posted.options.dry_run {
            options["dryRun"] = json!(["All"]);
        } else {
            mark(server, &posted.info).await?;
        }
        // Who may evict need not have the right to delete.
        let path = format!("/api/v1/namespaces/{}/pods/{name}", posted.info.namespace);
        loopback::send(server, Method::DELETE, &path, &options).await?;
        Ok(Posted::success())
    }
}

/// Says in the pod why it ends.
async fn mark(server: &ApiServer, info: &RequestInfo) -> Result<(), ApiError> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null,
        "lastTransitionTime": timestamp(Timestamp::now()),
    });
    let key = ObjectKey::new(&info.namespace, &info.name);
    server
        .registry
        .update(&GroupResource::new("", "pods"), &key, |pod| {
            let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if !finished && pod["metadata"]["deletionTimestamp"].is_null() {
                set_condition(pod, &condition);
            }
            Ok(())
        })
        .await
        .map(drop)
}
