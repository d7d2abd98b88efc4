//! Answers: objects, lists, tables and errors in the negotiated form.
//!
//! Where the client wants JSON of the stored version, the stored bytes are the answer; nothing is
//! decoded.

use std::io::Write;

use api::object::Object;
use api::schema::TypeId;
use api::table;
use axum::body::{Body, Bytes};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::context::Context;
use super::list::Page;
use super::rules::to_served;
use crate::error::ApiError;
use crate::negotiate::{IncludeObject, JSON, Media, Output, PROTOBUF, Shape, YAML};
use crate::registry::object_of;
use crate::watch::Kind;

/// Answers below this are not worth compressing; upstream's threshold.
const GZIP_FROM: usize = 128 * 1024;

/// Answers with one object of the request's resource.
pub(crate) fn object(
    cx: &Context<'_>,
    code: StatusCode,
    object: &Object,
    warnings: &[String],
) -> Result<Response, ApiError> {
    if cx.output.media == Media::Protobuf {
        let value = served_value(cx, object)?;
        let bytes = encode_protobuf(&value, cx.served.ty)?;
        return Ok(respond(cx, code, PROTOBUF, bytes, warnings));
    }
    let json = shaped_json(cx, object, true)?;
    finish(cx, code, json, warnings)
}

/// Answers with an object that is not of the request's resource, such as a scale or a status.
pub(crate) fn plain(
    cx: &Context<'_>,
    code: StatusCode,
    value: &Value,
    warnings: &[String],
) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(value).map_err(ApiError::internal)?;
    finish(cx, code, json, warnings)
}

/// Answers with the scale of an object of the request's resource.
pub(super) fn scale(cx: &Context<'_>, scale: &Value, warnings: &[String]) -> Result<Response, ApiError> {
    if cx.output.shape != Shape::Table {
        return plain(cx, StatusCode::OK, scale, warnings);
    }
    let json = serde_json::to_vec(scale).map_err(ApiError::internal)?;
    let object = Object { json: json.into(), index: <_>::default() };
    let metadata = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
    let table = write_table(cx, ("autoscaling", "scales"), std::iter::once(object), &metadata, true)?;
    finish(cx, StatusCode::OK, table, warnings)
}

/// Answers with a page of the request's collection.
pub(crate) fn list(cx: &Context<'_>, page: &Page) -> Result<Response, ApiError> {
    if cx.output.media == Media::Protobuf {
        let json = object_list(cx, page)?;
        let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        let ty = api::schema::type_of(&cx.info.group, &cx.info.version, &format!("{}List", cx.kind()));
        return Ok(respond(cx, StatusCode::OK, PROTOBUF, encode_protobuf(&value, ty)?, &[]));
    }
    let json = match cx.output.shape {
        Shape::Object => object_list(cx, page)?,
        Shape::Metadata => metadata_list(cx, page)?,
        Shape::Table => table_list(cx, page)?,
    };
    finish(cx, StatusCode::OK, json, &[])
}

/// An object in the negotiated shape, as JSON. `first` is false for all but the first table of a watch,
/// which alone has column definitions.
pub(crate) fn shaped_json(cx: &Context<'_>, object: &Object, first: bool) -> Result<Vec<u8>, ApiError> {
    match cx.output.shape {
        Shape::Object if cx.resource.is_stored_as(cx.served) => Ok(object.json.to_vec()),
        Shape::Object => serde_json::to_vec(&served_value(cx, object)?).map_err(ApiError::internal),
        Shape::Metadata => {
            let mut json = Vec::with_capacity(512);
            write_metadata(cx, object, &mut json)?;
            Ok(json)
        }
        Shape::Table => {
            let metadata = json!({"resourceVersion": object.index.resource_version.to_string()});
            write_table(cx, table_of(cx), std::iter::once(object.clone()), &metadata, first)
        }
    }
}

fn served_value(cx: &Context<'_>, object: &Object) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
    to_served(cx, value)
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

fn object_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    let total: usize = page.entries.iter().map(|e| e.bytes.len() + 1).sum();
    let mut out = list_head(&format!("{}List", cx.kind()), &cx.served.api_version, page, total + 256);
    let spliced = cx.resource.is_stored_as(cx.served);
    for (i, entry) in page.entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if spliced {
            // Upstream's items do not repeat the kind that the list names.
            let prefix = cx.resource.stored.type_prefix.as_bytes();
            out.push(b'{');
            out.extend_from_slice(entry.bytes.strip_prefix(prefix).unwrap_or(&entry.bytes[1..]));
        } else {
            let value = served_value(cx, &object_of(entry))?;
            serde_json::to_writer(&mut out, &value).map_err(ApiError::internal)?;
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
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

fn write_metadata(cx: &Context<'_>, object: &Object, out: &mut Vec<u8>) -> Result<(), ApiError> {
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

fn table_list(cx: &Context<'_>, page: &Page) -> Result<Vec<u8>, ApiError> {
    write_table(cx, table_of(cx), page.entries.iter().map(|e| object_of(e)), &list_metadata(page), true)
}

/// Group and resource that the request's table is made for.
fn table_of(cx: &Context<'_>) -> (&'static str, &'static str) {
    (cx.resource.stored_group, cx.resource.row.resource)
}

fn write_table(
    cx: &Context<'_>,
    (group, resource): (&str, &str),
    objects: impl Iterator<Item = Object>,
    metadata: &Value,
    columns: bool,
) -> Result<Vec<u8>, ApiError> {
    let definitions = if columns { columns_of(group, resource) } else { Value::Null };
    let version = cx.output.meta_version;
    let mut out = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{metadata},\
         \"columnDefinitions\":{definitions},\"rows\":["
    )
    .into_bytes();
    let now = jiff::Timestamp::now();
    for (i, object) in objects.enumerate() {
        let value: Value = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut out, &table::cells(group, resource, &value, now)).map_err(ApiError::internal)?;
        if let Some(conditions) = table::row_conditions(group, resource, &value) {
            out.extend_from_slice(b",\"conditions\":");
            serde_json::to_writer(&mut out, &conditions).map_err(ApiError::internal)?;
        }
        match cx.output.include_object {
            IncludeObject::None => {}
            IncludeObject::Metadata => {
                out.extend_from_slice(b",\"object\":");
                write_metadata(cx, &object, &mut out)?;
            }
            IncludeObject::Object => {
                out.extend_from_slice(b",\"object\":");
                serde_json::to_writer(&mut out, &to_served(cx, value)?).map_err(ApiError::internal)?;
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn columns_of(group: &str, resource: &str) -> Value {
    let columns = table::columns(group, resource).iter().map(|c| {
        json!({
            "name": c.name, "type": c.r#type, "format": c.format,
            "description": c.description, "priority": c.priority,
        })
    });
    Value::Array(columns.collect())
}

pub(crate) fn encode_protobuf(value: &Value, ty: Option<TypeId>) -> Result<Vec<u8>, ApiError> {
    let ty = ty.ok_or_else(|| ApiError::internal("a type without a schema was negotiated as protobuf"))?;
    let text = |member: &str| value[member].as_str().unwrap_or("");
    api::protobuf::encode(value, ty, text("apiVersion"), text("kind")).map_err(ApiError::internal)
}

pub(super) fn decode_protobuf(body: &[u8], ty: TypeId) -> Result<Value, ApiError> {
    let (_, value) = api::protobuf::decode_as(body, ty).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    Ok(value)
}

/// One event of a watch on the wire.
pub(crate) fn watch_frame(media: Media, kind: Kind, object: &[u8], out: &mut Vec<u8>) {
    match media {
        Media::Json | Media::Yaml => {
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_str().as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(object);
            out.extend_from_slice(b"}\n");
        }
        Media::Protobuf => out.extend_from_slice(&api::protobuf::watch_frame(kind.as_str(), object)),
    }
}

/// Sends JSON in the negotiated text form.
fn finish(cx: &Context<'_>, code: StatusCode, json: Vec<u8>, warnings: &[String]) -> Result<Response, ApiError> {
    let (content_type, bytes) = text_form(cx.output, json)?;
    Ok(respond(cx, code, content_type, bytes, warnings))
}

fn text_form(output: Output, mut json: Vec<u8>) -> Result<(&'static str, Vec<u8>), ApiError> {
    if output.media == Media::Yaml {
        let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        let yaml = serde_yaml_ng::to_string(&value).map_err(ApiError::internal)?;
        return Ok((YAML, yaml.into_bytes()));
    }
    if output.pretty {
        let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        json = serde_json::to_vec_pretty(&value).map_err(ApiError::internal)?;
    }
    json.push(b'\n');
    Ok((JSON, json))
}

fn respond(
    cx: &Context<'_>,
    code: StatusCode,
    content_type: &'static str,
    bytes: Vec<u8>,
    warnings: &[String],
) -> Response {
    let mut response = maybe_compress(cx.headers, content_type, bytes);
    *response.status_mut() = code;
    for warning in warnings {
        if let Some(value) = warning_header(warning) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// `299 - "text"`, with what a quoted string cannot hold escaped or dropped.
fn warning_header(text: &str) -> Option<HeaderValue> {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

/// A 200 answer, compressed if it is large and the client can read that.
pub(crate) fn maybe_compress(headers: &HeaderMap, content_type: &'static str, bytes: Vec<u8>) -> Response {
    let accepts = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
    let compressed = if accepts && bytes.len() >= GZIP_FROM { gzip(&bytes) } else { None };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if compressed.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    *response.body_mut() = Body::from(Bytes::from(compressed.unwrap_or(bytes)));
    response
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// Answers with a JSON value that is no API object of a resource.
pub(crate) fn json_response(headers: &HeaderMap, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            maybe_compress(headers, JSON, bytes)
        }
        Err(error) => error_response(&ApiError::internal(error)),
    }
}

/// Answers a request with a value that is of a built-in kind but no object of a resource, in the form
/// that the client accepts.
pub(crate) fn negotiated(parts: &Parts, value: &Value) -> Result<Response, ApiError> {
    let ty = api::schema::type_of("", "v1", value["kind"].as_str().unwrap_or(""));
    let protobuf = ty.is_some_and(api::protobuf::supports);
    let output = Output::negotiate(&parts.headers, parts.uri.query().unwrap_or(""), protobuf)?;
    let (content_type, bytes) = if output.media == Media::Protobuf {
        let ty = ty.ok_or_else(|| ApiError::internal("invariant: protobuf is negotiated for known types"))?;
        let kind = value["kind"].as_str().unwrap_or("");
        // The list of versions says none of its own in JSON; its envelope does.
        (PROTOBUF, api::protobuf::encode(value, ty, "v1", kind).map_err(ApiError::internal)?)
    } else {
        text_form(output, serde_json::to_vec(value).map_err(ApiError::internal)?)?
    };
    Ok(maybe_compress(&parts.headers, content_type, bytes))
}

/// Answers with the status of a failure.
pub(crate) fn error_response(error: &ApiError) -> Response {
    let status = Status::from(error);
    let code = status.code.and_then(|c| u16::try_from(c).ok()).and_then(|c| StatusCode::from_u16(c).ok());
    let mut bytes = serde_json::to_vec(&status).expect("invariant: a status serializes");
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(seconds) = status.details.and_then(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
