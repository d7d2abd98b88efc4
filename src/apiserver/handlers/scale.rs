//! The `scale` subresource: `autoscaling/v1` `Scale` over a workload's replicas.

use api::field::{self, Path};
use api::schema;
use api::selector::format_label_selector;
use axum::response::Response;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::{Target, decode, too_large};
use super::context::Context;
use super::options::{FieldValidation, WriteOptions};
use super::patch::PatchType;
use super::{respond, update};
use crate::error::ApiError;
use crate::registry::text;

const GROUP: &str = "autoscaling";

/// The scale of a stored workload.
fn scale_of(object: &Value) -> Result<Value, ApiError> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut status =
        Map::from_iter([("replicas".to_owned(), json!(object["status"]["replicas"].as_i64().unwrap_or(0)))]);
    let selector = selector_of(&object["spec"]["selector"])?;
    if !selector.is_empty() {
        status.insert("selector".into(), json!(selector));
    }
    let mut spec = Map::new();
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|r| *r != 0) {
        spec.insert("replicas".into(), json!(replicas));
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": metadata, "spec": spec, "status": status,
    }))
}

/// A label selector, or a replication controller's plain map, in its text form. An autoscaler takes an
/// empty one for all pods, so one that cannot be read is an error.
fn selector_of(selector: &Value) -> Result<String, ApiError> {
    if selector.is_null() {
        return Ok(String::new());
    }
    let plain = selector.as_object().is_some_and(|m| m.values().all(Value::is_string));
    let structured = if plain { json!({"matchLabels": selector}) } else { selector.clone() };
    let selector = LabelSelector::deserialize(structured).map_err(ApiError::internal)?;
    Ok(format_label_selector(Some(&selector)))
}

pub(super) fn get(cx: &Context<'_>) -> Result<Response, ApiError> {
    let entry = cx.registry().entry(cx.resource, cx.namespace(), &cx.info.name).ok_or_else(|| cx.not_found())?;
    let object: Value = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    respond::scale(cx, &scale_of(&object)?, &[])
}

fn target<'a>() -> Target<'a> {
    Target { ty: schema::type_of(GROUP, "v1", "Scale"), group: GROUP, version: "v1", kind: "Scale" }
}

pub(super) async fn put(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = WriteOptions::parse(cx.query, "UpdateOptions")?;
    let mut warnings = Vec::new();
    let scale = decode(cx.headers, body, target(), options.field_validation, &mut warnings)?;
    change(cx, &options, warnings, &mut |_| Ok(scale.clone())).await
}

pub(super) async fn patch(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = WriteOptions::parse(cx.query, "PatchOptions")?;
    let patch_type = PatchType::of(cx)?;
    let ty = target().ty.ok_or(ApiError::UnknownPath)?;
    let mut apply = |current: &Value| {
        let patched = patch_type.apply(current.clone(), body, ty)?;
        let refuse = |e| too_large(&e).unwrap_or_else(|| ApiError::BadRequest(e.to_string()));
        let decoded = schema::check_value(patched, ty).map_err(refuse)?;
        match decoded.issues.first().filter(|_| options.field_validation == FieldValidation::Strict) {
            Some(issue) => Err(ApiError::BadRequest(format!("strict decoding error: {issue}"))),
            None => Ok(decoded.value),
        }
    };
    change(cx, &options, Vec::new(), &mut apply).await
}

/// Writes the replicas of the scale that `make` gives for the current one.
async fn change(
    cx: &Context<'_>,
    options: &WriteOptions,
    mut warnings: Vec<String>,
    make: &mut update::Change<'_>,
) -> Result<Response, ApiError> {
    // The workload itself is changed: rules and admission see the scale's parent as a plain update.
    let mut info = cx.info.clone();
    info.subresource.clear();
    let parent = Context { info: &info, ..*cx };
    let mut apply = |old: &Value| {
        let scale = make(&scale_of(old)?)?;
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas_of(&scale, text(old, "name"))?);
        if let Some(revision) = scale["metadata"].get("resourceVersion").filter(|v| *v != "") {
            new["metadata"]["resourceVersion"] = revision.clone();
        }
        if let Some(uid) = scale["metadata"].get("uid").filter(|v| *v != "") {
            new["metadata"]["uid"] = uid.clone();
        }
        Ok(new)
    };
    let updated = update::update(&parent, options, &mut warnings, &mut apply).await?;
    let object: Value = serde_json::from_slice(&updated.json).map_err(ApiError::internal)?;
    respond::scale(cx, &scale_of(&object)?, &warnings)
}

fn replicas_of(scale: &Value, name: &str) -> Result<i64, ApiError> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let spec = Path::new("spec");
    let error = field::invalid(&spec.child("replicas"), &replicas, "must be greater than or equal to 0");
    Err(ApiError::invalid(GROUP, "Scale", name, &[error]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_the_selector_as_text() {
        let deployment = json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "3"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}},
            "status": {"replicas": 1},
        });
        let scale = scale_of(&deployment).unwrap();
        assert_eq!(scale["spec"], json!({"replicas": 2}));
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
        assert_eq!(selector_of(&json!({"x": "y", "a": "b"})).unwrap(), "a=b,x=y");
        assert_eq!(selector_of(&Value::Null).unwrap(), "");
        assert!(matches!(selector_of(&json!({"matchLabels": 1})), Err(ApiError::Internal(_))));
    }
}
