//! Which probes of the pod run now, and what its dead containers said last.

use std::net::IpAddr;
use std::time::Duration;

use runtime::{ContainerStatus, Lane};
use tracing::debug;

use super::last_words;
use super::start::message_file;
use super::worker::{Done, Op, Worker};
use crate::events;
use crate::metrics::{Counter, container_type};
use crate::observed::{Observed, has_ended, label};
use crate::pod::{PodExt, Role};
use crate::prober::{ProbeKind, Prober};
use crate::status;

/// A disk that takes longer keeps them, and the end is told without.
const WORDS_DEADLINE: Duration = Duration::from_secs(10);

impl Worker {
    /// Starts the probes of containers that run and ends those of containers that do not.
    pub(super) fn sync_probes(&mut self, observed: &Observed) {
        let running: Vec<&ContainerStatus> = observed.running().collect();
        self.probes.retain(|(id, _), _| running.iter().any(|c| c.id == *id));
        for status in running {
            let Some((role, c)) = self.pod.container(&status.name) else { continue };
            if matches!(role, Role::Init | Role::Ephemeral) {
                continue;
            }
            let c = c.into_owned();
            let adopted = self.health.contains_key(&status.id);
            let health = self.health.entry(status.id.clone()).or_default();
            health.started |= c.startup_probe.is_none();
            let started = health.started;
            if started && c.readiness_probe.is_none() {
                health.ready = true;
            }
            let wanted: &[ProbeKind] =
                if started { &[ProbeKind::Readiness, ProbeKind::Liveness] } else { &[ProbeKind::Startup] };
            for &kind in wanted {
                let key = (status.id.clone(), kind);
                let Some(probe) = kind.of(&c).filter(|_| !self.probes.contains_key(&key)) else { continue };
                let prober = Prober {
                    runtime: self.kubelet.runtime.clone(),
                    recorder: self.kubelet.recorder.clone(),
                    about: events::container(&self.pod, role, &c.name),
                    kind,
                    probe: probe.clone(),
                    container: c.clone(),
                    container_id: status.id.clone(),
                    pod_ip: self.ips.first().map(IpAddr::to_string).unwrap_or_default(),
                    // Without a process it is about to be told of as ended.
                    age: status.pid.and_then(runtime::process_age).unwrap_or_default(),
                    adopted,
                    reports: self.reports_tx.clone(),
                };
                self.probes.insert(key, prober.spawn());
            }
        }
    }

    /// A pod that is being stopped is no longer restarted; its readiness still counts.
    pub(super) fn end_probes(&mut self) {
        self.probes.retain(|(_, kind), _| *kind == ProbeKind::Readiness);
    }

    /// Reads the messages of containers that ended since, beside the worker.
    pub(super) fn read_last_words(&mut self, observed: &Observed) {
        let is_new = |c: &&ContainerStatus| !self.messages.contains_key(&c.id) && !self.busy.words.contains(&c.id);
        let ended: Vec<&ContainerStatus> = observed.containers.iter().filter(|c| has_ended(c)).filter(is_new).collect();
        if ended.is_empty() {
            return;
        }
        let mut files = Vec::new();
        for c in ended {
            self.health.remove(&c.id);
            self.count_end(c);
            self.busy.words.insert(c.id.clone());
            let from_log = c.labels.get(label::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
            let log = (from_log && c.exit_code != Some(0)).then(|| c.log_path.clone());
            files.push((c.id.clone(), message_file(&self.kubelet, self.pod.uid(), &c.name, c.attempt), log));
        }
        let ids: Vec<String> = files.iter().map(|(id, ..)| id.clone()).collect();
        let (kubelet, uid, silent) = (self.kubelet.clone(), self.pod.uid().to_owned(), ids.clone());
        self.spawn(Op::LastWords(ids), async move {
            let read = move || -> Vec<(String, String)> {
                files.into_iter().map(|(id, file, log)| (id, last_words::read(&file, log.as_deref()))).collect()
            };
            let words = kubelet.disk().run(Lane::Pod, &uid, WORDS_DEADLINE, read).await;
            Done::LastWords(words.unwrap_or_else(|e| {
                debug!(uid, "termination messages: {e}");
                silent.into_iter().map(|id| (id, String::new())).collect()
            }))
        });
    }

    pub(super) fn note_last_words(&mut self, words: Vec<(String, String)>) {
        for (id, message) in words {
            self.busy.words.remove(&id);
            self.messages.insert(id, message);
        }
    }
}

impl Worker {
    /// An end that the API server knew before this kubelet started was counted by the one before.
    fn count_end(&self, c: &ContainerStatus) {
        let known = self.pod.known_status(&c.name).and_then(|s| s.state.as_ref()?.terminated.as_ref());
        let id = format!("{}{}", status::ID_PREFIX, c.id);
        let Some((role, _)) = self.pod.container(&c.name) else { return };
        if known.is_some_and(|t| t.container_id.as_deref() == Some(&*id)) {
            return;
        }
        let (reason, code) = status::end_of(c);
        let labels = [("container_type", container_type(role)), ("exit_code", &*code.to_string()), ("reason", reason)];
        self.kubelet.metrics.count(Counter::TerminatedContainers, &labels);
    }
}
