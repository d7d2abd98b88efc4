//! The events of a watch in the form that was negotiated.

use std::sync::Arc;

use api::object::{Object, ObjectIndex};
use axum::body::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use super::out::FRAME;
use crate::answer::encode_protobuf;
use crate::error::ApiError;
use crate::handlers::context::{Asked, Context};
use crate::handlers::respond::{Kind, protobuf, shaped_json, watch_frame};
use crate::negotiate::{Media, Shape};
use crate::registry::{ObjectEntry, object_of};
use crate::room::Load;
use crate::status;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Whether the stored bytes of an object are what the client is sent.
pub(super) fn is_as_stored(cx: &Context<'_>) -> bool {
    cx.output.media != Media::Protobuf && cx.output.shape == Shape::Object && cx.resource.is_stored_as(cx.served)
}

/// Objects as added, up to the first that cannot be encoded.
pub(super) fn of_entries(
    asked: &Asked,
    entries: &[Arc<ObjectEntry>],
    mut is_first_table: bool,
) -> (Vec<u8>, Result<(), ApiError>) {
    let mut out = Vec::new();
    let told = asked.context(None).and_then(|cx| {
        entries.iter().try_for_each(|entry| {
            write_object(&cx, Kind::Added, &object_of(entry), std::mem::take(&mut is_first_table), &mut out)
        })
    });
    (out, told)
}

/// One event, encoded in the room if its object is large.
pub(super) async fn of_object(
    asked: &Arc<Asked>,
    turn: &str,
    kind: Kind,
    object: Object,
    is_first_table: bool,
) -> Result<Bytes, ApiError> {
    let cx = asked.context(None)?;
    let load = Load { passing: if is_as_stored(&cx) { 0 } else { object.json.len() }, ..Load::default() };
    let encode = move |cx: &Context<'_>| {
        let mut out = Vec::new();
        write_object(cx, kind, &object, is_first_table, &mut out).map(|()| Bytes::from(out))
    };
    if !load.is_heavy() {
        return encode(&cx);
    }
    let asked_there = Arc::clone(asked);
    // Rare, and laid apart, so that a watch which waits for events is small.
    Box::pin(asked.server.room.run(turn, load, |_| async move { encode(&asked_there.context(None)?) })).await
}

/// An object of the kind that says nothing but a revision.
pub(super) fn of_bookmark(
    asked: &Asked,
    revision: u64,
    initial_events_end: bool,
    is_first_table: bool,
) -> Result<Bytes, ApiError> {
    let cx = asked.context(None)?;
    let (kind, api_version) = (cx.kind(), &cx.served.api_version);
    let annotations = if initial_events_end {
        format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}")
    } else {
        String::new()
    };
    let json = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}"
    );
    let mut out = Vec::new();
    if cx.output.shape == Shape::Object {
        write_json(&cx, Kind::Bookmark, json.as_bytes(), &mut out)?;
    } else {
        // A client that asked for tables or metadata knows no other kind.
        let index = Arc::new(ObjectIndex { resource_version: revision, ..ObjectIndex::default() });
        write_object(&cx, Kind::Bookmark, &Object { json: json.into(), index }, is_first_table, &mut out)?;
    }
    Ok(out.into())
}

/// Why the watch ends.
pub(super) fn of_error(asked: &Asked, error: &ApiError) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    write_json(&asked.context(None)?, Kind::Error, &status::json(&Status::from(error)), &mut out)?;
    Ok(out.into())
}

fn write_object(
    cx: &Context<'_>,
    kind: Kind,
    object: &Object,
    is_first_table: bool,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    if is_as_stored(cx) {
        out.reserve(object.json.len() + FRAME);
        watch_frame(cx.output.media, kind, &object.json, out);
        return Ok(());
    }
    if cx.output.media == Media::Protobuf && cx.output.shape == Shape::Object {
        watch_frame(Media::Protobuf, kind, &protobuf(cx, object)?, out);
        return Ok(());
    }
    write_json(cx, kind, &shaped_json(cx, object, is_first_table)?, out)
}

/// Writes an event whose object is there as JSON.
fn write_json(cx: &Context<'_>, kind: Kind, json: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    if cx.output.media != Media::Protobuf {
        watch_frame(cx.output.media, kind, json, out);
        return Ok(());
    }
    let value: serde_json::Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    let (group, version, name) = match kind {
        Kind::Error => ("", "v1", "Status"),
        Kind::Added | Kind::Modified | Kind::Deleted | Kind::Bookmark => {
            (&*cx.info.group, &*cx.info.version, value["kind"].as_str().unwrap_or(""))
        }
    };
    let object = encode_protobuf(&value, api::schema::type_of(group, version, name))?;
    watch_frame(Media::Protobuf, kind, &object, out);
    Ok(())
}
