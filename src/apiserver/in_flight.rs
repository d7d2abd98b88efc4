//! The requests that are answered at one time, and the memory that their answers take.
//!
//! The numbers are upstream's. Logs and streams are not counted, nor is whoever the cluster cannot do
//! without: components of this process, administrators, and probes of health. A user gets a share, so that
//! one cannot keep others out; whoever finds no place is told to come again. The answer to a write is never
//! refused: what it tells of has been done.
//!
//! A watch is a read until its initial events are out, as with upstream's priority and fairness. For as long
//! as it lasts it has one of the places for watches, which upstream does not bound.

use std::sync::Arc;

use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::answer::{Buffered, text};
use crate::auth::{User, user};
use crate::request::RequestInfo;
use crate::room;
use crate::shares::{Full, Pass, Pool};

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const READING: usize = 400;
const MUTATING: usize = 200;
/// Of a number, what one user gets.
const USERS_SHARE: usize = 4;
/// An idle watch takes some five kilobytes: 50 MB. A hundred nodes have ten each.
const WATCHING: usize = 10_000;
/// A DaemonSet's service account on each of a hundred nodes, with ten watches each, twice over.
const WATCHING_OF_ONE: usize = 2_000;
/// A selector is kept as long as its watch, and takes twenty times the bytes of its text: for each so many,
/// the watch takes another place.
const SELECTOR_OF_PLACE: usize = 256;
/// Answers that were built and wait for clients to take them: a tenth of a board's gigabyte. Lists of
/// whole objects are put together as they are sent and do not count.
const BUFFERED_KIB: usize = 96 * 1024;
/// Smaller ones are bounded by their number.
const COUNTED_FROM: usize = 16 * 1024;
/// An answer that is larger than the pool of memory counts as half of it: it is sent when others are not.
const LARGEST_KIB: usize = BUFFERED_KIB / 2;

/// The places for requests and the memory for their answers.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: Arc<Pool>,
    mutating: Arc<Pool>,
    buffered: Arc<Pool>,
    watching: Arc<Pool>,
}

impl Default for InFlight {
    fn default() -> Self {
        let shared = |limit: usize| Pool::new(limit, limit / USERS_SHARE);
        Self {
            reading: shared(READING),
            mutating: shared(MUTATING),
            buffered: shared(BUFFERED_KIB),
            watching: Pool::new(WATCHING, WATCHING_OF_ONE),
        }
    }
}

/// All that a request has of the pools.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    /// Among the requests; a watch gives it back when its initial events are out.
    pub(crate) place: Option<Pass>,
    memory: Option<Pass>,
    _watch: Option<Pass>,
}

impl InFlight {
    /// The places that a request needs.
    ///
    /// # Errors
    /// When one of them is not free.
    pub(crate) fn admit(&self, info: &RequestInfo, user: &User) -> Result<Passes, Full> {
        let is_watch = info.is_watch();
        if user.is_in(user::MASTERS) || (info.is_long_running() && !is_watch) || info.is_health() {
            return Ok(Passes::default());
        }
        // Accounts are free for whoever may make them: those of a namespace have one share.
        let turn = room::turn(user);
        let selector = info.label_selector.len() + info.field_selector.len();
        let watch = is_watch.then(|| self.watching.enter(turn, 1 + selector / SELECTOR_OF_PLACE)).transpose()?;
        let places = if info.is_mutating() { &self.mutating } else { &self.reading };
        Ok(Passes { place: Some(places.enter(turn, 1)?), memory: None, _watch: watch })
    }

    /// The memory of an answer to a read, unless it is small.
    ///
    /// # Errors
    /// When too much of it is taken.
    fn keep(&self, pass: Option<&Pass>, bytes: usize) -> Result<Option<Pass>, Full> {
        match pass {
            Some(pass) if bytes >= COUNTED_FROM && pass.is_of(&self.reading) => {
                self.buffered.enter(pass.turn(), (bytes / 1024).min(LARGEST_KIB)).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// An answer whose memory is taken, or the refusal of one that there is no memory for.
    pub(crate) fn buffer(&self, mut response: Response, passes: &mut Passes) -> Response {
        let bytes = response.extensions_mut().remove::<Buffered>().map_or(0, |Buffered(bytes)| bytes);
        match self.keep(passes.place.as_ref(), bytes) {
            Ok(memory) => passes.memory = memory,
            Err(Full) => return too_many(),
        }
        response
    }

    /// How many requests have a place.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.reading.taken() + self.mutating.taken()
    }

    /// How many places watches have.
    #[cfg(test)]
    pub(crate) fn watching(&self) -> usize {
        self.watching.taken()
    }
}

/// The answer to whoever found no place, as upstream gives it.
pub(crate) fn too_many() -> Response {
    let body = "Too many requests, please try again later.\n".to_owned();
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
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
        let in_flight = InFlight::default();
        let list = RequestInfo::parse(&Method::GET, "/api/v1/pods", None);
        let admit = |name: &str| in_flight.admit(&list, &named(name, &[]));
        let of_one: Vec<_> = (0..100).map(|_| admit("a").unwrap()).collect();
        assert!(matches!(admit("a"), Err(Full)));
        let of_others: Vec<_> = (0..300).map(|n| admit(&format!("u{}", n % 10)).unwrap()).collect();
        assert!(matches!(admit("b"), Err(Full)));
        drop(of_one);
        admit("a").unwrap();
        drop(of_others);
        assert_eq!(in_flight.reading.taken(), 0);
    }

    #[test]
    fn service_accounts_of_a_namespace_share_its_part() {
        let in_flight = InFlight::default();
        let list = RequestInfo::parse(&Method::GET, "/openapi/v2", None);
        let account = |namespace: &str, n: usize| {
            let group = format!("system:serviceaccounts:{namespace}");
            named(&format!("system:serviceaccount:{namespace}:a{n}"), &[user::SERVICE_ACCOUNTS, &group])
        };
        let _held: Vec<_> = (0..100).map(|n| in_flight.admit(&list, &account("evil", n)).unwrap()).collect();
        assert!(matches!(in_flight.admit(&list, &account("evil", 200)), Err(Full)));
        in_flight.admit(&list, &account("good", 1)).unwrap();
    }

    #[test]
    fn reads_and_writes_have_rooms_of_their_own() {
        let in_flight = InFlight::default();
        let user = named("a", &[]);
        let request = |method: Method, path: &str, query: Option<&str>| RequestInfo::parse(&method, path, query);
        let create = request(Method::POST, "/api/v1/namespaces/a/pods", None);
        let held: Vec<_> = (0..50).map(|_| in_flight.admit(&create, &user).unwrap()).collect();
        assert!(matches!(in_flight.admit(&create, &user), Err(Full)));
        for (path, query, counted) in [
            ("/api/v1/pods", None, true),
            ("/openapi/v2", None, true),
            ("/api/v1/pods", Some("watch=true"), true),
            ("/api/v1/namespaces/a/pods/p/log", None, false),
            ("/readyz", None, false),
            ("/livez/ping", None, false),
        ] {
            let pass = in_flight.admit(&request(Method::GET, path, query), &user).unwrap();
            assert_eq!(pass.place.is_some(), counted, "{path}");
        }
        assert!(in_flight.admit(&create, &named("root", &[user::MASTERS])).unwrap().place.is_none());
        drop(held);
    }

    #[test]
    fn watches_are_bounded_for_a_user_and_for_all() {
        let in_flight = InFlight::default();
        let watch = |query: &str| RequestInfo::parse(&Method::GET, "/api/v1/pods", Some(query));
        let start = |name: &str, query: &str, groups: &[&str]| {
            let mut passes = in_flight.admit(&watch(query), &named(name, groups))?;
            // As when the initial events are out.
            passes.place = None;
            Ok::<Passes, Full>(passes)
        };
        let of_one: Vec<_> = (0..2_000).map(|_| start("a", "watch=1", &[]).unwrap()).collect();
        assert!(matches!(start("a", "watch=1", &[]), Err(Full)));
        start("root", "watch=1", &[user::MASTERS]).unwrap();
        let of_others: Vec<_> = (0..8_000).map(|n| start(&format!("u{}", n % 4), "watch=1", &[]).unwrap()).collect();
        assert!(matches!(start("b", "watch=1", &[]), Err(Full)));
        assert_eq!((in_flight.watching(), in_flight.running()), (10_000, 0), "a refused one has no place left");
        start("root", "watch=1", &[user::MASTERS]).unwrap();
        drop((of_one, of_others));
        assert_eq!(in_flight.watching(), 0);
        let long = format!("watch=1&labelSelector={}", "k!=a,".repeat(1_600));
        let of_one: Vec<_> = (0..62).map(|_| start("a", &long, &[]).unwrap()).collect();
        assert!(matches!(start("a", &long, &[]), Err(Full)), "{} places", in_flight.watching());
        drop(of_one);
    }

    #[test]
    fn answers_to_reads_have_so_much_memory_and_a_user_a_share() {
        const MIB: usize = 1024 * 1024;
        let in_flight = InFlight::default();
        let read = |name: &str| in_flight.reading.enter(name, 1).unwrap();
        let (a, write) = (read("a"), in_flight.mutating.enter("a", 1).unwrap());
        assert!(in_flight.keep(Some(&a), 100).unwrap().is_none());
        let of_one: Vec<_> = (0..24).map(|_| in_flight.keep(Some(&a), MIB).unwrap()).collect();
        assert!(matches!(in_flight.keep(Some(&a), MIB), Err(Full)));
        // What was written is told, and administrators have no pass.
        assert!(in_flight.keep(Some(&write), MIB).unwrap().is_none());
        assert!(in_flight.keep(None, MIB).unwrap().is_none());
        let b = read("b");
        let huge = in_flight.keep(Some(&b), usize::MAX).unwrap();
        let c = read("c");
        let rest: Vec<_> = (0..24).map(|_| in_flight.keep(Some(&c), MIB).unwrap()).collect();
        let d = read("d");
        assert!(matches!(in_flight.keep(Some(&d), MIB), Err(Full)));
        drop(huge);
        assert!(in_flight.keep(Some(&d), MIB).is_ok());
        drop((of_one, rest));
    }
}
