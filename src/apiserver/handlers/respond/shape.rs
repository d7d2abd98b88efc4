//! What every form of a stored object starts from, and how its text is sent.

use api::object::Object;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::{respond, text_form};
use crate::error::ApiError;
use crate::handlers::context::Context;
use crate::handlers::rules::to_served;

pub(super) fn served_value(cx: &Context<'_>, object: &Object) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
    to_served(cx, value)
}

/// The object's metadata alone.
pub(super) fn write_metadata(cx: &Context<'_>, object: &Object, out: &mut Vec<u8>) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
    let version = cx.output.meta_version;
    let text = format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(head.metadata.get().as_bytes());
    out.push(b'}');
    Ok(())
}

/// Sends JSON in the negotiated text form.
pub(super) fn finish(
    cx: &Context<'_>,
    code: StatusCode,
    json: Vec<u8>,
    warnings: &[String],
) -> Result<Response, ApiError> {
    let (content_type, bytes) = text_form(cx.output, json)?;
    Ok(respond(cx.headers, code, content_type, bytes, warnings))
}
