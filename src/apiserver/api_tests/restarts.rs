//! What a restart keeps, and what it tells those who ask about the time before it.

use serde_json::{Value, json};

use super::fixtures::{CONFIG_MAPS, Client};
use crate::config::Store;

#[tokio::test]
async fn objects_and_revisions_go_on_and_older_revisions_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::File { database: directory.path().join("store"), marker: None };
    let first = Client::with(store.clone()).await;
    let kept = first.config_map("a", "1").await;
    let old: u64 = kept["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    first.config_map("b", "1").await;
    let page = first.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    first.config_map("c", "1").await;
    first.server.close().await.unwrap();
    let refused = first.post(CONFIG_MAPS, &super::fixtures::config_map("d", "1")).await;
    assert_eq!(refused.failure(), (500, String::new(), "the store is closed".into()));
    drop(first);

    let second = Client::with(store).await;
    assert_eq!(second.get(&format!("{CONFIG_MAPS}/a")).await.expect(200), kept);
    let next = second.config_map("d", "1").await;
    assert!(next["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > old);

    let mut events = second.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={old}")).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], json!("Expired"));
    assert_eq!(events.next().await, None);

    let (code, reason, message) = second.get(&format!("{CONFIG_MAPS}?continue={token}")).await.failure();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    assert!(message.starts_with("The provided continue parameter is too old"), "{message}");
    let status = second.get(&format!("{CONFIG_MAPS}?continue={token}")).await.json();
    let inconsistent = status["metadata"]["continue"].as_str().unwrap();
    let rest = second.get(&format!("{CONFIG_MAPS}?continue={inconsistent}")).await.expect(200);
    let names: Vec<&Value> = rest["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["b", "c", "d"]);
}
