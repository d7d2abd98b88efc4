//! WATCH: the changes of a collection as a stream, through the request's selectors.
//!
//! The stream holds a position in the event ring and nothing else; events are spliced from stored
//! bytes when they are sent. Where they have to be decoded for it, large ones are in the room.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::object::{Object, ObjectIndex};
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use rand::Rng;
use storage::{Event, Scope, Watch};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::context::{Asked, Context};
use super::options::ListOptions;
use super::page::not_in_future;
use super::respond::{Kind, shaped_json, watch_frame};
use super::selection::Selection;
use crate::answer::encode_protobuf;
use crate::error::ApiError;
use crate::negotiate::{JSON, Media, PROTOBUF, Shape};
use crate::registry::{ObjectEntry, at_revision, object_of};
use crate::room::{self, Load};
use crate::status;

/// A watch without a time-out ends after this, or up to twice as long: upstream's default.
const SHORTEST: Duration = Duration::from_secs(1800);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Of stored objects, what is sent at a time.
const CHUNK: usize = 64 * 1024;
/// What a frame adds to an object, about.
const FRAME: usize = 48;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(crate) fn watch(cx: &Context<'_>) -> Result<Response, ApiError> {
    let options = ListOptions::parse(cx.query, true)?;
    let selection = Selection::new(cx, &options)?;
    let seconds = options.timeout_seconds.filter(|s| *s > 0).map(Duration::from_secs);
    let timeout = seconds.unwrap_or_else(|| SHORTEST.mul_f64(1.0 + rand::rng().random::<f64>()));
    let mut stream = WatchStream {
        // How the client asked was settled at the start; encoding looks at neither.
        asked: Arc::new(Asked { headers: HeaderMap::new(), query: String::new(), ..cx.asked(cx.info.clone()) }),
        is_stored_text: cx.output.is_plain_json() && cx.resource.is_stored_as(cx.served),
        selection,
        pending: VecDeque::new(),
        watch: None,
        tables: 0,
        ends: Ends::new(cx.server.shutdown.clone(), timeout),
        bookmark: options.bookmarks.then(|| Box::pin(sleep(BOOKMARK_EVERY))),
    };
    stream.start(cx, &options)?;
    let mut response = Response::new(Body::from_stream(stream.into_stream()));
    let content_type = match cx.output.media {
        Media::Protobuf => HeaderValue::from_static(concat_stream()),
        Media::Json | Media::Yaml => HeaderValue::from_static(JSON),
    };
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn concat_stream() -> &'static str {
    const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
    debug_assert!(STREAM.starts_with(PROTOBUF));
    STREAM
}

enum Pending {
    Object(Kind, Object),
    /// Says how far the watch is; the first one may end the initial events.
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
    Failed(ApiError),
}

impl Pending {
    fn bytes(&self) -> usize {
        match self {
            Self::Object(_, object) => object.json.len(),
            // Small, and not worth to be counted.
            Self::Bookmark { .. } | Self::Failed(_) => 1,
        }
    }
}

struct WatchStream {
    asked: Arc<Asked>,
    is_stored_text: bool,
    selection: Selection,
    pending: VecDeque<Pending>,
    /// Absent after an error: the stream ends when it has been told.
    watch: Option<Watch<Arc<ObjectIndex>>>,
    tables: usize,
    ends: Ends,
    bookmark: Option<Pin<Box<Sleep>>>,
}

/// What ends a watch besides an error. Kept while it lasts: to wait anew at each event would cost as much as
/// the event.
struct Ends {
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Pin<Box<Sleep>>,
}

impl Ends {
    fn new(shutdown: CancellationToken, timeout: Duration) -> Self {
        Self { shutdown: Box::pin(shutdown.cancelled_owned()), deadline: Box::pin(sleep(timeout)) }
    }

    async fn end(&mut self) {
        tokio::select! {
            biased;
            () = self.shutdown.as_mut() => {}
            () = self.deadline.as_mut() => {}
        }
    }
}

/// Waits until the time has come, if it is to come.
async fn due(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.as_mut().await,
        None => std::future::pending().await,
    }
}

impl WatchStream {
    fn start(&mut self, cx: &Context<'_>, options: &ListOptions) -> Result<(), ApiError> {
        let version = options.resource_version.parse().map_err(ApiError::Unknown)?;
        let initial = match (options.send_initial_events, version) {
            (Some(wanted), _) => wanted,
            (None, version) => version.is_none_or(|v| v == 0),
        };
        let from = if initial {
            not_in_future(version, cx.registry().storage().revision())?;
            self.queue_initial(cx)
        } else {
            version.filter(|v| *v > 0).unwrap_or_else(|| cx.registry().storage().revision())
        };
        if initial && options.send_initial_events == Some(true) && options.bookmarks {
            self.pending.push_back(Pending::Bookmark { revision: from, initial_events_end: true });
        }
        match cx.registry().watch(cx.resource, from) {
            Ok(watch) => self.watch = Some(watch),
            Err(gone) => self.pending.push_back(Pending::Failed(too_old(from, gone.oldest))),
        }
        Ok(())
    }

    /// Queues what is there as added; returns the revision that it is the state of.
    fn queue_initial(&mut self, cx: &Context<'_>) -> u64 {
        let prefix = self.selection.prefix();
        let scope = Scope { collection: &cx.resource.collection, prefix: &prefix, start: "" };
        let (selection, pending) = (&self.selection, &mut self.pending);
        let scanned = cx.registry().storage().scan(scope, None, |entry| {
            if selection.matches(&entry.index) {
                pending.push_back(Pending::Object(Kind::Added, object_of(entry)));
            }
            ControlFlow::Continue(())
        });
        scanned.expect("invariant: the present is always known")
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        futures::stream::unfold(self, |mut stream| async move {
            let bytes = stream.next_chunk().await?;
            Some((Ok(bytes), stream))
        })
    }

    /// The next bytes to send; `None` ends the stream.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(self.drain().await);
            }
            let watch = self.watch.as_mut()?;
            tokio::select! {
                biased;
                () = self.ends.end() => return None,
                events = watch.next() => match events {
                    Ok(events) => self.queue(&events),
                    Err(gone) => {
                        let position = watch.position();
                        self.pending.push_back(Pending::Failed(too_old(position, gone.oldest)));
                    }
                },
                () = due(&mut self.bookmark) => {
                    let revision = watch.position();
                    self.bookmark = Some(Box::pin(sleep(BOOKMARK_EVERY)));
                    self.pending.push_back(Pending::Bookmark { revision, initial_events_end: false });
                }
            }
        }
    }

    fn queue(&mut self, events: &[Arc<Event<Arc<ObjectIndex>>>]) {
        for event in events {
            if let Some((kind, object)) = selected(&self.selection, event) {
                self.pending.push_back(Pending::Object(kind, object));
            }
        }
    }

    /// Encodes what is pending, up to the size of one chunk.
    async fn drain(&mut self) -> Bytes {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK
            && let Some(next) = self.pending.pop_front()
        {
            bytes += next.bytes();
            batch.push(next);
        }
        let (asked, tables) = (Arc::clone(&self.asked), self.tables);
        let load = Load { passing: bytes, ..Load::default() };
        let encoded = if self.is_stored_text || !load.is_heavy() {
            encode_all(&asked, batch, tables)
        } else {
            let work = |_| async move { Ok(encode_all(&asked, batch, tables)) };
            let server = &self.asked.server;
            server.room.run(room::turn(&self.asked.user), load, work).await.unwrap_or_else(|error| {
                let mut encoded = Encoded::default();
                encoded.end(&self.asked, &error);
                encoded
            })
        };
        self.tables += encoded.tables;
        if encoded.is_end {
            self.watch = None;
            self.pending.clear();
        }
        encoded.bytes.into()
    }
}

/// Some events on the wire.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    tables: usize,
    /// Nothing follows.
    is_end: bool,
}

impl Encoded {
    fn push(&mut self, asked: &Asked, kind: Kind, json: Bytes) {
        match on_the_wire(asked, kind, json) {
            Ok(object) => watch_frame(asked.output.media, kind, &object, &mut self.bytes),
            Err(error) => {
                tracing::warn!(%error, "a watch ends because an event cannot be encoded");
                self.is_end = true;
            }
        }
    }

    /// Tells why the watch ends.
    fn end(&mut self, asked: &Asked, error: &ApiError) {
        self.push(asked, Kind::Error, status_json(error).into());
        self.is_end = true;
    }
}

/// Encodes events for a client who has had `tables` tables.
fn encode_all(asked: &Asked, events: Vec<Pending>, tables: usize) -> Encoded {
    let bytes: usize = events.iter().map(Pending::bytes).sum();
    let mut encoded = Encoded { bytes: Vec::with_capacity(bytes + events.len() * FRAME), ..Encoded::default() };
    let cx = match asked.context(None) {
        Ok(cx) => cx,
        Err(error) => {
            encoded.end(asked, &error);
            return encoded;
        }
    };
    for event in events {
        match encode(&cx, event, tables, &mut encoded.tables) {
            Ok((kind, json)) => encoded.push(asked, kind, json),
            Err(error) => encoded.end(asked, &error),
        }
        if encoded.is_end {
            break;
        }
    }
    encoded
}

/// The bytes of an event's object in the negotiated form.
fn on_the_wire(asked: &Asked, kind: Kind, json: Bytes) -> Result<Bytes, ApiError> {
    if asked.output.media != Media::Protobuf {
        return Ok(json);
    }
    let value: serde_json::Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    let (group, version, name) = match kind {
        Kind::Error => ("", "v1", "Status"),
        Kind::Added | Kind::Modified | Kind::Deleted | Kind::Bookmark => {
            (&*asked.info.group, &*asked.info.version, value["kind"].as_str().unwrap_or(""))
        }
    };
    encode_protobuf(&value, api::schema::type_of(group, version, name)).map(Bytes::from)
}

fn encode(cx: &Context<'_>, event: Pending, had: usize, tables: &mut usize) -> Result<(Kind, Bytes), ApiError> {
    let mut shaped = |object: &Object| {
        *tables += 1;
        shaped_json(cx, object, had + *tables == 1).map(Bytes::from)
    };
    match event {
        Pending::Failed(error) => Err(error),
        Pending::Bookmark { revision, initial_events_end } => {
            let json = bookmark(cx.kind(), &cx.served.api_version, revision, initial_events_end);
            if cx.output.shape == Shape::Object {
                return Ok((Kind::Bookmark, json.into()));
            }
            // A client that asked for tables or metadata knows no other kind.
            let index = Arc::new(ObjectIndex { resource_version: revision, ..ObjectIndex::default() });
            Ok((Kind::Bookmark, shaped(&Object { json: json.into(), index })?))
        }
        Pending::Object(kind, object) if is_as_stored(cx) => Ok((kind, object.json)),
        Pending::Object(kind, object) => Ok((kind, shaped(&object)?)),
    }
}

/// Whether the stored bytes are what the client is sent.
fn is_as_stored(cx: &Context<'_>) -> bool {
    cx.output.shape == Shape::Object && cx.resource.is_stored_as(cx.served)
}

/// An object of the kind that says nothing but a revision.
fn bookmark(kind: &str, api_version: &str, revision: u64, initial_events_end: bool) -> String {
    let annotations = if initial_events_end {
        format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}")
    } else {
        String::new()
    };
    format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}"
    )
}

/// What a change means to someone who sees only what the selection selects.
fn selected(selection: &Selection, event: &Event<Arc<ObjectIndex>>) -> Option<(Kind, Object)> {
    let was = event.old.as_ref().filter(|old| selection.matches(&old.index));
    let is = !event.deleted && selection.matches(&event.entry.index);
    match (was, is) {
        (None, false) => None,
        (None, true) => Some((Kind::Added, object_of(&event.entry))),
        (Some(_), true) => Some((Kind::Modified, object_of(&event.entry))),
        (Some(_), false) if event.deleted => Some((Kind::Deleted, object_of(&event.entry))),
        (Some(old), false) => Some((Kind::Deleted, as_of(old, event.revision()))),
    }
}

/// The last version that was visible, at the revision at which it ceased to be.
fn as_of(old: &ObjectEntry, revision: u64) -> Object {
    let index = Arc::new(ObjectIndex { resource_version: revision, ..(*old.index).clone() });
    Object { json: at_revision(&old.bytes, revision), index }
}

fn too_old(requested: u64, oldest: u64) -> ApiError {
    ApiError::Expired { message: format!("too old resource version: {requested} ({oldest})"), continue_token: None }
}

fn status_json(error: &ApiError) -> Vec<u8> {
    status::json(&Status::from(error))
}
