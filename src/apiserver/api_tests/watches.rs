//! Watches: order, selectors, bookmarks and their ends.

use serde_json::{Value, json};

use super::fixtures::{CONFIG_MAPS, Client};
use crate::reader::ReaderEvent;

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let list = client.get(CONFIG_MAPS).await.expect(200);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    client.config_map("b", "1").await;
    client.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &json!({"data": {"k": "2"}})).await.expect(200);
    client.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.expect(200);
    assert_eq!(events.brief().await, pair("ADDED", "b"));
    assert_eq!(events.brief().await, pair("MODIFIED", "a"));
    assert_eq!(events.brief().await, pair("DELETED", "b"));
}

#[tokio::test]
async fn the_old_paths_of_watches_still_watch() {
    let client = Client::new().await;
    for name in ["a", "b"] {
        client.config_map(name, "1").await;
    }
    let path = CONFIG_MAPS.replace("/api/v1/", "/api/v1/watch/");
    let mut one = client.watch(&format!("{path}/b")).await;
    assert_eq!(one.brief().await, pair("ADDED", "b"));
    let mut all = client.watch("/api/v1/watch/configmaps?fieldSelector=metadata.name%3Da").await;
    assert_eq!(all.brief().await, pair("ADDED", "a"));
    client.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await.expect(200);
    client.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.expect(200);
    assert_eq!(all.brief().await, pair("DELETED", "a"));
    assert_eq!(one.brief().await, pair("DELETED", "b"));
    client.post(&path, &json!({})).await.expect(405);
    client.get(&format!("{path}/b/status")).await.expect(404);
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_is_there() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    client.config_map("b", "1").await;
    assert_eq!(events.brief().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn who_enters_or_leaves_the_selection_is_added_or_deleted() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=n%3D1")).await;
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    let label = |value: &str| json!({"metadata": {"labels": {"n": value}}});
    let path = format!("{CONFIG_MAPS}/a");
    let left = client.patch(&path, "merge-patch", &label("2")).await.expect(200);
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], json!("DELETED"));
    assert_eq!(event["object"]["metadata"]["labels"]["n"], json!("1"));
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    client.patch(&path, "merge-patch", &label("1")).await.expect(200);
    assert_eq!(events.brief().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = client.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    let end = events.next().await.unwrap();
    assert_eq!(end["type"], json!("BOOKMARK"));
    assert_eq!(end["object"]["kind"], json!("ConfigMap"));
    assert_eq!(end["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    client.config_map("b", "1").await;
    assert_eq!(events.brief().await, pair("ADDED", "b"));
}

/// Informers of metadata decode nothing but `PartialObjectMetadata`, bookmarks included.
#[tokio::test]
async fn bookmarks_have_the_shape_of_the_other_events() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let path = format!("{CONFIG_MAPS}?{query}&timeoutSeconds=1");
    let answer = client.open(http::Method::GET, &path, &[("accept", accept)], Vec::new()).await;
    let events =
        tokio::time::timeout(std::time::Duration::from_secs(30), http_body_util::BodyExt::collect(answer.into_body()));
    let body = events.await.unwrap().unwrap().to_bytes();
    let events: Vec<Value> = serde_json::Deserializer::from_slice(&body).into_iter().map(Result::unwrap).collect();
    let end = &events.iter().find(|e| e["type"] == "BOOKMARK").unwrap()["object"];
    assert_eq!((&end["kind"], &end["apiVersion"]), (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1")));
    assert_eq!(end["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}), "{end}");
    assert_ne!(end["metadata"]["resourceVersion"], Value::Null);
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let client = Client::new().await;
    let mut events = client.watch("/api/v1/pods?watch=1").await;
    client.server.close().await.unwrap();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_after_its_time() {
    let client = Client::new().await;
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    tokio::time::pause();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_table_watch_has_columns_once() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    client.config_map("b", "1").await;
    let table = client
        .open(
            http::Method::GET,
            &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"),
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
            Vec::new(),
        )
        .await;
    tokio::time::pause();
    let body = http_body_util::BodyExt::collect(table.into_body()).await.unwrap().to_bytes();
    let events: Vec<Value> = serde_json::Deserializer::from_slice(&body).into_iter().map(Result::unwrap).collect();
    assert_eq!(events.len(), 2);
    assert!(events[0]["object"]["columnDefinitions"].is_array());
    assert!(events[1]["object"]["columnDefinitions"].is_null());
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], json!("b"));
}

#[tokio::test]
async fn a_reader_begins_with_what_is_there_and_follows() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let reader = client.server.reader();
    let config_maps = api::object::GroupResource::new("", "configmaps");
    let mut subscription = reader.subscribe(&config_maps);
    assert!(matches!(subscription.next().await, Some(ReaderEvent::Applied { old: None, .. })));
    assert!(matches!(subscription.next().await, Some(ReaderEvent::Synced)));
    let changed = client.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &json!({"data": {"k": "2"}})).await;
    let revision: u64 = changed.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let Some(ReaderEvent::Applied { object, old: Some(_) }) = subscription.next().await else { panic!() };
    assert_eq!((object.index.resource_version, reader.revision(&config_maps)), (revision, revision));
    client.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await.expect(200);
    assert!(matches!(subscription.next().await, Some(ReaderEvent::Deleted { .. })));
}

/// Clients that ask for the initial events need the bookmark behind them, which no table can carry.
#[tokio::test]
async fn a_watch_takes_the_first_form_that_it_can_stream() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const INITIAL: &str = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let kind = async |query: &str, accept: &str| {
        let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1{query}");
        let answer = client.get_as(&path, accept).await;
        let first = answer.body.split(|b| *b == b'\n').next().unwrap_or_default();
        let event: Value = serde_json::from_slice(first).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        (answer.code.as_u16(), text(&event["object"]["kind"]), text(&event["message"]))
    };
    let refused = "only the following media types are accepted: application/json;stream=watch, \
                   application/vnd.kubernetes.protobuf;stream=watch";
    let both = format!("{TABLE},application/json");
    for (query, accept, code, expected, message) in [
        ("", TABLE, 200, "Table", ""),
        ("", "application/yaml,application/json", 200, "ConfigMap", ""),
        ("", "application/yaml", 406, "", refused),
        (INITIAL, TABLE, 406, "", refused),
        (INITIAL, &both, 200, "ConfigMap", ""),
    ] {
        assert_eq!(kind(query, accept).await, (code, expected.to_owned(), message.to_owned()), "{query} {accept}");
    }
}
