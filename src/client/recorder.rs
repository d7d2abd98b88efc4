//! Events about objects, as `kubectl describe` shows them (client-go's event recorder).
//!
//! Recording never waits: events go through a bounded queue to one task. A repeated event raises
//! the count of the one that is there, and events that differ in their message alone are joined once
//! there are many. An object that causes too many is cut off for a while, as upstream's correlator does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use crate::similar_events::SimilarEvents;
use crate::{Owned, status};

/// Events that wait to be written; one pod start makes about five.
const QUEUE: usize = 1024;
/// Events remembered for counting repeats (upstream: 4096; a small cluster needs less).
const REMEMBERED: usize = 1024;
/// Upstream's spam filter: a burst of 25 events an object, then one in five minutes.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Record {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Where a component reports what it did. Cloning is cheap; the last clone ends the writer.
#[derive(Clone)]
pub struct Recorder {
    tx: mpsc::Sender<Record>,
    _writer: Arc<Owned>,
}

impl Recorder {
    /// `component` is shown in the FROM column, `host` is the node's name or empty.
    #[must_use]
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (tx, rx) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host: (!host.is_empty()).then(|| host.to_owned()),
            },
            known: HashMap::new(),
            similar: SimilarEvents::new(REMEMBERED),
            allowance: HashMap::new(),
        };
        Self { tx, _writer: Arc::new(Owned::spawn(writer.run(rx))) }
    }

    /// Reports once; an event that finds the queue full is lost, as upstream's is.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let record = Record {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
            at: Timestamp::now(),
        };
        if self.tx.try_send(record).is_err() {
            debug!(reason, "event dropped: the queue is full");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    name: String,
    field_path: String,
    kind: &'static str,
    reason: String,
    message: String,
}

struct Known {
    name: String,
    count: i32,
    last: Instant,
}

struct Allowance {
    left: f64,
    at: Instant,
}

struct Writer {
    client: Client,
    source: EventSource,
    known: HashMap<Same, Known>,
    similar: SimilarEvents<Same>,
    allowance: HashMap<String, Allowance>,
}

impl Writer {
    async fn run(mut self, mut rx: mpsc::Receiver<Record>) {
        while let Some(record) = rx.recv().await {
            let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            if let Err(e) = self.write(&api, &namespace, record).await {
                // Also the ordinary end of events about a namespace that is being deleted.
                debug!("event not written: {}", status::message(&e));
            }
        }
    }

    async fn write(&mut self, api: &Api<Event>, namespace: &str, mut record: Record) -> kube::Result<()> {
        let now = Instant::now();
        let (same, joined) = self.identify(&record, now);
        if let Some(message) = joined {
            record.message = message;
        }
        if !self.allow(&record, now) {
            return Ok(());
        }
        if let Some(known) = self.known.get_mut(&same) {
            known.count += 1;
            known.last = now;
            let patch = serde_json::json!({
                "count": known.count, "lastTimestamp": Time(record.at), "message": record.message,
            });
            let done = api.patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            match done {
                Ok(_) => return Ok(()),
                Err(e) if status::is_not_found(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let event = self.event(namespace, record);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.remember(same, Known { name, count: 1, last: now });
        Ok(())
    }

    /// What an event is the same as, and its message if it is joined with similar ones.
    fn identify(&mut self, record: &Record, now: Instant) -> (Same, Option<String>) {
        let exact = same(record);
        let similar = Same { message: String::new(), ..exact.clone() };
        match self.similar.joined(&similar, &record.message, now) {
            Some(message) => (similar, Some(message)),
            None => (exact, None),
        }
    }

    fn event(&self, namespace: &str, record: Record) -> Event {
        let about = record.about.name.as_deref().unwrap_or("unknown");
        let name = format!("{about}.{:x}", record.at.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
            involved_object: record.about,
            reason: Some(record.reason),
            message: Some(record.message),
            type_: Some(record.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            source: Some(self.source.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, same: Same, known: Known) {
        if self.known.len() >= REMEMBERED {
            let oldest = self.known.iter().min_by_key(|(_, k)| k.last).map(|(s, _)| s.clone());
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(same, known);
    }

    /// A token bucket for each object; full buckets are forgotten.
    fn allow(&mut self, record: &Record, now: Instant) -> bool {
        let refill =
            |a: &Allowance| (a.left + now.duration_since(a.at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        if self.allowance.len() >= REMEMBERED {
            self.allowance.retain(|_, a| refill(a) < BURST);
        }
        let uid = record.about.uid.clone().or_else(|| record.about.name.clone()).unwrap_or_default();
        let bucket = self.allowance.entry(uid).or_insert(Allowance { left: BURST, at: now });
        bucket.left = refill(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

fn same(record: &Record) -> Same {
    Same {
        uid: record.about.uid.clone().unwrap_or_default(),
        name: record.about.name.clone().unwrap_or_default(),
        field_path: record.about.field_path.clone().unwrap_or_default(),
        kind: record.kind.as_str(),
        reason: record.reason.clone(),
        message: record.message.clone(),
    }
}
