//! The requests that are answered at one time, and the memory that their answers take.
//!
//! The numbers are upstream's. Watches, logs and streams are not counted, nor is whoever the cluster
//! cannot do without: components of this process, administrators, and probes of health. A user gets a
//! share, so that one cannot keep others out; whoever finds no place is told to come again.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{Buffered, text};
use crate::auth::{User, user};
use crate::connections::Running;
use crate::request::RequestInfo;

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const READING: usize = 400;
const MUTATING: usize = 200;
/// Of either number, what one user gets.
const USERS_SHARE: usize = 4;
/// Answers that were built and wait for clients to take them: a tenth of a board's gigabyte. Lists of
/// whole objects are put together as they are sent and do not count.
const BUFFERED_KIB: u32 = 96 * 1024;
/// Smaller ones are bounded by their number.
const COUNTED_FROM: usize = 16 * 1024;
/// An answer that is larger than all of the room counts as half of it: it is sent when others are not.
const LARGEST_KIB: u32 = BUFFERED_KIB / 2;

/// The room for requests and their answers.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: Arc<Room>,
    mutating: Arc<Room>,
    buffered: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            reading: Room::new(READING),
            mutating: Room::new(MUTATING),
            buffered: Arc::new(Semaphore::new(BUFFERED_KIB as usize)),
        }
    }
}

#[derive(Debug)]
struct Room {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<String, usize>,
}

/// A request's place, until its answer is out.
#[derive(Debug)]
pub(crate) struct Pass {
    room: Arc<Room>,
    user: String,
}

/// There is no room: the client is to come again in a second.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl InFlight {
    /// A place for a request, if it needs one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn admit(&self, info: &RequestInfo, user: &User) -> Result<Option<Pass>, Full> {
        if user.is_in(user::MASTERS) || info.is_long_running() || info.is_health() {
            return Ok(None);
        }
        let room = if info.is_mutating() { &self.mutating } else { &self.reading };
        room.enter(&user.name).map(Some)
    }

    /// The memory of an answer, unless it is small.
    ///
    /// # Errors
    /// When too much of it is taken.
    fn keep(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Full> {
        if bytes < COUNTED_FROM {
            return Ok(None);
        }
        let kib = u32::try_from(bytes / 1024).map_or(LARGEST_KIB, |kib| kib.min(LARGEST_KIB));
        Arc::clone(&self.buffered).try_acquire_many_owned(kib).map(Some).map_err(|_| Full)
    }

    /// An answer that holds the places of its request until it is out, or the refusal of one that there
    /// is no memory for.
    pub(crate) fn hold(&self, mut response: Response, running: Running, pass: Option<Pass>) -> Response {
        let bytes = response.extensions_mut().remove::<Buffered>().map_or(0, |Buffered(bytes)| bytes);
        let (response, memory) = match self.keep(bytes) {
            Ok(memory) => (response, memory),
            Err(Full) => (too_many(), None),
        };
        response.map(|body| Body::new(Held { body, _running: running, _pass: pass, _memory: memory }))
    }
}

impl Room {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, user: &str) -> Result<Pass, Full> {
        let mut taken = self.taken.lock();
        let own = taken.by_user.get(user).copied().unwrap_or(0);
        if taken.all >= self.limit || own >= self.limit / USERS_SHARE {
            return Err(Full);
        }
        taken.all += 1;
        *taken.by_user.entry(user.to_owned()).or_default() += 1;
        Ok(Pass { room: Arc::clone(self), user: user.to_owned() })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

/// The answer to whoever found no place, as upstream gives it.
pub(crate) fn too_many() -> Response {
    let body = "Too many requests, please try again later.\n".to_owned();
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A body that holds what its request holds.
struct Held {
    body: Body,
    _running: Running,
    _pass: Option<Pass>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn named(name: &str, groups: &[&str]) -> User {
        User::authenticated(name, groups)
    }

    #[test]
    fn a_user_gets_a_share_and_all_of_them_the_whole() {
        let room = InFlight::default();
        let list = RequestInfo::parse(&Method::GET, "/api/v1/pods", None);
        let admit = |name: &str| room.admit(&list, &named(name, &[]));
        let of_one: Vec<_> = (0..100).map(|_| admit("a").unwrap().unwrap()).collect();
        assert!(matches!(admit("a"), Err(Full)));
        let of_others: Vec<_> = (0..300).map(|n| admit(&format!("u{}", n % 10)).unwrap().unwrap()).collect();
        assert!(matches!(admit("b"), Err(Full)));
        drop(of_one);
        admit("a").unwrap().unwrap();
        drop(of_others);
        let taken = room.reading.taken.lock();
        assert!(taken.all == 0 && taken.by_user.is_empty());
    }

    #[test]
    fn reads_and_writes_have_rooms_of_their_own() {
        let room = InFlight::default();
        let user = named("a", &[]);
        let request = |method: Method, path: &str, query: Option<&str>| RequestInfo::parse(&method, path, query);
        let create = request(Method::POST, "/api/v1/namespaces/a/pods", None);
        let held: Vec<_> = (0..50).map(|_| room.admit(&create, &user).unwrap().unwrap()).collect();
        assert!(matches!(room.admit(&create, &user), Err(Full)));
        for (path, query, counted) in [
            ("/api/v1/pods", None, true),
            ("/openapi/v2", None, true),
            ("/api/v1/pods", Some("watch=true"), false),
            ("/api/v1/namespaces/a/pods/p/log", None, false),
            ("/readyz", None, false),
            ("/livez/ping", None, false),
        ] {
            let pass = room.admit(&request(Method::GET, path, query), &user).unwrap();
            assert_eq!(pass.is_some(), counted, "{path}");
        }
        assert!(room.admit(&create, &named("root", &[user::MASTERS])).unwrap().is_none());
        drop(held);
    }

    #[test]
    fn answers_have_so_much_memory_and_no_more() {
        let room = InFlight::default();
        assert!(room.keep(100).unwrap().is_none());
        let huge = room.keep(usize::MAX).unwrap();
        let rest: Vec<_> = (0..48).map(|_| room.keep(1024 * 1024).unwrap()).collect();
        assert!(matches!(room.keep(1024 * 1024), Err(Full)));
        drop(huge);
        assert!(room.keep(1024 * 1024).is_ok());
        drop(rest);
    }
}
