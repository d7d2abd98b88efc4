//! The verbs of every stored resource, generic over its row, schema type and rules.

mod body;
mod context;
mod create;
mod delete;
mod event_form;
mod list;
mod options;
mod page;
mod patch;
mod respond;
mod rules;
mod scale;
mod selection;
mod update;
mod walk;
mod watch;

use axum::body::Bytes;
use axum::response::Response;
use http::HeaderValue;
use http::header::WARNING;

use crate::error::ApiError;

pub(crate) use body::{Target as BodyTarget, decode as decode_body};
pub(crate) use context::Context;
pub(crate) use options::WriteOptions;
pub(crate) use respond::Kind as EventKind;

/// Answers a request for a stored resource or one of its generic subresources.
pub(crate) async fn handle(cx: &Context<'_>, body: Bytes) -> Result<Response, ApiError> {
    let mut response = handle_verb(cx, body).await?;
    if let Some(warning) = cx.resource.row.deprecation() {
        response.headers_mut().append(WARNING, HeaderValue::from_static(warning));
    }
    Ok(response)
}

// Each way is laid apart, once: a read, the most frequent of them, is not moved about with what a write may need.
async fn handle_verb(cx: &Context<'_>, body: Bytes) -> Result<Response, ApiError> {
    if !cx.info.subresource.is_empty() {
        return Box::pin(handle_subresource(cx, body)).await;
    }
    let collection = cx.info.name.is_empty();
    match (&*cx.info.verb, collection) {
        ("get", false) => list::get(cx),
        ("list", true) => Box::pin(list::list(cx)).await,
        ("watch", _) => Box::pin(watch::watch(cx)).await,
        ("create", true) => Box::pin(create::create(cx, &body)).await,
        ("update", false) => Box::pin(update::put(cx, &body)).await,
        ("patch", false) => Box::pin(patch::patch(cx, &body)).await,
        ("delete", false) => Box::pin(delete::delete(cx, &body)).await,
        ("deletecollection", true) => Box::pin(delete::delete_collection(cx, &body)).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn handle_subresource(cx: &Context<'_>, body: Bytes) -> Result<Response, ApiError> {
    let scale = cx.info.subresource == "scale";
    match &*cx.info.verb {
        "get" if scale => scale::get(cx),
        "get" => list::get(cx),
        "update" if scale => scale::put(cx, &body).await,
        "patch" if scale => scale::patch(cx, &body).await,
        "update" => update::put(cx, &body).await,
        "patch" => patch::patch(cx, &body).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}
