//! The task around the pure parts: reads changes, runs cycles, binds, preempts, reports.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::core::node_ports::{self, Port};
use api::k8s_openapi::api::core::v1::{
    Binding, Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Service,
};
use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, Cluster, Query, Recorder, Subscription};
use futures::StreamExt;
use futures::stream::select_all;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cache::Cache;
use crate::cycle::{Decision, VOLUMES, decide, fit_error, unhelped};
use crate::framework::{ClusterEvent, Pending};
use crate::node_info::NodeView;
use crate::pod_info::PodInfo;
use crate::preemption::Preemption;
use crate::queue::Queue;

mod report;
mod volumes;

/// The name that pods ask for by `schedulerName`.
pub(crate) const SCHEDULER_NAME: &str = "default-scheduler";
/// Bindings under way at a time; each waits for one durable write, which group commit shares.
const BINDINGS: usize = 64;

/// Schedules pods until the token is cancelled.
pub async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_user("system:kube-scheduler", &[]);
    let recorder = Recorder::new(client.clone(), SCHEDULER_NAME, "");
    let reporter = report::Reporter { client, recorder };
    let mut scheduler =
        Scheduler { cluster, reporter, cache: Cache::default(), queue: Queue::default(), calls: JoinSet::new() };
    token.run_until_cancelled(scheduler.run()).await;
}

#[derive(Clone, Copy)]
enum Watched {
    Pod,
    Node,
    Namespace,
    Service,
    Volume,
}

/// The end of a call that went on beside the cycles.
enum Called {
    Bound { uid: Arc<str> },
    BindFailed { uid: Arc<str>, key: ObjectKey, error: String },
    Reported,
}

struct Scheduler {
    cluster: Cluster,
    reporter: report::Reporter,
    cache: Cache,
    queue: Queue,
    calls: JoinSet<Called>,
}

impl Scheduler {
    async fn run(&mut self) {
        let sub = |what: Watched, s: Subscription| s.map(move |change| (what, change)).boxed();
        let mut changes = select_all([
            sub(Watched::Namespace, self.cluster.subscribe::<Namespace>()),
            sub(Watched::Node, self.cluster.subscribe::<Node>()),
            sub(Watched::Service, self.cluster.subscribe::<Service>()),
            sub(Watched::Volume, self.cluster.subscribe::<PersistentVolume>()),
            sub(Watched::Volume, self.cluster.subscribe::<PersistentVolumeClaim>()),
            sub(Watched::Pod, self.cluster.subscribe::<Pod>()),
        ]);
        // Without the whole picture a pod might be put on a node that is full.
        let mut unsynced: u8 = 6;
        loop {
            if unsynced == 0 {
                self.schedule_waiting();
            }
            let due = self.queue.next_due();
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some((_, Change::Synced)) => unsynced = unsynced.saturating_sub(1),
                    Some((what, change)) => self.apply(what, change),
                    None => return,
                },
                Some(called) = self.calls.join_next() => self.finish(called),
                () = sleep_until(due) => {}
            }
        }
    }

    fn apply(&mut self, what: Watched, change: Change) {
        match (what, change) {
            (_, Change::Synced) => {}
            (_, Change::Resync) => self.rebuild(),
            (Watched::Pod, Change::Applied { object, old }) => self.pod_applied(&object, old.as_ref()),
            (Watched::Pod, Change::Deleted { object }) => self.pod_gone(&object.index.uid),
            (Watched::Node, Change::Applied { object, .. }) => self.node_applied(&object),
            (Watched::Node, Change::Deleted { object }) => self.cache.remove_node(&object.index.key.name),
            (Watched::Namespace, Change::Applied { object, .. }) => {
                self.cache.namespaces.insert(object.index.key.name.clone(), object.index.labels.clone());
            }
            (Watched::Namespace, Change::Deleted { object }) => {
                self.cache.namespaces.remove(&object.index.key.name);
            }
            (Watched::Service, Change::Applied { object, .. }) => self.service_applied(&object),
            (Watched::Service, Change::Deleted { object }) => {
                self.set_balanced(&object.index.key, BTreeSet::new());
            }
            (Watched::Volume, Change::Applied { .. } | Change::Deleted { .. }) => {
                self.queue.on_event(ClusterEvent::VolumeChanged, Instant::now());
            }
        }
    }

    /// Changes were lost: start from what is there. Bindings under way are seen once they are done.
    fn rebuild(&mut self) {
        self.cache = Cache::default();
        self.queue = Queue::default();
        let source = self.cluster.source().clone();
        for object in source.list(&GroupResource::of::<Namespace>(), &Query::ALL) {
            self.cache.namespaces.insert(object.index.key.name.clone(), object.index.labels.clone());
        }
        for object in source.list(&GroupResource::of::<Node>(), &Query::ALL) {
            self.node_applied(&object);
        }
        for object in source.list(&GroupResource::of::<Service>(), &Query::ALL) {
            self.service_applied(&object);
        }
        for object in source.list(&GroupResource::of::<Pod>(), &Query::ALL) {
            self.pod_applied(&object, None);
        }
    }

    fn service_applied(&mut self, object: &Object) {
        let Some(service) = decoded::<Service>(object) else { return };
        self.set_balanced(&object.index.key, node_ports::balanced(&service));
    }

    fn set_balanced(&mut self, service: &ObjectKey, has: BTreeSet<(IpAddr, Port)>) {
        if self.cache.set_balanced(service, has) {
            self.queue.on_event(ClusterEvent::PortFreed, Instant::now());
        }
    }

    fn node_applied(&mut self, object: &Object) {
        let Some(node) = decoded::<Node>(object) else { return };
        let view = NodeView::new(object.index.clone(), &node);
        let old = self.cache.set_node(view.clone());
        if old.is_none_or(|old| view.may_fit_more_than(&old)) {
            self.queue.on_event(ClusterEvent::NodeChanged, Instant::now());
        }
    }

    fn pod_applied(&mut self, object: &Object, old: Option<&Object>) {
        let uid = &object.index.uid;
        let ended = matches!(object.index.field("status.phase"), Some("Succeeded" | "Failed"));
        if ended {
            return self.pod_gone(uid);
        }
        // Status updates are by far the most frequent change and concern nobody here.
        if let Some(known) = self.cache.placed(uid)
            && known.index.labels == object.index.labels
            && known.index.deleting == object.index.deleting
            && known.started.is_some()
        {
            return;
        }
        let Some(pod) = decoded::<Pod>(object) else { return };
        let Some(spec) = pod.spec.as_ref() else { return };
        match spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            Some(node) => {
                self.queue.remove(uid);
                self.cache.place(Arc::new(PodInfo::new(object, &pod)), node);
                self.queue.on_event(ClusterEvent::PodPlaced, Instant::now());
            }
            None if object.index.deleting => self.pod_gone(uid),
            None if spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME => {
                self.pending_applied(object, old, &pod, spec);
            }
            None => {}
        }
    }

    fn pending_applied(&mut self, object: &Object, old: Option<&Object>, pod: &Pod, spec: &PodSpec) {
        let uid = &object.index.uid;
        if self.cache.placed(uid).is_some() {
            // Assumed: its binding is under way.
            return;
        }
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        match nominated.filter(|n| !n.is_empty()) {
            Some(node) => self.cache.nominate(Arc::new(PodInfo::new(object, pod)), node),
            None => self.cache.forget_nomination(uid),
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        // Our own report of a failed try is such a change, and must not cause the next one.
        let only_status_changed = old.is_some_and(|old| asks_the_same(old, object, spec));
        if !(only_status_changed && self.queue.contains(uid)) {
            self.queue.add(uid, &object.index.key, spec.priority.unwrap_or(0), gated, Instant::now());
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.queue.on_event(ClusterEvent::PodGone, Instant::now());
        }
    }

    fn schedule_waiting(&mut self) {
        while self.calls.len() < BINDINGS {
            let Some((uid, key)) = self.queue.pop(Instant::now()) else { return };
            let object = self.cluster.source().get(&GroupResource::of::<Pod>(), &key);
            let Some(object) = object.filter(|o| o.index.uid == uid) else {
                self.queue.remove(&uid);
                continue;
            };
            let Some(pod) = decoded::<Pod>(&object) else {
                self.queue.remove(&uid);
                continue;
            };
            self.schedule_one(&object, &pod);
        }
    }

    fn schedule_one(&mut self, object: &Object, pod: &Pod) {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let info = Arc::new(PodInfo::new(object, pod));
        let pending = Pending { pod, spec, info: &info };
        let decision = match volumes::missing(&self.cluster, &object.index.key.namespace, spec) {
            Some(why) => {
                let total = self.cache.nodes().count();
                let unhelpful =
                    fit_error(total, std::iter::repeat_n("Preemption is not helpful for scheduling", total));
                let unhelped = unhelped(&format!("preemption: {unhelpful}"));
                let message = format!("0/{total} nodes are available: {why}.{unhelped}");
                Decision::Unschedulable { message, plugins: HashSet::from([VOLUMES]), preempt: None }
            }
            None => decide(&pending, &self.cache, &mut rand::rng()),
        };
        match decision {
            Decision::Place { node } => self.bind(object, info, node),
            Decision::Unschedulable { message, plugins, preempt } => {
                self.queue.unschedulable(&object.index.uid, plugins, Instant::now());
                self.refuse(object, pod, &info, message, preempt);
            }
        }
    }

    fn bind(&mut self, object: &Object, info: Arc<PodInfo>, node: String) {
        self.cache.place(info, &node);
        let (uid, key) = (object.index.uid.clone(), object.index.key.clone());
        let binding = binding(&uid, &key, &node);
        let reporter = self.reporter.clone();
        self.calls.spawn(async move {
            match reporter.bind(&key, &binding).await {
                Ok(()) => {
                    reporter.scheduled(&key, &uid, &node);
                    Called::Bound { uid }
                }
                Err(e) => Called::BindFailed { uid, key, error: client::status::message(&e) },
            }
        });
    }

    fn refuse(
        &mut self,
        object: &Object,
        pod: &Pod,
        info: &Arc<PodInfo>,
        message: String,
        preempt: Option<Preemption>,
    ) {
        if let Some(preemption) = &preempt {
            self.cache.nominate(info.clone(), &preemption.node);
        }
        let (key, uid) = (object.index.key.clone(), object.index.uid.clone());
        let refusal = report::Refusal::new(pod, message, preempt.as_ref().map(|p| p.node.clone()));
        let reporter = self.reporter.clone();
        self.calls.spawn(async move {
            reporter.refused(&key, &uid, refusal).await;
            if let Some(preemption) = preempt {
                reporter.preempt(&uid, &preemption).await;
            }
            Called::Reported
        });
    }

    fn finish(&mut self, called: Result<Called, tokio::task::JoinError>) {
        match called {
            Ok(Called::Bound { uid }) => self.queue.remove(&uid),
            Ok(Called::BindFailed { uid, key, error }) => {
                warn!(pod = %key, "binding failed: {error}");
                self.cache.remove_pod(&uid);
                self.queue.failed(&uid, Instant::now());
            }
            Ok(Called::Reported) => {}
            Err(e) => warn!("a call of the scheduler panicked: {e}"),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn decoded<K: client::Kind>(object: &Object) -> Option<K> {
    object.decode().inspect_err(|e| warn!(kind = K::KIND, key = %object.index.key, "does not decode: {e}")).ok()
}

/// Whether scheduling is asked for the same as before the change.
fn asks_the_same(old: &Object, new: &Object, spec: &PodSpec) -> bool {
    old.index.labels == new.index.labels && decoded::<Pod>(old).and_then(|p| p.spec).is_some_and(|old| old == *spec)
}

fn binding(uid: &str, key: &ObjectKey, node: &str) -> Binding {
    let mut binding = Binding {
        target: ObjectReference { kind: Some("Node".to_owned()), name: Some(node.to_owned()), ..Default::default() },
        ..Default::default()
    };
    binding.metadata.name = Some(key.name.to_string());
    binding.metadata.namespace = Some(key.namespace.to_string());
    binding.metadata.uid = Some(uid.to_owned());
    binding
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object::ObjectIndex;
    use serde_json::{Value, json};

    fn pod(spec: &Value, status: &Value) -> Object {
        let json = json!({ "metadata": { "name": "p" }, "spec": spec, "status": status });
        Object { json: json.to_string().into(), index: Arc::new(ObjectIndex::default()) }
    }

    #[test]
    fn a_report_asks_the_same_and_a_gate_that_went_does_not() {
        let gated = json!({ "containers": [], "schedulingGates": [{ "name": "example.com/g" }] });
        let open = json!({ "containers": [] });
        let refused = json!({ "conditions": [{ "type": "PodScheduled", "status": "False" }] });
        let check = |old: &Object, new: &Object| {
            let spec = decoded::<Pod>(new).unwrap().spec.unwrap();
            asks_the_same(old, new, &spec)
        };
        assert!(check(&pod(&open, &json!({})), &pod(&open, &refused)));
        assert!(!check(&pod(&gated, &refused), &pod(&open, &refused)));
    }
}
