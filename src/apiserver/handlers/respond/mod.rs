//! Answers: objects, lists, tables and errors in the negotiated form.
//!
//! Where the client wants JSON of the stored version, the stored bytes are the answer; nothing is
//! decoded.

mod list;
mod list_body;
mod shape;
mod table;

use api::object::Object;
use api::schema::TypeId;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use self::shape::{finish, served_value, write_metadata};
use self::table::{table_of, write_table};
use super::context::Context;
use crate::answer::{encode_protobuf, respond};
use crate::error::ApiError;
use crate::negotiate::{Media, PROTOBUF, Shape};
use crate::status;

pub(crate) use list::list;

/// Answers with one object of the request's resource.
pub(crate) fn object(
    cx: &Context<'_>,
    code: StatusCode,
    object: &Object,
    warnings: &[String],
) -> Result<Response, ApiError> {
    if cx.output.media == Media::Protobuf {
        return Ok(respond(cx.headers, code, PROTOBUF, protobuf(cx, object)?, warnings));
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
    let json = match status::of_value(value) {
        Some(status) => status::json(&status),
        None => serde_json::to_vec(value).map_err(ApiError::internal)?,
    };
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

/// A whole object in protobuf.
pub(crate) fn protobuf(cx: &Context<'_>, object: &Object) -> Result<Vec<u8>, ApiError> {
    encode_protobuf(&served_value(cx, object)?, cx.served.ty)
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

pub(super) fn decode_protobuf(body: &[u8], ty: TypeId) -> Result<Value, ApiError> {
    let (_, value) = api::protobuf::decode_as(body, ty).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    Ok(value)
}

/// What happened, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One event of a watch on the wire.
pub(crate) fn watch_frame(media: Media, kind: Kind, object: &[u8], out: &mut Vec<u8>) {
    match media {
        Media::Json | Media::Yaml => {
            begin_frame(kind, out);
            out.extend_from_slice(object);
            out.extend_from_slice(FRAME_END);
        }
        Media::Protobuf => out.extend_from_slice(&api::protobuf::watch_frame(kind.as_str(), object)),
    }
}

/// What stands before the object of an event in JSON; [`FRAME_END`] follows it.
pub(crate) fn begin_frame(kind: Kind, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

pub(crate) const FRAME_END: &[u8] = b"}\n";
