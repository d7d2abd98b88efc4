//! Clients who hold what others need: connections, streams, answers that they do not take.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::fixtures::beside;
use super::running::{Leaf, Running};
use crate::connections::{Connections, Limits};
use crate::listener::{ClientAddress, Origin};

const SOON: Duration = Duration::from_secs(20);

type Sender = SendRequest<Empty<Bytes>>;

/// A connection of HTTP/2 whose streams have the given window, and the task that ends with it.
async fn http2(running: &Running, leaf: Option<Leaf>, window: u32) -> (Sender, JoinSet<()>) {
    let tls = running.connect(leaf, b"h2").await;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(tls)).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move { drop(connection.await) });
    (sender, task)
}

async fn ask(sender: &mut Sender, path: &str) -> http::Response<Incoming> {
    let request = Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap();
    timeout(SOON, sender.send_request(request)).await.unwrap().unwrap()
}

#[tokio::test]
async fn strangers_keep_nobody_out() {
    let mut running = Running::start().await;
    let (mut known, _connection) = http2(&running, running.admin(), 65_535).await;
    assert_eq!(ask(&mut known, "/api/v1/nodes").await.status(), StatusCode::OK);
    let mut strangers = Vec::new();
    for n in 0..300 {
        strangers.push(running.connect(None, if n % 2 == 0 { b"h2" } else { b"http/1.1" }).await);
    }
    // Whoever was known keeps the connection; whoever comes with a credential gets one.
    assert_eq!(ask(&mut known, "/api/v1/nodes").await.status(), StatusCode::OK);
    let admin = running.admin();
    let answer = timeout(SOON, running.get("/api/v1/nodes", admin, false)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // The oldest strangers are gone.
    let mut rest = Vec::new();
    timeout(SOON, strangers[0].read_to_end(&mut rest)).await.unwrap().ok();
}

#[tokio::test]
async fn a_stranger_on_http2_gets_one_answer() {
    let running = Running::start().await;
    for path in ["/readyz", "/api/v1/nodes"] {
        let (mut sender, mut connection) = http2(&running, None, 65_535).await;
        drop(ask(&mut sender, path).await.into_body().collect().await.unwrap());
        assert!(timeout(SOON, connection.join_next()).await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_only_answers_pings_ends() {
    let idle = Duration::from_millis(300);
    let running = Running::start_within(Limits { stranger_idle: idle, ..Limits::DEFAULT }).await;
    // Kept, so that the client has no reason of its own to hang up.
    let (_sender, mut connection) = http2(&running, None, 65_535).await;
    assert!(timeout(SOON, connection.join_next()).await.is_ok());
}

/// The beginning of a client of HTTP/2: its preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Frames that ask for nothing: a window, a priority, and one of a kind that nobody knows.
const NOTHING: [&[u8]; 3] =
    [b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01", b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x01", b"\0\0\0\xbb\0\0\0\0\0"];

#[tokio::test]
async fn a_stranger_who_floods_is_ended() {
    let running = Running::start().await;
    for frame in NOTHING {
        let mut tls = running.connect(None, b"h2").await;
        tls.write_all(PREFACE).await.unwrap();
        let flood = frame.repeat(512 * 1024 / frame.len());
        let mut sent = 0;
        while sent < 64 && timeout(SOON, tls.write_all(&flood)).await.unwrap().is_ok() {
            sent += 1;
        }
        assert!(sent < 64, "{frame:?}");
    }
}

/// Much more than a stranger may send at once, but with requests in it.
#[tokio::test]
async fn a_stranger_who_asks_for_health_may_do_so_for_ever() {
    let running = Running::start().await;
    let tls = running.connect(None, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move { drop(connection.await) });
    for _ in 0..200 {
        let request = Request::get("/livez").header("host", "localhost").header("x", "y".repeat(4000));
        let asked = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answer = timeout(SOON, asked).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.unwrap();
    }
}

/// Nobody's clock is asked: others have their turns while a connection is read that never runs dry.
#[tokio::test]
async fn a_flood_keeps_no_thread() {
    const FLOOD: usize = 2 << 20;
    let running = Running::start().await;
    let places = Connections::new(Limits::DEFAULT, CancellationToken::new());
    for frame in NOTHING {
        let flood: &'static [u8] = [PREFACE, &frame.repeat(FLOOD / frame.len())].concat().leak();
        let connection = places.enter([10, 0, 0, 1].into(), Instant::now());
        connection.allowance.lift();
        let origin = Origin { address: ClientAddress([10, 0, 0, 1].into()), connection, certificate: None };
        let stream = tokio::io::join(flood, tokio::io::sink());
        let ((), turns) = beside(Arc::clone(&running.server).converse(stream, origin)).await;
        assert!(turns >= FLOOD / 8192, "{turns} turns beside {frame:?}");
    }
}

/// Windows of a stream with which a client takes nothing of an answer, one byte, or what clients open.
const WINDOWS: [u32; 3] = [0, 1, 65_535];
/// An answer that is larger than all of them.
const LARGE: &str = "/openapi/v2";

/// Until no request of the server holds a place.
async fn nothing_runs(running: &Running) {
    let wait = async {
        while running.server.in_flight.running() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, wait).await.unwrap();
}

fn member(running: &Running, name: &str) -> Option<Leaf> {
    Some(running.pki.leaf(name, "devs", ExtendedKeyUsagePurpose::ClientAuth))
}

/// Limits after which answers stall. It is looked at as often as whether anything is asked at all.
fn soon() -> Limits {
    let idle = Duration::from_secs(3);
    let within = Duration::from_millis(700);
    Limits { answered_within: within, stranger_idle: idle, member_idle: idle, ..Limits::DEFAULT }
}

#[tokio::test]
async fn a_client_who_takes_no_answer_is_cut_off_and_leaves_nothing_behind() {
    let running = Running::start_within(soon()).await;
    let (mut connections, mut stalled) = (Vec::new(), Vec::new());
    for window in WINDOWS {
        let (mut sender, connection) = http2(&running, member(&running, "ann"), window).await;
        for _ in 0..20 {
            let answer = ask(&mut sender, LARGE).await;
            assert_eq!(answer.status(), StatusCode::OK);
            stalled.push(answer);
        }
        connections.push((window, sender, connection));
    }
    assert_eq!(running.server.openapi.len(), 1, "one document for all of them");
    for (window, _sender, mut connection) in connections {
        assert!(timeout(SOON, connection.join_next()).await.is_ok(), "window {window}");
    }
    nothing_runs(&running).await;
    drop(stalled);
    let later = Instant::now() + Duration::from_secs(120);
    running.server.openapi.forget_unused(later);
    assert_eq!(running.server.openapi.len(), 0);
}

async fn devs_may_view(running: &mut Running) {
    let binding = serde_json::json!({
        "metadata": {"name": "devs"}, "subjects": [{"kind": "Group", "name": "devs"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    });
    let request = Request::post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings");
    let request = request.header("content-type", "application/json").body(binding.to_string().into()).unwrap();
    let admin = running.admin();
    assert_eq!(running.send(request, admin, false).await.status(), StatusCode::CREATED);
}

/// A watch of all changes, which has no initial events.
const CHANGES: &str = "/api/v1/namespaces?watch=1&resourceVersion=1";

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_and_the_watch_beside_it_goes_on() {
    let mut running = Running::start_within(soon()).await;
    devs_may_view(&mut running).await;
    let mut connections = Vec::new();
    for window in WINDOWS {
        let (mut sender, connection) = http2(&running, member(&running, "ann"), window).await;
        let watch = ask(&mut sender, CHANGES).await;
        let stalled = ask(&mut sender, LARGE).await;
        assert_eq!((watch.status(), stalled.status()), (StatusCode::OK, StatusCode::OK));
        connections.push((window, sender, connection, watch.into_body(), stalled.into_body()));
    }
    assert_eq!(running.server.in_flight.running(), WINDOWS.len());
    nothing_runs(&running).await;
    for (window, mut sender, _connection, mut watch, mut stalled) in connections {
        let what_was_sent = async { while stalled.frame().await.unwrap().is_ok() {} };
        timeout(SOON, what_was_sent).await.unwrap();
        let next = ask(&mut sender, "/version").await;
        assert_eq!(next.status(), StatusCode::OK, "window {window}");
        if window == 0 {
            assert!(futures::poll!(Box::pin(watch.frame())).is_pending());
        } else {
            timeout(SOON, watch.frame()).await.unwrap().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_watch_whose_initial_events_are_not_taken_ends_and_the_one_beside_it_goes_on() {
    let mut running = Running::start_within(soon()).await;
    devs_may_view(&mut running).await;
    let (mut sender, _connection) = http2(&running, member(&running, "ann"), 0).await;
    let mut initial = ask(&mut sender, "/api/v1/namespaces?watch=1&resourceVersion=0").await.into_body();
    let mut changes = ask(&mut sender, CHANGES).await.into_body();
    let places = || (running.server.in_flight.running(), running.server.in_flight.watching());
    assert_eq!(places(), (1, 2));
    let what_was_sent = async { while initial.frame().await.unwrap().is_ok() {} };
    timeout(SOON, what_was_sent).await.unwrap();
    nothing_runs(&running).await;
    assert_eq!(places(), (0, 1));
    assert_eq!(ask(&mut sender, "/version").await.status(), StatusCode::OK);
    assert!(futures::poll!(Box::pin(changes.frame())).is_pending());
}

#[tokio::test]
async fn one_user_gets_a_share_of_the_requests_in_flight() {
    let running = Running::start().await;
    for window in WINDOWS {
        let (mut sender, connection) = http2(&running, member(&running, "ann"), window).await;
        let mut answers = Vec::new();
        for _ in 0..110 {
            answers.push(ask(&mut sender, LARGE).await);
        }
        let of = |code: StatusCode| answers.iter().filter(|a| a.status() == code).count();
        assert_eq!((of(StatusCode::OK), of(StatusCode::TOO_MANY_REQUESTS)), (100, 10), "window {window}");
        assert_eq!(answers[109].headers()["retry-after"], "1");
        // Others are not concerned.
        let (mut other, _connection) = http2(&running, member(&running, "bob"), 65_535).await;
        assert_eq!(ask(&mut other, "/api/v1/secrets").await.status(), StatusCode::FORBIDDEN);
        drop((answers, sender, connection));
        nothing_runs(&running).await;
    }
}
