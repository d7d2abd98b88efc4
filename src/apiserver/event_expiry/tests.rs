use api::object::GroupResource;
use serde_json::json;

use super::*;
use crate::config::Store;

const MINUTE: Duration = Duration::from_secs(60);

fn events() -> GroupResource {
    GroupResource::new("", "events")
}

async fn create(registry: &Registry, name: &str) {
    let event = json!({"metadata": {"name": name, "namespace": "default"}, "count": 1});
    registry.create(&events(), event).await.unwrap();
}

fn names(registry: &Registry) -> Vec<String> {
    registry.list(&events(), None).iter().map(|o| o.index.key.name.to_string()).collect()
}

#[tokio::test]
async fn an_event_goes_an_hour_after_its_last_write() {
    let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
    let resource = registry.resources().get("", "events").unwrap();
    let (mut marks, start) = (Marks::default(), Instant::now());
    let mut at = async |minutes: u32| {
        sweep(&registry, resource, &mut marks, LIMITS, start + MINUTE * minutes).await;
        names(&registry)
    };
    create(&registry, "once").await;
    create(&registry, "again").await;
    assert_eq!(at(0).await.len(), 2);
    let repeat = |event: &mut serde_json::Value| {
        event["count"] = json!(2);
        Ok(())
    };
    registry.update(&events(), &api::object::ObjectKey::new("default", "again"), repeat).await.unwrap();
    assert_eq!(at(30).await.len(), 2);
    assert_eq!(at(59).await.len(), 2);
    assert_eq!(at(60).await, ["again"]);
    assert_eq!(at(89).await, ["again"]);
    assert_eq!(at(90).await, [""; 0]);
    // Nothing was written since: the deletions' own revisions are no reason to keep anything.
    create(&registry, "later").await;
    assert_eq!(at(200).await, ["later"]);
    assert_eq!(at(260).await, [""; 0]);
}

#[tokio::test]
async fn a_storm_leaves_the_newest() {
    let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
    let resource = registry.resources().get("", "events").unwrap();
    let mut marks = Marks::default();
    let limits = Limits { most: 5, kept: 3 };
    // The names are not in the order of the writes.
    for name in ["e", "a", "d", "b", "c"] {
        create(&registry, name).await;
    }
    sweep(&registry, resource, &mut marks, limits, Instant::now()).await;
    assert_eq!(names(&registry).len(), 5, "as many as may be");
    create(&registry, "f").await;
    sweep(&registry, resource, &mut marks, limits, Instant::now()).await;
    assert_eq!(names(&registry), ["b", "c", "f"]);
}

#[tokio::test]
async fn many_new_events_are_noticed() {
    let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
    let resource = registry.resources().get("", "events").unwrap();
    let noticed = many_new(&registry, resource, 3);
    tokio::pin!(noticed);
    assert!(futures::poll!(noticed.as_mut()).is_pending());
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert!(futures::poll!(noticed.as_mut()).is_pending(), "after {number}");
        create(&registry, name).await;
    }
    noticed.await;
}
