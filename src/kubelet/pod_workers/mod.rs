//! Pods of this node and their workers: feeds every worker with what concerns it, admits new pods,
//! and ends what the API server no longer knows.

mod act;
mod clock;
mod files;
mod health;
mod identity;
mod last_words;
mod mailbox;
mod namesakes;
mod plan;
mod resize;
mod setup;
mod start;
mod state;
mod stop;
mod strays;
mod verdict;
mod worker;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use api::object::{GroupResource, Object, ObjectKey};
use client::{Change, EventType, Owned, Query, Subscription};
use futures::FutureExt as _;
use jiff::Timestamp;
use runtime::{Event, Resources, SandboxStatus};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(crate) use act::remove_dead;
pub(crate) use mailbox::Mailbox;
pub(crate) use setup::host_ports;

use crate::admission;
use crate::events;
use crate::kubelet::Kubelet;
use crate::node::balanced;
use crate::observed::label;
use crate::pod::PodExt;
use crate::registry::Entry;
use crate::volumes::Referenced;
use clock::Clock;
use namesakes::Namesake;
use worker::{Origin, Worker};

/// The cgroup of all pods, which has the node's allocatable resources.
const ALL_PODS: &str = "kubepods";

/// The feeds should tell everything; this finds what they did not.
const SAFETY_PERIOD: Duration = Duration::from_secs(300);

/// Whether the clock was set is looked at this often.
const CLOCK_PERIOD: Duration = Duration::from_secs(10);
/// A pod whose worker panicked gets another one after this long.
const REST: Duration = Duration::from_secs(10);

/// Runs the workers until `token` is cancelled. Containers then run on.
pub(crate) async fn run(kubelet: Arc<Kubelet>, token: CancellationToken) {
    let manager = Manager {
        pods: kubelet.cluster.subscribe::<Pod>(),
        config_maps: kubelet.cluster.subscribe::<ConfigMap>(),
        secrets: kubelet.cluster.subscribe::<Secret>(),
        workers: JoinSet::new(),
        synced: false,
        burstable_shares: None,
        weights_stale: false,
        strays: None,
        strays_turn: Arc::new(Semaphore::new(1)),
        token: token.child_token(),
        kubelet,
    };
    manager.run().await;
}

/// What became of a worker.
enum Ended {
    /// Its pod is gone, or the kubelet ends.
    Done {
        uid: String,
    },
    Panicked {
        uid: String,
    },
    /// The pod of a worker that panicked has rested: it gets another.
    Rested {
        pod: Arc<Pod>,
        removed: bool,
    },
}

struct Manager {
    kubelet: Arc<Kubelet>,
    pods: Subscription,
    config_maps: Subscription,
    secrets: Subscription,
    workers: JoinSet<Ended>,
    synced: bool,
    /// CPU shares of `kubepods/burstable` as they were set last.
    burstable_shares: Option<u64>,
    weights_stale: bool,
    /// The removal of what gone pods left, and who may do it.
    strays: Option<Owned>,
    strays_turn: Arc<Semaphore>,
    token: CancellationToken,
}

impl Manager {
    async fn run(mut self) {
        let mut runtime_events = self.kubelet.runtime.subscribe();
        self.make_classes().await;
        let mut clock = Clock::new(Timestamp::now(), Instant::now());
        let mut look = interval_at(Instant::now() + CLOCK_PERIOD, CLOCK_PERIOD);
        let mut safety = interval_at(Instant::now() + SAFETY_PERIOD, SAFETY_PERIOD);
        loop {
            if std::mem::take(&mut self.weights_stale) {
                self.weigh_classes().await;
            }
            tokio::select! {
                () = self.token.cancelled() => break,
                change = self.pods.next() => match change {
                    Some(change) => self.on_pod(change).await,
                    None => break,
                },
                Some(change) = self.config_maps.next() => self.on_source(Referenced::ConfigMap, &change),
                Some(change) = self.secrets.next() => self.on_source(Referenced::Secret, &change),
                Some(event) = runtime_events.recv() => self.on_runtime(&event),
                () = self.kubelet.pods.granted() => self.weights_stale = true,
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(ended) => self.on_end(ended),
                    Err(e) => error!("a pod worker was lost: {e}"),
                },
                _ = look.tick() => {
                    if let Some(by) = clock.step(Timestamp::now(), Instant::now()) {
                        info!("the clock was set by {by:#}");
                        self.poke_all();
                    }
                }
                _ = safety.tick() => {
                    self.reconcile_all();
                    self.poke_all();
                    if self.synced {
                        self.end_orphans().await;
                    }
                }
            }
        }
        self.token.cancel();
        self.strays = None;
        while self.workers.join_next().await.is_some() {}
    }

    fn is_ours(&self, object: &Object) -> bool {
        object.index.field("spec.nodeName") == Some(&*self.kubelet.cfg.node_name)
    }

    async fn on_pod(&mut self, change: Change) {
        match change {
            Change::Applied { object, .. } if self.is_ours(&object) => self.apply(&object),
            Change::Applied { .. } => {}
            Change::Deleted { object } => {
                if let Some(mailbox) = self.kubelet.pods.mailbox(&object.index.uid) {
                    // Its last version tells how much grace a forced deletion leaves.
                    if let Some(pod) = decode(&object) {
                        mailbox.update(pod);
                    }
                    mailbox.remove();
                }
            }
            Change::Synced => {
                self.synced = true;
                self.end_orphans().await;
            }
            Change::Resync => self.reconcile_all(),
        }
    }

    fn apply(&mut self, object: &Object) {
        let Some(pod) = decode(object) else { return };
        match self.kubelet.pods.mailbox(pod.uid()) {
            Some(mailbox) => {
                self.weights_stale |= pod.is_terminal();
                mailbox.update(pod);
            }
            None => self.begin(pod),
        }
    }

    fn begin(&mut self, pod: Arc<Pod>) {
        if self.end_namesakes(&pod) {
            return;
        }
        let known = self.kubelet.runtime.sandbox_status(pod.uid()).is_ok();
        let fresh = !known && !pod.is_deleting() && !pod.is_terminal();
        let node = match self.kubelet.cluster.get::<Node>("", &self.kubelet.cfg.node_name) {
            Ok(node) => node,
            Err(error) if fresh => {
                // The next look at all pods begins it, once the node's labels and taints are known.
                error!(pod = %pod.full_name(), "the pod waits: {error}");
                return;
            }
            Err(_) => None,
        };
        let origin = match fresh.then(|| self.admit(&pod, node.as_ref())) {
            Some(Err(refusal)) => {
                info!(pod = %pod.full_name(), reason = refusal.reason, "pod refused");
                Origin::Rejected { reason: refusal.reason, message: refusal.message }
            }
            Some(Ok(())) | None => Origin::Admitted,
        };
        self.spawn(pod, origin);
    }

    /// Ends what the API server no longer has under this pod's name. True while there is any: the pod is looked
    /// at again when that has ended.
    fn end_namesakes(&mut self, pod: &Pod) -> bool {
        let key = ObjectKey::new(pod.namespace(), pod.name());
        let current = self.kubelet.cluster.source().get(&GroupResource::new("", "pods"), &key);
        if current.is_none_or(|object| *object.index.uid != *pod.uid()) {
            // News of it comes late: it may itself be the one before.
            return false;
        }
        let (workers, sandboxes) = (self.kubelet.pods.all(), self.kubelet.runtime.list_sandboxes());
        let found = namesakes::of(pod, &workers, &sandboxes);
        for namesake in &found {
            match namesake {
                Namesake::Worked(entry) if entry.mailbox.is_removed() => {}
                Namesake::Worked(entry) => entry.mailbox.remove(),
                Namesake::Orphan(sandbox) => self.spawn_orphan((*sandbox).clone()),
            }
        }
        if !found.is_empty() {
            info!(pod = %pod.full_name(), "the pod waits for the end of the one that had its name before");
        }
        !found.is_empty()
    }

    fn admit(&self, pod: &Pod, node: Option<&Node>) -> Result<(), admission::Refusal> {
        let kubelet = &self.kubelet;
        let active = kubelet.pods.all();
        let mut taken_ports = kubelet.cfg.own_ports.clone();
        taken_ports.extend(balanced(&kubelet.cluster, &kubelet.cfg.node_ips));
        let others: Vec<&Pod> = active.iter().filter(|e| e.counts()).map(|e| &*e.pod).collect();
        admission::admit(&admission::Inputs {
            pod,
            others: &others,
            node,
            allocatable: &kubelet.allocatable,
            pressure: *kubelet.pressure.lock(),
            modules: kubelet.machine.modules,
            own_ports: &taken_ports,
        })
    }

    /// The cgroups that pods of each quality of service share.
    async fn make_classes(&mut self) {
        let machine = &self.kubelet.machine;
        let reserved = self.kubelet.cfg.reserved_memory;
        let all = Resources {
            cpu_shares: Some(u64::try_from(machine.cpus * 1024).unwrap_or(1024)),
            memory_limit_bytes: (reserved > 0).then_some(machine.memory_bytes - reserved),
            pids_limit: Some(machine.pids_for_pods()),
            ..Resources::default()
        };
        let least = Resources { cpu_shares: Some(2), ..Resources::default() };
        for (path, resources) in
            [(ALL_PODS, all), ("kubepods/besteffort", least.clone()), ("kubepods/burstable", least)]
        {
            match self.kubelet.runtime.ensure_cgroup(path, resources).await {
                Ok(()) if path == ALL_PODS => {
                    let about = events::node(&self.kubelet.cfg.node_name);
                    let message = "Updated Node Allocatable limit across pods";
                    self.kubelet.recorder.event(&about, EventType::Normal, "NodeAllocatableEnforced", message);
                }
                Ok(()) => {}
                Err(e) => warn!("cgroup {path} not made: {e}"),
            }
        }
    }

    /// The burstable pods as a whole weigh what they ask for; the best-effort ones next to nothing.
    async fn weigh_classes(&mut self) {
        let shares = crate::resources::burstable_shares(
            self.kubelet.pods.all().iter().filter(|e| e.is_active()).map(|e| &*e.pod),
        );
        if self.burstable_shares == Some(shares) {
            return;
        }
        let resources = Resources { cpu_shares: Some(shares), ..Resources::default() };
        match self.kubelet.runtime.ensure_cgroup("kubepods/burstable", resources).await {
            Ok(()) => self.burstable_shares = Some(shares),
            Err(e) => warn!("cgroup of burstable pods not set: {e}"),
        }
    }

    fn spawn(&mut self, pod: Arc<Pod>, origin: Origin) {
        self.weights_stale = true;
        let mailbox = Arc::new(Mailbox::default());
        let uid = pod.uid().to_owned();
        let rejected = matches!(origin, Origin::Rejected { .. });
        let mut status = pod.status().clone();
        if rejected {
            status.phase = Some("Failed".to_owned());
        }
        let entry = Entry { pod: pod.clone(), status: Arc::new(status), mailbox: mailbox.clone() };
        self.kubelet.pods.insert(&uid, entry);
        self.kubelet.references.add(&pod);
        let worker = Worker::new(self.kubelet.clone(), mailbox, pod, origin);
        let token = self.token.clone();
        self.workers.spawn(async move {
            match AssertUnwindSafe(worker.run(token)).catch_unwind().await {
                Ok(()) => Ended::Done { uid },
                Err(_) => Ended::Panicked { uid },
            }
        });
    }

    fn on_end(&mut self, ended: Ended) {
        match ended {
            Ended::Done { uid } => {
                let entry = self.kubelet.pods.all().into_iter().find(|e| e.pod.uid() == uid);
                self.on_worker_end(&uid);
                entry.into_iter().for_each(|e| self.begin_next(e.pod.namespace(), e.pod.name()));
            }
            Ended::Panicked { uid } => {
                error!(uid, "a pod worker panicked");
                let entry = self.kubelet.pods.all().into_iter().find(|e| e.pod.uid() == uid);
                self.on_worker_end(&uid);
                let Some(Entry { pod, mailbox, .. }) = entry else { return };
                let token = self.token.clone();
                self.workers.spawn(async move {
                    token.run_until_cancelled(tokio::time::sleep(REST)).await;
                    Ended::Rested { pod, removed: mailbox.is_removed() }
                });
            }
            // Meanwhile a change of the pod may have brought one.
            Ended::Rested { pod, .. } if self.kubelet.pods.contains(pod.uid()) || self.token.is_cancelled() => {}
            Ended::Rested { pod, removed: true } => self.spawn(pod, Origin::Orphan),
            Ended::Rested { pod, removed: false } => {
                match self.kubelet.cluster.get::<Pod>(pod.namespace(), pod.name()) {
                    Ok(Some(fresh)) if fresh.uid() == pod.uid() => self.begin(Arc::new(fresh)),
                    Ok(_) => self.spawn(pod, Origin::Orphan),
                    // It may be there: it goes on as it was last known.
                    Err(_) => self.begin(pod),
                }
            }
        }
    }

    /// Begins the pod that waits for the end of the one that had its name before.
    fn begin_next(&mut self, namespace: &str, name: &str) {
        if self.token.is_cancelled() {
            return;
        }
        let key = ObjectKey::new(namespace, name);
        let current = self.kubelet.cluster.source().get(&GroupResource::new("", "pods"), &key);
        if let Some(object) = current.filter(|object| self.is_ours(object)) {
            self.apply(&object);
        }
    }

    fn on_worker_end(&mut self, uid: &str) {
        self.weights_stale = true;
        if self.token.is_cancelled() {
            return;
        }
        for entry in self.kubelet.pods.all().into_iter().filter(|e| e.pod.uid() == uid) {
            self.kubelet.references.remove(&entry.pod);
        }
        self.kubelet.pods.remove(uid);
    }

    fn on_source(&self, kind: Referenced, change: &Change) {
        match change {
            Change::Applied { object, old: Some(_) } | Change::Deleted { object } => {
                self.tell_readers(kind, object);
            }
            Change::Applied { object, old: None } if self.synced => self.tell_readers(kind, object),
            Change::Applied { .. } | Change::Synced => {}
            Change::Resync => self.kubelet.pods.all().iter().for_each(|e| e.mailbox.sources_changed()),
        }
    }

    fn tell_readers(&self, kind: Referenced, object: &Object) {
        for uid in self.kubelet.references.readers(kind, &object.index.key) {
            if let Some(mailbox) = self.kubelet.pods.mailbox(&uid) {
                mailbox.sources_changed();
            }
        }
    }

    fn on_runtime(&self, event: &Event) {
        match event {
            Event::ContainerStarted { sandbox_uid, .. }
            | Event::ContainerExited { sandbox_uid, .. }
            | Event::SandboxGone { sandbox_uid } => {
                if let Some(mailbox) = self.kubelet.pods.mailbox(sandbox_uid) {
                    mailbox.poke();
                }
            }
            Event::Lagged => self.poke_all(),
        }
    }

    fn poke_all(&self) {
        self.kubelet.pods.all().iter().for_each(|e| e.mailbox.poke());
    }

    /// Compares all workers with all pods of this node.
    fn reconcile_all(&mut self) {
        if !self.synced {
            return;
        }
        let query = Query::field("spec.nodeName", &self.kubelet.cfg.node_name);
        let pods = self.kubelet.cluster.objects::<Pod>(&query);
        // By their index: a pod that does not decode is there all the same.
        let there: HashSet<&str> = pods.iter().map(|p| &*p.index.uid).collect();
        for entry in self.kubelet.pods.all() {
            if !there.contains(entry.pod.uid()) {
                entry.mailbox.remove();
            }
        }
        for pod in pods.iter().filter_map(decode) {
            match self.kubelet.pods.mailbox(pod.uid()) {
                Some(mailbox) => mailbox.update(pod),
                None => self.begin(pod),
            }
        }
    }

    /// What ran for pods whose objects went while the kubelet was away is ended like any other pod.
    async fn end_orphans(&mut self) {
        let mut unreadable = Vec::new();
        for sandbox in self.kubelet.runtime.list_sandboxes() {
            if self.kubelet.pods.contains(&sandbox.uid) {
                continue;
            }
            let key = ObjectKey::new(&sandbox.namespace, &sandbox.name);
            if self.is_there_unread(&key, &sandbox.uid) {
                error!(pod = %key, "the pod is in the API and cannot be read: what runs of it is left alone");
                unreadable.push(sandbox.uid);
                continue;
            }
            self.spawn_orphan(sandbox);
        }
        let kept = [self.kubelet.pods.uids(), unreadable].concat();
        if let Err(e) = self.kubelet.network.retain(&kept).await {
            warn!("addresses of pods that are gone not released: {e}");
        }
        self.remove_strays(kept);
    }

    fn spawn_orphan(&mut self, sandbox: SandboxStatus) {
        let mut pod = Pod::default();
        pod.metadata.name = Some(sandbox.name);
        pod.metadata.namespace = Some(sandbox.namespace);
        pod.metadata.uid = Some(sandbox.uid);
        let grace = sandbox.labels.get(label::GRACE_PERIOD).and_then(|g| g.parse().ok());
        pod.spec.get_or_insert_default().termination_grace_period_seconds = grace;
        info!(pod = %pod.full_name(), "ending a pod that is not in the API");
        self.spawn(Arc::new(pod), Origin::Orphan);
    }

    /// The API server has the pod, but nobody here can read it, or its worker rests.
    fn is_there_unread(&self, key: &ObjectKey, uid: &str) -> bool {
        let (source, pods) = (self.kubelet.cluster.source(), GroupResource::new("", "pods"));
        source.is_unreadable(&pods, key) || source.get(&pods, key).is_some_and(|object| *object.index.uid == *uid)
    }

    /// Removes beside the manager what pods left that nobody knows any more: a slow card takes minutes. One
    /// at a time, also where an earlier removal outlived its deadline.
    fn remove_strays(&mut self, known: Vec<String>) {
        let Ok(turn) = Arc::clone(&self.strays_turn).try_acquire_owned() else { return };
        let uids: HashSet<String> = known.into_iter().collect();
        let kubelet = Arc::clone(&self.kubelet);
        self.strays = Some(Owned::spawn(async move {
            let (pods, logs) = (kubelet.cfg.pods_dir(), kubelet.cfg.log_dir.clone());
            // The disk may be slow to list what is there, and pods come meanwhile.
            let now = Arc::clone(&kubelet);
            let is_known = move |uid: &str| uids.contains(uid) || now.pods.contains(uid);
            let remove = move || {
                let _turn = turn;
                strays::remove(&pods, &logs, is_known)
            };
            if let Err(e) = kubelet.on_disk("", remove).await {
                error!("what gone pods left was not removed: {e}");
            }
        }));
    }
}

/// The typed pod, without what only the API server needs of it.
fn decode(object: &Object) -> Option<Arc<Pod>> {
    let mut pod: Pod =
        object.decode().inspect_err(|e| error!(pod = %object.index.key, "stored pod does not decode: {e}")).ok()?;
    pod.metadata.managed_fields = None;
    Some(Arc::new(pod))
}
