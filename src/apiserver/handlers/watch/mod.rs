//! WATCH: the changes of a collection as a stream, through the request's selectors.
//!
//! It begins with one consistent state, where that is asked for: references to its objects, which are let go
//! as they are sent. The watch holds its place among the requests for so long, so that there are few such
//! states at a time, and has to be done in the time of a request. From then on it holds a position in the
//! event ring and nothing else. What is sent is made when the connection takes it, a chunk at a time, and
//! what has to be encoded for it is encoded once for all watches of the same form.

mod frame;
mod out;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::object::{Object, ObjectIndex};
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use rand::Rng;
use storage::{Event, Watch};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::out::{Out, SHARED_FROM};
use super::context::{Asked, Context};
use super::options::ListOptions;
use super::page::not_in_future;
use super::respond::Kind;
use super::selection::Selection;
use super::walk::{self, Range, TURN};
use crate::error::ApiError;
use crate::frames::Form;
use crate::held::Initialized;
use crate::negotiate::{JSON, Media, PROTOBUF, Shape};
use crate::registry::{ObjectEntry, at_revision, object_of};
use crate::request::RequestInfo;
use crate::room::{self, Load};

/// A watch without a time-out ends after this, or up to twice as long: upstream's default.
const SHORTEST: Duration = Duration::from_secs(1800);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Of stored objects, what is sent at a time, and an object more. It is what a watch holds that nobody reads.
const CHUNK: usize = 16 * 1024;

pub(crate) async fn watch(cx: &Context<'_>) -> Result<Response, ApiError> {
    let options = ListOptions::parse(cx.query, true)?;
    let selection = Arc::new(Selection::new(cx, &options)?);
    let start = Start::find(cx, &options, &selection).await?;
    let seconds = options.timeout_seconds.filter(|s| *s > 0).map(Duration::from_secs);
    let timeout = seconds.unwrap_or_else(|| SHORTEST.mul_f64(1.0 + rand::rng().random::<f64>()));
    let stream = WatchStream::new(cx, selection, start, timeout, options.bookmarks);
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(stream.initialized.clone());
    *response.body_mut() = Body::from_stream(stream.into_stream());
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

/// What a watch begins with.
struct Start {
    entries: Vec<Arc<ObjectEntry>>,
    /// What is told after them.
    then: VecDeque<Told>,
    watch: Option<Watch<Arc<ObjectIndex>>>,
}

enum Told {
    /// Says how far the watch is; the first one may end the initial events.
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
    Failed(ApiError),
}

impl Start {
    async fn find(cx: &Context<'_>, options: &ListOptions, selection: &Arc<Selection>) -> Result<Self, ApiError> {
        let version = options.resource_version.parse().map_err(ApiError::Unknown)?;
        let initial = match (options.send_initial_events, version) {
            (Some(wanted), _) => wanted,
            (None, version) => version.is_none_or(|v| v == 0),
        };
        let now = || cx.registry().storage().revision();
        let mut then = VecDeque::new();
        let (entries, from) = if initial {
            not_in_future(version, now())?;
            let found = walk::find(cx, selection, Range::default()).await?;
            let found = found.map_err(|gone| too_old(gone.oldest.saturating_sub(1), gone.oldest))?;
            (found.entries, found.revision)
        } else {
            (Vec::new(), version.filter(|v| *v > 0).unwrap_or_else(now))
        };
        if initial && options.send_initial_events == Some(true) && options.bookmarks {
            then.push_back(Told::Bookmark { revision: from, initial_events_end: true });
        }
        let watch = match cx.registry().watch(cx.resource, from) {
            Ok(watch) => Some(watch),
            Err(gone) => {
                then.push_back(Told::Failed(too_old(from, gone.oldest)));
                None
            }
        };
        Ok(Self { entries, then, watch })
    }
}

struct WatchStream {
    asked: Arc<Asked>,
    is_stored_text: bool,
    /// That of the last event.
    form: Form,
    selection: Arc<Selection>,
    initial: std::vec::IntoIter<Arc<ObjectEntry>>,
    is_initial_heavy: bool,
    then: VecDeque<Told>,
    initialized: Initialized,
    /// Absent after an error: the stream ends when it has been told.
    watch: Option<Watch<Arc<ObjectIndex>>>,
    had_table: bool,
    /// In selectors, since others had their turn.
    lookups: usize,
    out: Out,
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
    fn new(cx: &Context<'_>, selection: Arc<Selection>, start: Start, timeout: Duration, bookmarks: bool) -> Self {
        let Start { entries, then, watch } = start;
        // How the client asked was settled at the start; encoding looks at none of it.
        let (label_selector, field_selector) = (String::new(), String::new());
        let asked = Asked {
            server: Arc::clone(cx.server),
            info: RequestInfo { label_selector, field_selector, ..cx.info.clone() },
            user: Arc::clone(cx.user),
            headers: HeaderMap::new(),
            query: String::new(),
            output: cx.output,
        };
        let is_stored_text = frame::is_as_stored(cx);
        let passing = if is_stored_text { 0 } else { entries.iter().map(|entry| entry.bytes.len()).sum() };
        let initialized = Initialized::default();
        if entries.is_empty() && then.is_empty() {
            initialized.set();
        }
        Self {
            asked: Arc::new(asked),
            is_stored_text,
            form: Form {
                kind: Kind::Added,
                type_prefix: Arc::clone(&cx.served.type_prefix),
                output: crate::negotiate::Output { pretty: false, ..cx.output },
            },
            selection,
            initial: entries.into_iter(),
            is_initial_heavy: Load { passing, ..Load::default() }.is_heavy(),
            then,
            initialized,
            watch,
            had_table: false,
            lookups: 0,
            out: Out::default(),
            ends: Ends::new(cx.server.shutdown.clone(), timeout),
            bookmark: bookmarks.then(|| Box::pin(sleep(BOOKMARK_EVERY))),
        }
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
            if let Some(bytes) = self.out.next() {
                return Some(bytes);
            }
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Makes more of what is sent, if there is more; says whether there may be.
    async fn step(&mut self) -> Result<bool, ApiError> {
        if !self.initial.as_slice().is_empty() {
            return self.tell_initial().await.map(|()| true);
        }
        match self.then.pop_front() {
            Some(Told::Bookmark { revision, initial_events_end }) => {
                return self.tell_bookmark(revision, initial_events_end).map(|()| true);
            }
            Some(Told::Failed(error)) => return Err(error),
            None => {}
        }
        // The connection asks for more when it has got rid of what it had.
        self.initialized.set();
        let Some(watch) = &mut self.watch else { return Ok(false) };
        let events = tokio::select! {
            biased;
            () = self.ends.end() => return Ok(false),
            events = watch.next_within(CHUNK) => events,
            () = due(&mut self.bookmark) => {
                self.bookmark = Some(Box::pin(sleep(BOOKMARK_EVERY)));
                let revision = watch.position();
                return self.tell_bookmark(revision, false).map(|()| true);
            }
        };
        let events = events.map_err(|gone| too_old(watch.position(), gone.oldest))?;
        for event in &events {
            self.tell(event).await?;
        }
        Ok(true)
    }

    /// Tells a chunk of the state that the watch begins with.
    async fn tell_initial(&mut self) -> Result<(), ApiError> {
        let mut told = Ok(());
        if self.is_stored_text {
            while !self.out.has(CHUNK)
                && let Some(entry) = self.initial.next()
            {
                self.out.push_stored(Kind::Added, &entry.bytes);
            }
        } else {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < CHUNK
                && let Some(entry) = self.initial.next()
            {
                bytes += entry.bytes.len();
                batch.push(entry);
            }
            let (asked, is_first) = (Arc::clone(&self.asked), self.is_first_table());
            let (text, result) = if self.is_initial_heavy {
                let load = Load { passing: bytes, ..Load::default() };
                let work = |_| async move { Ok(frame::of_entries(&asked, &batch, is_first)) };
                Box::pin(self.asked.server.room.run(room::turn(&self.asked.user), load, work)).await?
            } else {
                frame::of_entries(&asked, &batch, is_first)
            };
            self.out.push(text.into());
            told = result;
        }
        if self.initial.as_slice().is_empty() {
            // The room that they took is not needed any more.
            self.initial = Vec::new().into_iter();
        }
        told
    }

    /// Tells an event, if it is about what is selected.
    async fn tell(&mut self, event: &Event<Arc<ObjectIndex>>) -> Result<(), ApiError> {
        let lookups = |entry: &Arc<ObjectEntry>| self.selection.lookups(&entry.index);
        self.lookups += lookups(&event.entry) + event.old.as_ref().map_or(0, lookups);
        if self.lookups >= TURN {
            self.lookups = 0;
            yield_now().await;
        }
        let Some((kind, seen)) = selected(&self.selection, event) else { return Ok(()) };
        if self.is_stored_text && seen.bytes() < SHARED_FROM {
            self.out.push_stored(kind, &seen.object().json);
            return Ok(());
        }
        // The first table has columns, which the others have not.
        let frame = if self.is_first_table() {
            frame::of_object(&self.asked, room::turn(&self.asked.user), kind, seen.object(), true).await?
        } else {
            self.form.kind = kind;
            let encode = async { frame::of_object(&self.asked, room::SHARED, kind, seen.object(), false).await };
            self.asked.server.frames.get(event.revision(), &self.form, encode).await?
        };
        self.out.push(frame);
        Ok(())
    }

    fn tell_bookmark(&mut self, revision: u64, initial_events_end: bool) -> Result<(), ApiError> {
        let is_first = self.is_first_table();
        self.out.push(frame::of_bookmark(&self.asked, revision, initial_events_end, is_first)?);
        Ok(())
    }

    /// Whether what is told now is the first table.
    fn is_first_table(&mut self) -> bool {
        self.asked.output.shape == Shape::Table && !std::mem::replace(&mut self.had_table, true)
    }

    /// Tells why the watch ends.
    fn fail(&mut self, error: &ApiError) {
        self.watch = None;
        self.initial = Vec::new().into_iter();
        self.then.clear();
        if matches!(error, ApiError::Internal(_)) {
            tracing::warn!(%error, "a watch ends because an event cannot be encoded");
        }
        match frame::of_error(&self.asked, error) {
            Ok(frame) => self.out.push(frame),
            Err(error) => tracing::warn!(%error, "a watch cannot be told why it ends"),
        }
    }
}

/// An object as a client sees it at an event.
enum Seen<'e> {
    Is(&'e ObjectEntry),
    /// As it was before the revision at which it ceased to be selected.
    Was(&'e ObjectEntry, u64),
}

impl Seen<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Is(entry) | Self::Was(entry, _) => entry.bytes.len(),
        }
    }

    fn object(&self) -> Object {
        match *self {
            Self::Is(entry) => object_of(entry),
            Self::Was(old, revision) => {
                let index = Arc::new(ObjectIndex { resource_version: revision, ..(*old.index).clone() });
                Object { json: at_revision(&old.bytes, revision), index }
            }
        }
    }
}

/// What a change means to someone who sees only what the selection selects.
fn selected<'e>(selection: &Selection, event: &'e Event<Arc<ObjectIndex>>) -> Option<(Kind, Seen<'e>)> {
    let was = event.old.as_ref().filter(|old| selection.matches(&old.index));
    let is = !event.deleted && selection.matches(&event.entry.index);
    match (was, is) {
        (None, false) => None,
        (None, true) => Some((Kind::Added, Seen::Is(&event.entry))),
        (Some(_), true) => Some((Kind::Modified, Seen::Is(&event.entry))),
        (Some(_), false) if event.deleted => Some((Kind::Deleted, Seen::Is(&event.entry))),
        (Some(old), false) => Some((Kind::Deleted, Seen::Was(old, event.revision()))),
    }
}

fn too_old(requested: u64, oldest: u64) -> ApiError {
    ApiError::Expired { message: format!("too old resource version: {requested} ({oldest})"), continue_token: None }
}
