//! One pod's worker: the only task that decides for this pod. It wakes when something changed,
//! looks at everything there is to know, decides by pure functions, and starts operations that run
//! beside it and report back. It never waits for one of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::k8s_openapi::api::core::v1::{LinuxContainerUser, Pod, PodStatus, ResourceRequirements};
use client::{EventType, Owned, kube};
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use runtime::{ContainerState, ContainerStatus, Resources};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::{self, Clock};
use super::mailbox::Mailbox;
use super::plan::{self, Plan, Unhealthy};
use super::resize::{Applied, Progress};
use super::setup::{Ready, SetupError};
use super::start::StartError;
use super::state::{Facts, State};
use crate::allocation::Allocation;
use crate::events;
use crate::failures::Failures;
use crate::images::PullHistory;
use crate::kubelet::Kubelet;
use crate::observed::{Observed, has_ended};
use crate::pod::{PodExt, is_terminal_phase};
use crate::prober::{ProbeKind, ProbeReport, Verdict as ProbeVerdict};
use crate::resources;
use crate::status::{self, Health, StatusWriter, Urgency, Verdict, Waiting};
use crate::volumes::{Mounted, Tokens, VolumeError};

/// Verdicts of a pod's probes that wait to be read; each probe sends one at a time.
const REPORTS: usize = 16;

/// What an operation ended with.
pub(super) enum Done {
    SetUp {
        result: Result<Ready, SetupError>,
        tokens: Tokens,
    },
    /// `known`: what runs of the pod.
    Recovered {
        known: bool,
    },
    Refreshed {
        result: Result<Mounted, Vec<VolumeError>>,
        tokens: Tokens,
    },
    Started {
        name: String,
        result: Result<(), StartError>,
    },
    Killed {
        id: String,
    },
    AllStopped,
    TornDown(Result<(), String>),
    Deleted(Result<(), kube::Error>),
    /// By container id.
    LastWords(Vec<(String, String)>),
    Pruned {
        ids: Vec<String>,
    },
    Resized {
        applied: Applied,
        error: Option<String>,
    },
    Panicked(Op),
}

/// An operation by what it keeps busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    SetUp,
    Start(String),
    Kill(String),
    Stop,
    TearDown,
    Delete,
    /// Of these container ids.
    LastWords(Vec<String>),
    Prune,
    Resize,
}

/// The operations under way.
#[derive(Default)]
pub(super) struct Busy {
    /// Volumes and sandbox, the search for a sandbox, or a refresh of the volumes with the `tokens`.
    pub(super) setup: bool,
    /// Ends the wait of the volumes for their turn.
    pub(super) volumes: CancellationToken,
    pub(super) start: Option<(String, CancellationToken)>,
    pub(super) kills: HashSet<String>,
    pub(super) stop: Option<(i64, AbortHandle)>,
    pub(super) teardown: bool,
    pub(super) delete: bool,
    pub(super) resize: bool,
    /// Ids of containers whose last words are being read. Until then their ends are neither told nor
    /// followed by a new start, and what holds the words stays.
    pub(super) words: HashSet<String>,
}

impl Busy {
    /// Something of the pod may start yet, or still runs, whatever the runtime was seen to have.
    pub(super) fn may_run(&self) -> bool {
        self.setup || self.start.is_some() || self.stop.is_some() || !self.words.is_empty()
    }

    /// The operation ended without a word.
    pub(super) fn release(&mut self, op: &Op) {
        match op {
            Op::SetUp => self.setup = false,
            Op::Start(_) => self.start = None,
            Op::Kill(id) => {
                self.kills.remove(id);
            }
            Op::Stop => self.stop = None,
            Op::TearDown => self.teardown = false,
            Op::Delete => self.delete = false,
            Op::Resize => self.resize = false,
            Op::LastWords(ids) => self.words.retain(|id| !ids.contains(id)),
            Op::Prune => {}
        }
    }
}

pub(crate) struct Worker {
    pub(super) kubelet: Arc<Kubelet>,
    mailbox: Arc<Mailbox>,
    /// The pod as the API server has it.
    pub(super) asked: Arc<Pod>,
    /// What it was granted of the node.
    pub(super) allocation: Allocation,
    /// The pod as it is run: as it was granted.
    pub(super) pod: Arc<Pod>,
    pub(super) state: State,
    removed: bool,
    pub(super) torn_down: bool,
    pub(super) deleted: bool,
    pub(super) condemned: Option<(Verdict, i64)>,
    ops: JoinSet<Done>,
    clock: Clock,
    pub(super) busy: Busy,

    pub(super) tokens: Tokens,
    pub(super) mounted: Option<Arc<Mounted>>,
    pub(super) refresh_wanted: bool,
    pub(super) setup_failures: u32,
    pub(super) setup_retry: Option<Timestamp>,
    /// Since when volumes are missing, or were last said to be late.
    pub(super) volumes_since: Option<Timestamp>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) pulls: Arc<PullHistory>,

    pub(super) waiting: BTreeMap<String, Waiting>,
    pub(super) held: HashMap<String, Timestamp>,
    /// By `plan::backoff_key`.
    pub(super) crashes: HashMap<String, Failures>,
    /// When the ends of the pod are tried again.
    pub(super) end_retry: Option<Timestamp>,

    pub(super) health: HashMap<String, Health>,
    pub(super) unhealthy: HashMap<String, Unhealthy>,
    pub(super) probes: HashMap<(String, ProbeKind), Owned>,
    pub(super) reports_tx: mpsc::Sender<ProbeReport>,
    reports: mpsc::Receiver<ProbeReport>,
    pub(super) messages: HashMap<String, String>,
    /// By container id.
    pub(super) users: HashMap<String, LinuxContainerUser>,
    pub(super) resize: Progress,
    /// What running containers have, by id.
    pub(super) applied: HashMap<String, ResourceRequirements>,
    /// What the pod's own cgroup has.
    pub(super) pod_limits: Resources,
    /// Containers that are restarted for other resources, by id.
    pub(super) outgrown: HashSet<String>,
    /// Containers that were stopped to be started anew, by id.
    pub(super) replaced: HashSet<String>,

    status: Arc<PodStatus>,
    /// The status is final and not computed any more.
    frozen: bool,
    /// The phase is final, or will be once nothing runs.
    finished: bool,
    pub(super) writer: Arc<StatusWriter>,
}

/// How a pod comes to its worker.
pub(crate) enum Origin {
    Admitted,
    Rejected {
        reason: String,
        message: String,
    },
    /// Only the runtime knows it: its object went while nobody looked.
    Orphan,
}

impl Worker {
    pub(crate) fn new(kubelet: Arc<Kubelet>, mailbox: Arc<Mailbox>, pod: Arc<Pod>, origin: Origin) -> Self {
        let (reports_tx, reports) = mpsc::channel(REPORTS);
        let writer = Arc::new(StatusWriter::new(kubelet.client.clone(), &pod));
        let allocation = Allocation::remembered(&pod);
        let granted = allocation.of(&pod);
        let known = pod.status();
        let ips = known.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect();
        let mut worker = Self {
            status: Arc::new(known.clone()),
            frozen: false,
            finished: is_terminal_phase(known.phase.as_deref()),
            state: State::Running,
            removed: matches!(origin, Origin::Orphan),
            torn_down: false,
            deleted: false,
            condemned: None,
            ops: JoinSet::new(),
            clock: Clock::new(Timestamp::now(), Instant::now()),
            busy: Busy::default(),
            tokens: Tokens::default(),
            mounted: None,
            refresh_wanted: false,
            setup_failures: 0,
            setup_retry: None,
            volumes_since: None,
            ips,
            pulls: Arc::default(),
            waiting: BTreeMap::new(),
            held: HashMap::new(),
            crashes: HashMap::new(),
            end_retry: None,
            health: HashMap::new(),
            unhealthy: HashMap::new(),
            probes: HashMap::new(),
            reports_tx,
            reports,
            messages: HashMap::new(),
            users: HashMap::new(),
            resize: Progress::default(),
            applied: HashMap::new(),
            pod_limits: resources::pod_resources(&granted, kubelet.cfg.pod_pids_limit),
            outgrown: HashSet::new(),
            replaced: HashSet::new(),
            writer,
            kubelet,
            mailbox,
            pod: granted,
            allocation,
            asked: pod,
        };
        if let Origin::Rejected { reason, message } = origin {
            worker.reject(&reason, &message);
        }
        worker
    }

    fn reject(&mut self, reason: &str, message: &str) {
        self.state = State::Rejected;
        self.frozen = true;
        let about = events::pod(&self.pod);
        self.kubelet.recorder.event(&about, EventType::Warning, reason, message);
        self.status = Arc::new(status::rejected(&self.pod, reason, message, Timestamp::now()));
        self.writer.set(self.status.clone(), Urgency::Now);
    }

    /// Runs until the pod is gone or the kubelet ends; then its containers run on.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let mut first = true;
        let had_sandbox = self.kubelet.runtime.sandbox_status(self.pod.uid()).is_ok();
        if had_sandbox && self.condemned.is_none() && !self.finished && !self.removed {
            self.condemned = super::verdict::recall(&self.kubelet, self.pod.uid()).await;
        }
        loop {
            self.read_mail();
            let now = Timestamp::now();
            if let Some(by) = self.clock.step(now, Instant::now()) {
                self.follow_clock(by);
            }
            let observed = self.observe();
            if std::mem::take(&mut first) {
                self.adopt(&observed);
            }
            self.read_last_words(&observed);
            self.note_users(&observed);
            let wake = self.step(&observed, now);
            if self.state == State::Gone {
                super::setup::forget(&self.kubelet, &self.pod).await;
                return;
            }
            let timer = sleep_until(wake, now);
            tokio::select! {
                () = token.cancelled() => return,
                () = self.mailbox.notified() => {}
                Some(done) = self.ops.join_next() => self.note(done),
                Some(report) = self.reports.recv() => self.on_report(report),
                () = timer => {}
            }
            while let Some(done) = self.ops.try_join_next() {
                self.note(done);
            }
            while let Ok(report) = self.reports.try_recv() {
                self.on_report(report);
            }
        }
    }

    /// Runs beside the worker. Whatever becomes of it, the worker hears of its end.
    pub(super) fn spawn(&mut self, op: Op, work: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        // Boxed: the runtime's code for a task is compiled once and not for each operation.
        let work = AssertUnwindSafe(work.boxed());
        self.ops.spawn(async move { work.catch_unwind().await.unwrap_or(Done::Panicked(op)) })
    }

    /// What waits for a moment waits as long as before, however the clock was set.
    fn follow_clock(&mut self, by: SignedDuration) {
        let own = [&mut self.setup_retry, &mut self.end_retry, &mut self.volumes_since, self.resize.retry_mut()];
        own.into_iter().flatten().chain(self.held.values_mut()).for_each(|at| clock::shift(at, by));
    }

    fn read_mail(&mut self) {
        let news = self.mailbox.take();
        if let Some(pod) = news.pod {
            if pod.metadata.generation != self.pod.metadata.generation {
                self.held.clear();
            }
            self.refresh_wanted |= pod.metadata.labels != self.pod.metadata.labels
                || pod.metadata.annotations != self.pod.metadata.annotations;
            self.kubelet.references.remove(&self.pod);
            self.kubelet.references.add(&pod);
            self.writer.saw(&pod);
            self.accept(pod);
        }
        self.removed |= news.removed;
        if self.condemned.is_none() && !self.state.is_ending() {
            self.condemned = news.verdict;
        }
        if news.sources_changed {
            self.refresh_wanted = true;
            self.setup_retry = None;
            let waiting = &self.waiting;
            self.held.retain(|name, _| waiting.get(name).is_none_or(|w| w.reason != "CreateContainerConfigError"));
        }
    }

    fn observe(&self) -> Observed {
        let uid = self.pod.uid();
        let sandbox = self.kubelet.runtime.sandbox_status(uid).ok();
        let mut containers = self.kubelet.runtime.sandbox_containers(uid);
        // Until its postStart hook is over, a container does not count as running.
        if let Some((name, _)) = &self.busy.start
            && let Some(newest) = containers.iter_mut().filter(|c| c.name == *name).max_by_key(|c| c.attempt)
            && newest.state == ContainerState::Running
        {
            newest.state = ContainerState::Created;
        }
        let ready = sandbox.as_ref().is_some_and(|s| s.state == runtime::SandboxState::Ready);
        Observed::new(sandbox, containers, if ready { self.ips.clone() } else { Vec::new() })
    }

    /// What the API server knows of containers that ran before this kubelet did.
    fn adopt(&mut self, observed: &Observed) {
        self.frozen |= self.pod.is_terminal() && observed.running().next().is_none();
        for c in observed.running() {
            let id = format!("{}{}", status::ID_PREFIX, c.id);
            let known = self.pod.known_status(&c.name).filter(|s| s.container_id.as_deref() == Some(&*id));
            if let Some(known) = known {
                let health = Health { started: known.started == Some(true), ready: known.ready };
                self.health.insert(c.id.clone(), health);
            }
        }
    }

    /// Decides and acts. Returns when to look again at the latest.
    fn step(&mut self, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
        self.check_deadline(now);
        let ask_again = self.allocate(now);
        let running = !self.state.is_ending();
        let plan = running.then(|| self.plan(observed, now));
        if let Some(plan) = &plan {
            self.sync_probes(observed);
            self.note_waiting(observed, plan);
        }
        self.compute_status(observed, now);
        let before = self.state;
        self.state = before.settled(self.facts(observed));
        if self.state != before {
            self.end_retry = None;
            self.end_probes();
            self.compute_status(observed, now);
        }
        let wake = match (self.state, plan) {
            (State::Running, Some(plan)) => self.carry_out(observed, plan, now),
            (State::Stopping, _) => self.stop_containers(observed, now),
            (State::TearingDown, _) => self.tear_down(now),
            (State::Stopped, _) => self.delete_object(now),
            (State::Running | State::Rejected | State::Gone, _) => None,
        };
        let deadline = self.deadline().filter(|_| self.state == State::Running);
        [wake, deadline, ask_again].into_iter().flatten().min()
    }

    fn facts(&self, observed: &Observed) -> Facts {
        Facts {
            deleting: self.pod.is_deleting(),
            removed: self.removed,
            condemned: self.condemned.is_some(),
            finished: self.finished,
            anything_runs: self.busy.may_run() || observed.running().next().is_some(),
            torn_down: self.torn_down,
        }
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        plan::plan(&plan::Inputs {
            pod: &self.pod,
            observed,
            health: &self.health,
            unhealthy: &self.unhealthy,
            crashes: &self.crashes,
            held: &self.held,
            outgrown: &self.outgrown,
            replaced: &self.replaced,
            starting: self.busy.start.as_ref().map(|(name, _)| &**name),
            now,
        })
    }

    /// Reasons of containers that came up or will not come back are dropped, new crash loops noted.
    fn note_waiting(&mut self, observed: &Observed, plan: &Plan) {
        self.waiting.retain(|name, _| match observed.latest(name) {
            Some(c) if has_ended(c) => plan.returning.contains(name),
            Some(c) => c.state == ContainerState::Created,
            None => true,
        });
        for (name, why) in &plan.crash_looping {
            if self.waiting.get(name) == Some(why) {
                continue;
            }
            if let Some((role, c)) = self.pod.container(name) {
                let about = events::container(&self.pod, role, &c.name);
                let message = format!("Back-off restarting failed container {name} in pod {}", self.pod.full_name());
                self.kubelet.recorder.event(&about, EventType::Warning, "BackOff", &message);
            }
            self.waiting.insert(name.clone(), why.clone());
        }
    }

    fn compute_status(&mut self, observed: &Observed, now: Timestamp) {
        // What the API server knows of a pod that nobody can look into is truer than a guess.
        if self.frozen || self.removed || (observed.sandbox_unknown() && !self.state.is_ending()) {
            return;
        }
        // An end is told together with its last words.
        if !self.busy.words.is_empty() {
            return;
        }
        let computed = status::compute(&status::Inputs {
            pod: &self.pod,
            old: &self.status,
            observed,
            waiting: &self.waiting,
            health: &self.health,
            messages: &self.messages,
            users: &self.users,
            applied: &self.applied,
            resize: &self.resize.report(),
            replaced: &self.replaced,
            verdict: self.condemned.as_ref().map(|(verdict, _)| verdict),
            stopping: self.state.is_ending(),
            ended: self.state.has_ended(observed.sandbox_unknown()),
            host_ips: &self.kubelet.cfg.node_ips,
            now,
        });
        let status::Computed { status: computed, finished } = computed;
        self.finished |= finished;
        if *self.status != computed {
            let starting = computed.phase.as_deref() == Some("Pending") && self.waiting.is_empty();
            let urgency = if starting && !self.state.is_ending() { Urgency::Step } else { Urgency::Now };
            self.status = Arc::new(computed);
            self.writer.set(self.status.clone(), urgency);
        }
        self.kubelet.pods.publish(self.pod.uid(), &self.pod, &self.status);
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec().active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn check_deadline(&mut self, now: Timestamp) {
        let over = self.deadline().is_some_and(|at| at <= now);
        if !over || self.condemned.is_some() || self.state.is_ending() {
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        self.kubelet.recorder.event(&events::pod(&self.pod), EventType::Normal, "DeadlineExceeded", &message);
        let verdict = Verdict { reason: "DeadlineExceeded".to_owned(), message, disruption: false };
        let grace = super::stop::own_grace(&self.pod, &[]);
        self.condemned = Some((verdict, grace));
    }

    fn on_report(&mut self, report: ProbeReport) {
        let ProbeReport { container_id, kind, verdict } = report;
        let health = self.health.entry(container_id.clone()).or_default();
        match (kind, verdict) {
            (ProbeKind::Startup, ProbeVerdict::Passing) => health.started = true,
            (ProbeKind::Readiness, verdict) => health.ready = verdict == ProbeVerdict::Passing,
            (ProbeKind::Startup, ProbeVerdict::Failing) => {
                self.unhealthy.insert(container_id, Unhealthy::Startup);
            }
            (ProbeKind::Liveness, ProbeVerdict::Failing) => {
                self.unhealthy.insert(container_id, Unhealthy::Liveness);
            }
            (ProbeKind::Liveness, ProbeVerdict::Passing) => {}
        }
    }

    /// Containers that ended and whose history is of no use any more are forgotten.
    pub(super) fn forget_container(&mut self, id: &str) {
        self.health.remove(id);
        self.unhealthy.remove(id);
        self.messages.remove(id);
        self.users.remove(id);
        self.replaced.remove(id);
        self.applied.remove(id);
        self.outgrown.remove(id);
    }

    /// The number of the next start: it goes on counting over restarts of the kubelet and of the node.
    pub(super) fn next_attempt(&self, latest: Option<&ContainerStatus>, name: &str) -> u32 {
        let from_runtime = latest.map_or(0, |c| c.attempt + 1);
        let known = self.pod.known_status(name).filter(|s| s.container_id.is_some());
        let from_status = known.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1);
        if latest.is_some() { from_runtime } else { from_status }
    }
}

async fn sleep_until(wake: Option<Timestamp>, now: Timestamp) {
    match wake {
        Some(at) => {
            let left = std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default();
            tokio::time::sleep_until(Instant::now() + left).await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{container, exited, observed, pod, running, sandbox};
    use runtime::SandboxState;
    use serde_json::json;

    /// The status that a worker publishes which is in this state and sees this, and the state that it is in then.
    fn published(
        pod: &Pod,
        from: State,
        facts: Facts,
        seen: &Observed,
        verdict: Option<&Verdict>,
    ) -> (State, PodStatus) {
        let (old, none) = (pod.status().clone(), HashMap::new());
        let state = from.settled(facts);
        let computed = status::compute(&status::Inputs {
            pod,
            old: &old,
            observed: seen,
            waiting: &BTreeMap::new(),
            health: &HashMap::new(),
            messages: &none,
            users: &HashMap::new(),
            applied: &HashMap::new(),
            resize: &status::Resize::default(),
            replaced: &HashSet::new(),
            verdict,
            stopping: state.is_ending(),
            ended: state.has_ended(seen.sandbox_unknown()),
            host_ips: &[],
            now: Timestamp::UNIX_EPOCH,
        });
        (state, computed.status)
    }

    /// Every operation that may be under way, alone.
    fn operations(ops: &mut JoinSet<()>) -> Vec<Busy> {
        let start = || Some(("a".to_owned(), CancellationToken::new()));
        vec![
            Busy::default(),
            Busy { setup: true, ..Busy::default() },
            Busy { start: start(), ..Busy::default() },
            Busy { stop: Some((1, ops.spawn(async {}))), ..Busy::default() },
            Busy { words: HashSet::from(["a-0".to_owned()]), ..Busy::default() },
        ]
    }

    #[tokio::test]
    async fn a_phase_is_final_only_once_nothing_runs_and_nothing_can_start() {
        let none = Facts::default();
        let verdict = Verdict { reason: "Evicted".to_owned(), message: String::new(), disruption: true };
        let mut ops = JoinSet::new();
        for policy in ["Always", "OnFailure", "Never"] {
            let mut pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
            pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
            let created = container(&pod, "a", 0, ContainerState::Created);
            let unknown = Observed::new(Some(sandbox(SandboxState::Unknown)), vec![], vec![]);
            let views = [
                Observed::default(),
                observed(vec![created]),
                observed(vec![running(&pod, "a", 0)]),
                observed(vec![exited(&pod, "a", 0, 0)]),
                observed(vec![exited(&pod, "a", 0, 1)]),
                unknown,
            ];
            for (n, seen) in views.iter().enumerate() {
                for busy in operations(&mut ops) {
                    let runs = seen.running().next().is_some();
                    let held = busy.may_run() || runs;
                    for (from, cause) in [State::Running, State::Stopping].into_iter().flat_map(|from| {
                        let causes = [
                            Facts { deleting: true, ..none },
                            Facts { condemned: true, ..none },
                            Facts { finished: true, ..none },
                        ];
                        causes.map(|cause| (from, cause))
                    }) {
                        let facts = Facts { anything_runs: held, ..cause };
                        let why = cause.condemned.then_some(&verdict);
                        let (state, got) = published(&pod, from, facts, seen, why);
                        let is_final = is_terminal_phase(got.phase.as_deref());
                        let ended = !held && !seen.sandbox_unknown();
                        assert_eq!(is_final, ended, "{policy} view {n} {from:?} {facts:?} {state:?}");
                        let one = &got.container_statuses.as_ref().unwrap()[0].state;
                        assert!(!is_final || one.as_ref().unwrap().running.is_none(), "{policy} view {n} {facts:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_final_phase_stays_whatever_is_seen() {
        for phase in ["Succeeded", "Failed"] {
            let mut pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
            pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
            let seen =
                [observed(vec![running(&pod, "a", 0)]), observed(vec![exited(&pod, "a", 0, 3)]), Observed::default()];
            for (seen, finished) in seen.iter().flat_map(|seen| [(seen, true), (seen, false)]) {
                let anything_runs = seen.running().next().is_some();
                let facts = Facts { finished, anything_runs, ..Facts::default() };
                let (_, got) = published(&pod, State::Running, facts, seen, None);
                assert_eq!(got.phase.as_deref(), Some(phase));
            }
        }
    }

    #[test]
    fn an_operation_that_panicked_leaves_the_others_busy() {
        let busy = || Busy {
            setup: true,
            volumes: CancellationToken::new(),
            start: Some(("a".to_owned(), CancellationToken::new())),
            kills: HashSet::from(["1".to_owned(), "2".to_owned()]),
            stop: None,
            teardown: true,
            delete: true,
            resize: true,
            words: HashSet::from(["3".to_owned(), "4".to_owned()]),
        };
        let flags =
            |b: &Busy| (b.setup, b.start.is_some(), b.kills.len(), b.teardown, b.delete, b.resize, b.words.len());
        for (op, expected) in [
            (Op::SetUp, (false, true, 2, true, true, true, 2)),
            (Op::Start("a".to_owned()), (true, false, 2, true, true, true, 2)),
            (Op::Kill("2".to_owned()), (true, true, 1, true, true, true, 2)),
            (Op::Stop, (true, true, 2, true, true, true, 2)),
            (Op::TearDown, (true, true, 2, false, true, true, 2)),
            (Op::Delete, (true, true, 2, true, false, true, 2)),
            (Op::Prune, (true, true, 2, true, true, true, 2)),
            (Op::Resize, (true, true, 2, true, true, false, 2)),
            (Op::LastWords(vec!["3".to_owned()]), (true, true, 2, true, true, true, 1)),
        ] {
            let mut busy = busy();
            busy.release(&op);
            assert_eq!(flags(&busy), expected, "{op:?}");
        }
    }
}
