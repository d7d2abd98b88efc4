//! The worker's hands: turning a plan into operations, and their outcomes into the worker's state.

use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, EventType, kube, status as api_status};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, Preconditions};
use runtime::ContainerStatus;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::last_words;
use super::plan::{Groundwork, Plan, SandboxPlan, backoff_key};
use super::setup;
use super::start::{Start, StartError, message_file};
use super::stop::{Stopper, ending_grace};
use super::verdict;
use super::worker::{Done, Op, Worker};
use crate::container_config::{log_path, pod_log_dir};
use crate::events;
use crate::kubelet::Kubelet;
use crate::observed::{Observed, has_ended};
use crate::pod::PodExt;
use crate::resources;
use crate::volumes::{self, Mounted, VolumeError};
use api::k8s_openapi::api::core::v1::Pod;

/// Upstream retries volumes from half a second on.
const SETUP_RETRY: Backoff =
    Backoff { base: Duration::from_millis(500), factor: 2.0, max: Duration::from_secs(122), jitter: 0.0 };
/// Upstream waits so long for a pod's volumes before it says that they are late.
const VOLUMES_LATE: Duration = Duration::from_secs(123);
/// A container that would not stop, or a directory that would not go.
const END_RETRY: Duration = Duration::from_secs(2);

const PANIC_RETRY: Duration = Duration::from_secs(10);

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

/// Containers that ended, with their logs and last words.
pub(crate) async fn remove_dead(kubelet: &Kubelet, pod: &Pod, containers: &[ContainerStatus]) {
    for c in containers {
        if let Err(e) = kubelet.metrics.time("remove_container", kubelet.runtime.remove_container(&c.id)).await {
            warn!(container = c.name, "dead container not removed: {e}");
            continue;
        }
        let log = log_path(&pod_log_dir(&kubelet.cfg.log_dir, pod), &c.name, c.attempt);
        let message = message_file(kubelet, pod.uid(), &c.name, c.attempt);
        if let Err(e) = kubelet.on_disk(pod.uid(), move || last_words::remove(&log, &message)).await {
            warn!(container = c.name, "log of a dead container not removed: {e}");
        }
    }
}

impl Worker {
    pub(super) fn carry_out(&mut self, observed: &Observed, plan: Plan, now: Timestamp) -> Option<Timestamp> {
        let mut wake = plan.look_again;
        let groundwork = plan.groundwork(self.mounted.is_some());
        let mut at = |t: Timestamp| wake = Some(wake.map_or(t, |w| w.min(t)));
        for kill in plan.kill {
            let container = observed.containers.iter().find(|c| c.id == kill.id);
            if let Some(container) = container.cloned()
                && self.busy.kills.insert(kill.id.clone())
            {
                let stopper = self.stopper();
                let id = kill.id.clone();
                if kill.replace {
                    self.replaced.insert(id.clone());
                }
                self.spawn(Op::Kill(kill.id.clone()), async move {
                    stopper.kill(kill, container).await;
                    Done::Killed { id }
                });
            }
        }
        if groundwork != Groundwork::Done {
            match self.setup_retry {
                Some(retry) if retry > now => at(retry),
                _ if self.busy.setup || !self.busy.kills.is_empty() => {}
                _ if groundwork == Groundwork::Recover => self.recover(),
                _ if plan.sandbox != SandboxPlan::Keep && !self.is_done_with_old_sandbox() => {}
                _ => self.set_up(plan.sandbox),
            }
            return wake;
        }
        let refresh_at = self.mounted.as_ref().and_then(|m| m.refresh_at);
        self.refresh_wanted |= refresh_at.is_some_and(|t| t <= now);
        match self.setup_retry {
            Some(retry) if retry > now => at(retry),
            _ if self.refresh_wanted && !self.busy.setup => self.refresh(),
            _ => refresh_at.filter(|&t| t > now).into_iter().for_each(&mut at),
        }
        if self.busy.start.is_none()
            && self.busy.words.is_empty()
            && let Some(name) = plan.start.first()
        {
            self.start(observed, name, now);
        }
        self.actuate(observed, now).into_iter().for_each(&mut at);
        wake
    }

    /// A start that is under way belongs to the sandbox before. How its containers ended decides whether there
    /// is another one, and is told first.
    fn is_done_with_old_sandbox(&self) -> bool {
        if let Some((_, cancel)) = &self.busy.start {
            cancel.cancel();
        }
        self.busy.start.is_none() && self.busy.words.is_empty()
    }

    fn recover(&mut self) {
        self.busy.setup = true;
        let (kubelet, pod) = (self.kubelet.clone(), self.pod.clone());
        self.spawn(Op::SetUp, async move { Done::Recovered { known: setup::recover(&kubelet, &pod).await } });
    }

    fn set_up(&mut self, sandbox: SandboxPlan) {
        self.busy.setup = true;
        if matches!(sandbox, SandboxPlan::Create { .. }) {
            self.mounted = None;
            // What failed in the sandbox before may succeed in this one.
            self.held.clear();
            self.pod_limits = resources::pod_resources(&self.pod, self.kubelet.cfg.pod_pids_limit);
        }
        let (kubelet, pod, ips) = (self.kubelet.clone(), self.pod.clone(), self.ips.clone());
        let mut tokens = std::mem::take(&mut self.tokens);
        let ends = CancellationToken::new();
        self.busy.volumes = ends.clone();
        self.spawn(Op::SetUp, async move {
            let result = setup::set_up(&kubelet, &pod, &sandbox, &ips, &mut tokens, &ends).await;
            Done::SetUp { result, tokens }
        });
    }

    fn refresh(&mut self) {
        self.busy.setup = true;
        self.refresh_wanted = false;
        let (kubelet, pod, ips) = (self.kubelet.clone(), self.pod.clone(), self.ips.clone());
        let mut tokens = std::mem::take(&mut self.tokens);
        let ends = CancellationToken::new();
        self.busy.volumes = ends.clone();
        self.spawn(Op::SetUp, async move {
            let result = setup::set_up_volumes(&kubelet, &pod, &ips, false, &mut tokens, &ends).await;
            Done::Refreshed { result, tokens }
        });
    }

    fn start(&mut self, observed: &Observed, name: &str, now: Timestamp) {
        let (Some((role, container)), Some(mounted)) = (self.pod.container(name), self.mounted.clone()) else {
            return;
        };
        let latest = observed.latest(name);
        let attempt = self.next_attempt(latest, name);
        if let Some(ended) = latest.filter(|c| has_ended(c)) {
            let at = ended.finished_at_ns.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
            self.crashes.retain(|_, failures| !failures.expired(now));
            self.crashes.entry(backoff_key(&container)).or_default().add(at.unwrap_or(now));
        }
        let start = Start {
            kubelet: self.kubelet.clone(),
            pod: self.pod.clone(),
            role,
            container: container.into_owned(),
            attempt,
            sandbox_attempt: observed.sandbox_attempt(),
            mounted,
            ips: self.ips.clone(),
            pulls: self.pulls.clone(),
        };
        let cancel = CancellationToken::new();
        self.busy.start = Some((name.to_owned(), cancel.clone()));
        let name = name.to_owned();
        self.spawn(Op::Start(name.clone()), async move {
            let result = start.run(&cancel).await;
            Done::Started { name, result }
        });
        self.prune(observed);
    }

    /// Of each container that ended only the last one is kept, for its logs and its end.
    fn prune(&mut self, observed: &Observed) {
        let mut old: Vec<ContainerStatus> = Vec::new();
        for c in &observed.containers {
            let newest_ended = observed.containers.iter().rev().find(|o| o.name == c.name && has_ended(o));
            if has_ended(c) && newest_ended.is_some_and(|newest| newest.id != c.id) {
                old.push(c.clone());
            }
        }
        if old.is_empty() {
            return;
        }
        let (kubelet, pod) = (self.kubelet.clone(), self.pod.clone());
        self.spawn(Op::Prune, async move {
            remove_dead(&kubelet, &pod, &old).await;
            // Not sooner: its end would be read and counted once more while the runtime still has it.
            Done::Pruned { ids: old.into_iter().map(|c| c.id).collect() }
        });
    }

    fn stopper(&self) -> Stopper {
        Stopper { kubelet: self.kubelet.clone(), pod: self.pod.clone(), ips: self.ips.clone() }
    }

    pub(super) fn stop_containers(&mut self, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
        if let Some((_, cancel)) = &self.busy.start {
            cancel.cancel();
        }
        self.busy.volumes.cancel();
        if self.busy.setup || self.busy.start.is_some() {
            return None;
        }
        let condemned = self.condemned.as_ref().map(|(_, grace)| *grace);
        let grace = ending_grace(&self.pod, &observed.containers, condemned);
        match (&self.busy.stop, self.end_retry) {
            (Some((under_way, _)), _) if grace >= *under_way => return None,
            (Some((_, handle)), _) => handle.abort(),
            (None, Some(retry)) if retry > now => return Some(retry),
            (None, _) => {}
        }
        let containers: Vec<_> = observed.running().cloned().collect();
        let stopper = self.stopper();
        let sentence = self.condemned.clone();
        let handle = self.spawn(Op::Stop, async move {
            if let Some(sentence) = sentence {
                verdict::note(&stopper.kubelet, stopper.pod.uid(), sentence).await;
            }
            stopper.stop_all(containers, grace).await;
            Done::AllStopped
        });
        self.end_retry = Some(later(now, END_RETRY));
        self.busy.stop = Some((grace, handle));
        None
    }

    pub(super) fn tear_down(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.busy.teardown {
            return None;
        }
        if let Some(retry) = self.end_retry.filter(|&t| t > now) {
            return Some(retry);
        }
        self.busy.teardown = true;
        self.mounted = None;
        let (kubelet, pod) = (self.kubelet.clone(), self.pod.clone());
        self.spawn(Op::TearDown, async move { Done::TornDown(setup::tear_down(&kubelet, &pod).await) });
        None
    }

    /// The object of a deleted pod goes once the API server knows how the pod ended.
    pub(super) fn delete_object(&mut self, now: Timestamp) -> Option<Timestamp> {
        if !self.pod.is_deleting() || self.deleted || self.busy.delete {
            return None;
        }
        if let Some(retry) = self.end_retry.filter(|&t| t > now) {
            return Some(retry);
        }
        self.busy.delete = true;
        let writer = self.writer.clone();
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), self.pod.namespace());
        let (name, uid) = (self.pod.name().to_owned(), self.pod.uid().to_owned());
        self.spawn(Op::Delete, async move {
            writer.flushed().await;
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid), ..Preconditions::default() }),
                ..DeleteParams::default()
            };
            Done::Deleted(api.delete(&name, &params).await.map(drop))
        });
        None
    }

    pub(super) fn note(&mut self, done: Result<Done, JoinError>) {
        let now = Timestamp::now();
        match done {
            Ok(Done::SetUp { result, tokens }) => {
                self.busy.setup = false;
                self.tokens = tokens;
                match result {
                    Ok(ready) => {
                        self.ips = ready.ips;
                        self.note_mounted(Ok(ready.mounted), now);
                    }
                    Err(e) => {
                        self.note_missing(&e.volumes, now);
                        self.hold_setup(now);
                    }
                }
            }
            Ok(Done::Recovered { known }) => {
                self.busy.setup = false;
                if known {
                    self.setup_failures = 0;
                } else {
                    self.hold_setup(now);
                }
            }
            Ok(Done::Refreshed { result, tokens }) => {
                self.busy.setup = false;
                self.tokens = tokens;
                let result = result.map_err(|failed| self.note_missing(&failed, now));
                self.note_mounted(result, now);
            }
            Ok(Done::Started { name, result }) => {
                self.busy.start = None;
                self.note_started(name, result);
            }
            Ok(Done::Killed { id }) => {
                self.busy.kills.remove(&id);
            }
            Ok(Done::AllStopped) => self.busy.stop = None,
            Ok(Done::TornDown(result)) => {
                self.busy.teardown = false;
                match result {
                    Ok(()) => self.torn_down = true,
                    Err(e) => {
                        warn!(pod = %self.pod.full_name(), "pod not torn down, will retry: {e}");
                        self.end_retry = Some(later(now, END_RETRY));
                    }
                }
            }
            Ok(Done::Deleted(result)) => self.note_deleted(result, now),
            Ok(Done::Resized { applied, error }) => self.note_resized(applied, error),
            Ok(Done::LastWords(words)) => self.note_last_words(words),
            Ok(Done::Pruned { ids }) => ids.iter().for_each(|id| self.forget_container(id)),
            // A stop that was cut short for a shorter one.
            Err(e) if e.is_cancelled() => {}
            Err(e) => error!(pod = %self.pod.full_name(), "a pod operation was lost: {e}"),
            Ok(Done::Panicked(op)) => self.note_panic(&op, now),
        }
    }

    /// The others go on; this one is tried again, but not at once.
    fn note_panic(&mut self, op: &Op, now: Timestamp) {
        error!(pod = %self.pod.full_name(), "a pod operation panicked: {op:?}");
        self.busy.release(op);
        match op {
            // Its tokens went with it; new ones are asked for.
            Op::SetUp => self.hold_setup(now),
            Op::Start(name) => {
                self.held.insert(name.clone(), later(now, PANIC_RETRY));
            }
            Op::Resize => *self.resize.retry_mut() = Some(later(now, PANIC_RETRY)),
            Op::Stop | Op::TearDown | Op::Delete => self.end_retry = Some(later(now, PANIC_RETRY)),
            // Read again they would panic again.
            Op::LastWords(ids) => self.messages.extend(ids.iter().map(|id| (id.clone(), String::new()))),
            Op::Kill(_) | Op::Prune => {}
        }
    }

    fn note_mounted(&mut self, result: Result<Mounted, ()>, now: Timestamp) {
        match result {
            Ok(mounted) => {
                self.mounted = Some(Arc::new(mounted));
                self.setup_failures = 0;
                self.setup_retry = None;
                self.volumes_since = None;
            }
            Err(()) => {
                self.refresh_wanted = true;
                self.hold_setup(now);
            }
        }
    }

    /// Says now and then which volumes the pod waits for, beside what each of them says of itself.
    fn note_missing(&mut self, failed: &[VolumeError], now: Timestamp) {
        if failed.is_empty() {
            self.volumes_since = None;
            return;
        }
        let since = *self.volumes_since.get_or_insert(now);
        if later(since, VOLUMES_LATE) <= now {
            self.volumes_since = Some(now);
            let about = events::pod(&self.pod);
            self.kubelet.recorder.event(&about, EventType::Warning, "FailedMount", &volumes::late(failed));
        }
    }

    fn hold_setup(&mut self, now: Timestamp) {
        self.setup_retry = Some(later(now, SETUP_RETRY.delay(self.setup_failures)));
        self.setup_failures = self.setup_failures.saturating_add(1);
    }

    fn note_started(&mut self, name: String, result: Result<(), StartError>) {
        match result {
            Ok(()) => {
                self.waiting.remove(&name);
                self.held.remove(&name);
            }
            Err(e) => {
                if e.ran {
                    self.held.remove(&name);
                } else {
                    self.held.insert(name.clone(), e.retry_at);
                }
                self.waiting.insert(name, e.waiting);
            }
        }
    }

    fn note_deleted(&mut self, result: Result<(), kube::Error>, now: Timestamp) {
        self.busy.delete = false;
        match result {
            Ok(()) => self.deleted = true,
            // Another object has the name now, or none: the watch tells the rest.
            Err(e) if api_status::is_not_found(&e) || api_status::is_conflict(&e) => self.deleted = true,
            Err(e) => {
                warn!(pod = %self.pod.full_name(), "pod object not deleted, will retry: {}", api_status::message(&e));
                self.end_retry = Some(later(now, END_RETRY));
            }
        }
    }
}
