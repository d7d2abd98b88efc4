//! Pages of collections in the negotiated form.

use axum::body::Body;
use axum::response::Response;
use flate2::Compression;
use http::StatusCode;
use serde_json::{Value, json};

use super::list_body::{ListBody, Text};
use super::shape::{finish, served_value, write_metadata};
use super::table::{table_of, write_table};
use crate::answer::{GZIP_FROM, accepts_gzip, describe, respond, without_schema};
use crate::error::ApiError;
use crate::handlers::context::Context;
use crate::handlers::page::Page;
use crate::negotiate::{JSON, Media, PROTOBUF, Shape};
use crate::registry::object_of;
use crate::room::{self, Client, Load};

/// An item is decoded once and forgotten, where a write goes through its object several times.
const LIST_SHARE: usize = 8;

/// Answers with a page of the request's collection; what has to be decoded for it is decoded in the room, if
/// it is much.
pub(crate) async fn list(cx: &Context<'_>, page: Page) -> Result<Response, ApiError> {
    if is_stored_text(cx) {
        return Ok(stored_list(cx, page));
    }
    let bytes: usize = page.entries.iter().map(|entry| entry.bytes.len()).sum();
    let load = Load { passing: bytes / LIST_SHARE, ..Load::default() };
    if !load.is_heavy() {
        return decoded_list(cx, &page);
    }
    let asked = cx.asked(cx.info.clone());
    let work = |client: Client| async move { decoded_list(&asked.context(Some(&client))?, &page) };
    cx.server.room.run(room::turn(cx.user), load, work).await
}

fn decoded_list(cx: &Context<'_>, page: &Page) -> Result<Response, ApiError> {
    if cx.output.media == Media::Protobuf {
        return Ok(respond(cx.headers, StatusCode::OK, PROTOBUF, protobuf_list(cx, page)?, &[]));
    }
    let json = match cx.output.shape {
        Shape::Object => object_list(cx, page)?,
        Shape::Metadata => metadata_list(cx, page)?,
        Shape::Table => table_list(cx, page)?,
    };
    finish(cx, StatusCode::OK, json, &[])
}

/// Whether the answer consists of stored bytes as they are.
fn is_stored_text(cx: &Context<'_>) -> bool {
    cx.output.is_plain_json() && cx.resource.is_stored_as(cx.served)
}

fn stored_list(cx: &Context<'_>, page: Page) -> Response {
    let head = list_head(&format!("{}List", cx.kind()), &cx.served.api_version, &page, 0);
    let text = Text::new(head, &cx.resource.stored.type_prefix, page.entries);
    let compressed = text.length() >= GZIP_FROM && accepts_gzip(cx.headers);
    let mut response = Response::new(Body::empty());
    describe(&mut response, JSON, compressed);
    let body = if compressed { ListBody::gzip(text, Compression::fast()) } else { ListBody::plain(text) };
    *response.body_mut() = Body::new(body);
    response
}

fn object_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    let total: usize = page.entries.iter().map(|e| e.bytes.len() + 1).sum();
    let mut out = list_head(&format!("{}List", cx.kind()), &cx.served.api_version, page, total + 256);
    for (i, entry) in page.entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let mut value = served_value(cx, &object_of(entry))?;
        // Upstream's items do not repeat the kind that the list names.
        if let Some(object) = value.as_object_mut() {
            object.retain(|member, _| !matches!(&**member, "kind" | "apiVersion"));
        }
        serde_json::to_writer(&mut out, &value).map_err(ApiError::internal)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn protobuf_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    let kind = format!("{}List", cx.kind());
    let ty = api::schema::type_of(&cx.info.group, &cx.info.version, &kind).ok_or_else(without_schema)?;
    let items = page.entries.iter().map(|entry| served_value(cx, &object_of(entry)));
    api::protobuf::encode_list(ty, (&cx.served.api_version, &kind), list_metadata(page), items)
}

fn list_head(kind: &str, api_version: &str, page: &Page, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    let metadata = list_metadata(page);
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    out.extend_from_slice(head.as_bytes());
    out
}

fn metadata_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    let api_version = format!("meta.k8s.io/{}", cx.output.meta_version);
    let mut out = list_head("PartialObjectMetadataList", &api_version, page, page.entries.len() * 512);
    for (i, entry) in page.entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_metadata(cx, &object_of(entry), &mut out)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = json!(page.continue_token);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

fn table_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    write_table(cx, table_of(cx), page.entries.iter().map(|e| object_of(e)), &list_metadata(page), true)
}
