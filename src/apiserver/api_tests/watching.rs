//! What watches cost and hold: places, turns, and encodings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::Buf;
use futures::{StreamExt, poll};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fixtures::{CONFIG_MAPS, Client};
use crate::auth::User;
use crate::auth::user::act_as;
use crate::connections::{Connections, Limits};
use crate::held::Held;
use crate::listener::{ClientAddress, Origin};
use crate::room::{HEAVY, Load};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const LABELS: usize = 100;

/// Requests of a user over a connection.
struct Remote<'c> {
    client: &'c Client,
    origin: Origin,
}

impl<'c> Remote<'c> {
    async fn new(client: &'c Client) -> Self {
        let subjects = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "a"}]);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
        let binding = json!({"metadata": {"name": "a"}, "subjects": subjects, "roleRef": role});
        client.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
        let connections = Connections::new(Limits::DEFAULT, CancellationToken::new());
        let connection = connections.enter([127, 0, 0, 1].into(), Instant::now());
        let address = ClientAddress([127, 0, 0, 1].into());
        Self { client, origin: Origin { address, connection, certificate: None } }
    }

    async fn get(&self, path: &str) -> Response<Held> {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        act_as(request.extensions_mut(), Arc::new(User::authenticated("a", &[])));
        Arc::clone(&self.client.server).serve_request(&self.origin, self.origin.connection.arrive(), request).await
    }

    fn places(&self) -> (usize, usize) {
        (self.client.server.in_flight.running(), self.client.server.in_flight.watching())
    }
}

/// What a body gives without waiting, up to so many pieces.
async fn taken(body: &mut Held, pieces: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..pieces {
        match poll!(Box::pin(body.frame())) {
            Poll::Ready(Some(frame)) => text.extend_from_slice(frame.unwrap().into_data().ok().unwrap().chunk()),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    text
}

async fn revision(client: &Client) -> String {
    let list = client.get(CONFIG_MAPS).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// So many objects of a kilobyte.
async fn fill(client: &Client, count: usize) {
    for i in 0..count {
        let map = json!({"metadata": {"name": format!("m{i:03}")}, "data": {"k": "x".repeat(1_000)}});
        client.post(CONFIG_MAPS, &map).await.expect(201);
    }
}

#[tokio::test]
async fn a_watch_is_a_read_until_its_initial_events_are_out() {
    let client = Client::new().await;
    fill(&client, 60).await;
    let remote = Remote::new(&client).await;
    let mut watch = remote.get(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!((watch.status(), remote.places()), (StatusCode::OK, (1, 1)));
    let first = taken(watch.body_mut(), 1).await;
    assert!((16 << 10..20 << 10).contains(&first.len()), "{} bytes at once", first.len());
    assert_eq!(remote.places(), (1, 1));
    let rest = taken(watch.body_mut(), 100).await;
    assert_eq!(first.iter().chain(&rest).filter(|b| **b == b'\n').count(), 60);
    assert_eq!(remote.places(), (0, 1));
    drop(watch);
    assert_eq!(remote.places(), (0, 0), "its client has vanished");
    // Without initial events it is no read, taken or not.
    let watch = remote.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1000000")).await;
    assert_eq!((watch.status(), remote.places()), (StatusCode::OK, (0, 1)));
    let mut ended = remote.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1000000&timeoutSeconds=1")).await;
    assert_eq!(remote.places(), (0, 2));
    tokio::time::pause();
    assert!(ended.body_mut().frame().await.is_none());
    drop(ended);
    assert_eq!(remote.places(), (0, 1));
    assert_eq!(remote.get(&format!("{CONFIG_MAPS}?watch=1&labelSelector=%3D")).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(remote.places(), (0, 1), "a refused watch holds nothing");
}

#[tokio::test]
async fn watches_that_nobody_reads_take_the_places_of_reads_and_are_ended() {
    let client = Client::new().await;
    fill(&client, 1).await;
    let remote = Remote::new(&client).await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(remote.get(&path).await);
    }
    assert!(held.iter().all(|watch| watch.status() == StatusCode::OK));
    let refused = remote.get(&path).await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    drop(refused);
    assert_eq!(remote.places(), (100, 100));
    tokio::time::pause();
    let stale = tokio::time::timeout(Duration::from_secs(75), remote.origin.connection.stale());
    assert!(stale.await.is_ok(), "the connection is ended");
    drop(held);
    let mut watch = remote.get(&path).await;
    taken(watch.body_mut(), 2).await;
    let stale = tokio::time::timeout(Duration::from_secs(1_000), remote.origin.connection.stale());
    assert!(stale.await.is_err(), "a watch that has begun may last");
}

/// It holds an old version of the object, which nothing else may hold any more.
#[tokio::test]
async fn a_large_event_has_to_be_taken() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let remote = Remote::new(&client).await;
    let revision = revision(&client).await;
    let mut watch = remote.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    for size in [100, 32 << 10] {
        let mut map = super::fixtures::config_map("a", "2");
        map["data"]["k"] = json!("x".repeat(size));
        client.put(&format!("{CONFIG_MAPS}/a"), &map).await.expect(200);
        let piece = watch.body_mut().frame().await.unwrap().unwrap().into_data().ok().unwrap();
        assert!(piece.remaining() > size);
        tokio::time::pause();
        let stale = tokio::time::timeout(Duration::from_secs(1_000), remote.origin.connection.stale());
        assert_eq!(stale.await.is_ok(), size > 100, "{size}");
        drop(piece);
        taken(watch.body_mut(), 1).await;
        let stale = tokio::time::timeout(Duration::from_secs(200), remote.origin.connection.stale());
        assert!(stale.await.is_err(), "{size}: it was taken");
        tokio::time::resume();
    }
}

/// Whatever is written while the initial events are sent, they are one state, and all changes follow it once.
#[tokio::test]
async fn initial_events_are_one_state_and_all_later_events_follow() {
    let client = Client::new().await;
    fill(&client, 100).await;
    for accept in ["application/json", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
        let before = client.get(CONFIG_MAPS).await.expect(200);
        let pairs = |list: &Value| -> Vec<(String, String)> {
            let text = |item: &Value, field: &str| item["metadata"][field].as_str().unwrap().to_owned();
            list["items"].as_array().unwrap().iter().map(|i| (text(i, "name"), text(i, "resourceVersion"))).collect()
        };
        let path = format!("{CONFIG_MAPS}?watch=1");
        let answer = client.open(Method::GET, &path, &[("accept", accept)], Vec::new()).await;
        let mut body = answer.into_body().into_data_stream();
        let mut text = body.next().await.unwrap().unwrap().to_vec();
        let mut changes = 0;
        for i in 0..40 {
            let name = (i * 37) % 130;
            let path = format!("{CONFIG_MAPS}/m{name:03}");
            if client.delete(&path, &Value::Null).await.code != StatusCode::OK {
                let map = json!({"metadata": {"name": format!("m{name:03}")}, "data": {"k": "y".repeat(1_000)}});
                client.post(CONFIG_MAPS, &map).await.expect(201);
            }
            changes += 1;
            if i % 10 == 0 {
                text.extend_from_slice(&body.next().await.unwrap().unwrap());
            }
        }
        while text.iter().filter(|b| **b == b'\n').count() < pairs(&before).len() + changes {
            text.extend_from_slice(&body.next().await.unwrap().unwrap());
        }
        let events: Vec<Value> = serde_json::Deserializer::from_slice(&text).into_iter().map(Result::unwrap).collect();
        let (initial, later) = events.split_at(pairs(&before).len());
        let initial: Vec<&Value> = initial.iter().map(|event| &event["object"]).collect();
        assert_eq!(pairs(&json!({"items": initial})), pairs(&before));
        let revision = |event: &Value| -> u64 {
            event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        };
        assert!(later.is_sorted_by(|a, b| revision(a) < revision(b)), "each change once, in order");
        assert_eq!(later.len(), changes);
    }
}

fn labelled(name: &str, value: &str) -> Value {
    let labels: Value = (0..LABELS).map(|i| (format!("k{i}"), json!(value))).collect::<serde_json::Map<_, _>>().into();
    json!({"metadata": {"name": name, "labels": labels}})
}

/// A selector that looks at all labels of those that it does not match.
fn costly() -> String {
    let requirements: Vec<String> = (0..LABELS).map(|i| format!("k{i}!%3Da")).collect();
    format!("labelSelector={},zz!%3Da,k99%3Dwanted", requirements.join(","))
}

#[tokio::test]
async fn a_costly_selector_leaves_turns_to_others_between_events() {
    let client = Client::new().await;
    let revision = revision(&client).await;
    let mut watch = client.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}&{}", costly())).await;
    for i in 0..300 {
        client.post(CONFIG_MAPS, &labelled(&format!("m{i}"), "b")).await.expect(201);
    }
    client.post(CONFIG_MAPS, &labelled("last", "wanted")).await.expect(201);
    let turns = Arc::new(AtomicUsize::new(0));
    let (mut others, counter) = (JoinSet::new(), Arc::clone(&turns));
    others.spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    assert_eq!(watch.brief().await.1, "last");
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 5, "{turns} turns");
}

/// The room is full, so that what needs it waits.
#[tokio::test]
async fn a_costly_selector_is_matched_in_the_room() {
    let client = Client::new().await;
    for i in 0..400 {
        client.post(CONFIG_MAPS, &labelled(&format!("m{i}"), "b")).await.expect(201);
    }
    let load = Load { passing: HEAVY, ..Load::default() };
    let users: Vec<String> = (0..8).map(|i| format!("u{i}")).collect();
    let entered = Arc::new(tokio::sync::Semaphore::new(0));
    let endless = |_: crate::room::Client| {
        let entered = Arc::clone(&entered);
        async move {
            entered.add_permits(1);
            std::future::pending::<Result<(), crate::error::ApiError>>().await
        }
    };
    let mut busy: Vec<_> = users.iter().map(|user| Box::pin(client.server.room.run(user, load, endless))).collect();
    for one in &mut busy {
        assert!(poll!(one).is_pending());
    }
    entered.acquire_many(8).await.unwrap().forget();
    let none = format!("{CONFIG_MAPS}?{}", costly());
    let watched = none.replace('?', "?watch=1&");
    let mut list = Box::pin(client.get(&none));
    let mut watch = Box::pin(client.watch(&watched));
    for _ in 0..200 {
        assert!(poll!(&mut list).is_pending() && poll!(&mut watch).is_pending());
        yield_now().await;
    }
    assert_eq!(client.get(&format!("{CONFIG_MAPS}?labelSelector=k1%3Da")).await.expect(200)["items"], json!([]));
    drop(busy);
    assert_eq!(list.await.expect(200)["items"], json!([]));
    drop(watch.await);
}

#[tokio::test]
async fn an_event_is_encoded_once_for_all_watches_of_a_form() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion=");
    let revision = revision(&client).await;
    let mut watches = Vec::new();
    for accept in [PROTOBUF, "application/json", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
        for _ in 0..20 {
            let path = format!("{path}{revision}");
            watches.push(
                client.open(Method::GET, &path, &[("accept", accept)], Vec::new()).await.into_body().into_data_stream(),
            );
        }
    }
    let mut large = super::fixtures::config_map("a", "2");
    large["data"]["k"] = json!("x".repeat(8 << 10));
    client.put(&format!("{CONFIG_MAPS}/a"), &large).await.expect(200);
    let frames = futures::future::join_all(watches.iter_mut().map(|watch| watch.next())).await;
    let frames: Vec<_> = frames.into_iter().map(|frame| frame.unwrap().unwrap()).collect();
    assert_eq!(client.server.frames.count(), 3);
    let event: Value = serde_json::from_slice(&frames[20]).unwrap();
    assert_eq!((&event["type"], &event["object"]["data"]), (&json!("MODIFIED"), &large["data"]));
    for of_form in frames.chunks(20).take(2) {
        assert!(of_form.iter().all(|frame| frame.as_ptr() == of_form[0].as_ptr()), "a copy each");
    }
    // Small text costs less to copy than to look for.
    client.config_map("b", "1").await;
    let frames = futures::future::join_all(watches[20..40].iter_mut().map(|watch| watch.next())).await;
    assert!(frames.iter().all(|frame| frame.as_ref().unwrap().as_ref().unwrap().starts_with(b"{\"type\":\"ADDED\"")));
    assert_eq!(client.server.frames.count(), 3);
}
