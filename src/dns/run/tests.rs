use std::collections::BTreeMap;

use api::object::{GroupResource, ObjectIndex, ObjectKey};
use client::ObjectSource;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::answer::{Outcome, answer};

/// Tells what the test says; one channel for each resource.
#[derive(Default)]
struct Script {
    feeds: Mutex<BTreeMap<GroupResource, mpsc::Receiver<Change>>>,
    objects: Mutex<BTreeMap<GroupResource, Vec<Object>>>,
}

impl ObjectSource for Script {
    fn get(&self, _: &GroupResource, _: &ObjectKey) -> Option<Object> {
        None
    }

    fn list(&self, resource: &GroupResource, _: &Query<'_>) -> Vec<Object> {
        self.objects.lock().get(resource).cloned().unwrap_or_default()
    }

    fn revision(&self, _: &GroupResource) -> u64 {
        0
    }

    fn subscribe(&self, resource: &GroupResource) -> Subscription {
        let feed = self.feeds.lock().remove(resource).unwrap();
        Subscription::new(ReceiverStream::new(feed).boxed())
    }
}

fn service(cluster_ip: &str) -> Object {
    let index = ObjectIndex { key: ObjectKey::new("shop", "web"), ..ObjectIndex::default() };
    let json = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"clusterIP": cluster_ip}});
    Object { json: json.to_string().into(), index: Arc::new(index) }
}

fn address(zone: &RwLock<Zone>) -> Option<String> {
    let name = Name::from_ascii("web.shop.svc.cluster.local.").unwrap();
    match answer(&zone.read(), &name, hickory_proto::rr::RecordType::A) {
        Outcome::Reply(reply) => reply.answers.first().map(|record| record.data.to_string()),
        Outcome::Alias(_) | Outcome::NotOurs => None,
    }
}

#[tokio::test]
async fn the_zone_follows_the_objects_and_is_made_anew_after_a_gap() {
    let script = Arc::new(Script::default());
    let open = |resource: GroupResource| {
        let (sender, receiver) = mpsc::channel(8);
        script.feeds.lock().insert(resource, receiver);
        sender
    };
    let namespaces = open(GroupResource::of::<Namespace>());
    let services = open(GroupResource::of::<Service>());
    let slices = open(GroupResource::of::<EndpointSlice>());
    let source: Arc<dyn ObjectSource> = Arc::<Script>::clone(&script);
    let cluster = Cluster::new(source, |_| unreachable!("DNS writes nothing"));
    let zone = Arc::new(RwLock::new(crate::zone::fixtures::zone()));
    let mut feed = Feed::new(cluster, Arc::clone(&zone));

    services.send(Change::Applied { object: service("10.96.0.7"), old: None }).await.unwrap();
    services.send(Change::Synced).await.unwrap();
    slices.send(Change::Synced).await.unwrap();
    for _ in 0..3 {
        feed.step().await.unwrap();
    }
    assert_eq!(feed.unsynced, 1, "namespaces are still to come");
    namespaces.send(Change::Synced).await.unwrap();
    feed.sync().await.unwrap();
    assert_eq!(address(&zone).as_deref(), Some("10.96.0.7"));

    script.objects.lock().insert(GroupResource::of::<Service>(), vec![service("10.96.0.8")]);
    services.send(Change::Resync).await.unwrap();
    feed.step().await.unwrap();
    assert_eq!(address(&zone).as_deref(), Some("10.96.0.8"));
    assert!(zone.read().serial > 0);

    services.send(Change::Deleted { object: service("10.96.0.8") }).await.unwrap();
    feed.step().await.unwrap();
    assert_eq!(address(&zone), None);
    drop(services);
    assert!(matches!(feed.step().await, Err(Error::SourceEnded("services"))));
}
