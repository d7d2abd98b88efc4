use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::object::{GroupResource, ObjectKey};
use api::selector::LabelSelector;
use serde_json::json;

use super::*;
use crate::config::Store;

const LABELS: usize = 100;

fn config_maps() -> GroupResource {
    GroupResource::new("", "configmaps")
}

async fn create(registry: &Registry, name: &str) {
    let labels: BTreeMap<String, &str> = (0..LABELS).map(|i| (format!("k{i}"), "b")).collect();
    let metadata = json!({"name": name, "namespace": "a", "labels": labels});
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata});
    registry.create(&config_maps(), object).await.unwrap();
}

/// A selector that matches everything and looks at each label.
fn costly() -> Selection {
    let text: Vec<String> = (0..LABELS).map(|i| format!("k{i}!=a")).collect();
    Selection::of_labels(&LabelSelector::parse(&text.join(",")).unwrap())
}

fn walk(registry: &Registry, range: Range) -> Walk {
    let collection = "core/configmaps".to_owned();
    Walk { registry: registry.clone(), collection, prefix: "a/".into(), selection: Arc::new(costly()), range }
}

type State = BTreeMap<String, u64>;

fn state(registry: &Registry) -> State {
    let objects = registry.list(&config_maps(), Some("a"));
    objects.iter().map(|o| (o.index.key.name.to_string(), o.index.resource_version)).collect()
}

fn found(entries: &[Arc<ObjectEntry>]) -> State {
    entries.iter().map(|e| (e.index.key.name.to_string(), e.revision)).collect()
}

/// What changed between two slices is not in the state, and follows it as events.
#[tokio::test]
async fn slices_are_of_one_revision_whatever_is_written_in_between() {
    for (seed, size) in [(1, 1), (2, 7), (3, 64), (4, usize::MAX)] {
        let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
        for i in 0..200 {
            create(&registry, &format!("m{i:03}")).await;
        }
        let (expected, mut step) = (state(&registry), seed * 37);
        let walk = walk(&registry, Range::default());
        let mut slices = Box::pin(walk.in_slices(size));
        let mut pauses = 0;
        let all = loop {
            if let std::task::Poll::Ready(all) = futures::poll!(&mut slices) {
                break all.unwrap();
            }
            pauses += 1;
            for _ in 0..5 {
                step = (step * 31 + 17) % 401;
                let name = format!("m{:03}", step % 211);
                let key = ObjectKey::new("a", &name);
                if registry.get(&config_maps(), &key).is_some() {
                    registry.remove(&config_maps(), &key).await.unwrap();
                } else {
                    create(&registry, &name).await;
                }
            }
        };
        assert!(pauses >= 3, "{pauses} pauses");
        assert_eq!(found(&all.entries), expected, "slices of {size}");
        let resource = registry.resources().get("", "configmaps").unwrap();
        let mut then = found(&all.entries);
        for event in registry.watch(resource, all.revision).unwrap().ready().unwrap() {
            let name = event.entry.index.key.name.to_string();
            let before = if event.deleted { then.remove(&name) } else { then.insert(name, event.revision()) };
            assert_eq!(before, event.old.as_ref().map(|old| old.revision), "each change once");
        }
        assert_eq!(then, state(&registry));
        assert_ne!(then, expected);
    }
}

#[tokio::test]
async fn a_limit_ends_the_way_and_says_that_there_is_more() {
    let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
    for i in 0..20 {
        create(&registry, &format!("m{i:02}")).await;
    }
    for (start, limit, entries, beyond) in
        [("", 0, 20, 0), ("", 7, 7, 1), ("", 20, 20, 0), ("a/m15", 4, 4, 1), ("a/m15", 5, 5, 0), ("a/m19\0", 5, 0, 0)]
    {
        let walk = walk(&registry, Range { start: start.into(), at: None, limit });
        let found = walk.in_slices(3).await.unwrap();
        assert_eq!((found.entries.len(), found.beyond), (entries, beyond), "from {start:?}, {limit}");
    }
}

#[tokio::test]
async fn others_have_their_turn_between_the_slices() {
    let registry = Registry::open(&Store::Memory, u64::MAX).unwrap();
    for i in 0..200 {
        create(&registry, &format!("m{i:03}")).await;
    }
    let turns = Arc::new(AtomicUsize::new(0));
    let mut others = tokio::task::JoinSet::new();
    let counter = Arc::clone(&turns);
    others.spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    assert_eq!(walk(&registry, Range::default()).run().await.unwrap().entries.len(), 200);
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 200 * LABELS / TURN, "{turns} turns");
}
