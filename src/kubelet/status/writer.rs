//! Carries a pod's computed status to the API server: one task a pod, always the newest status,
//! retried until it is there or the pod is gone.
//!
//! The steps of a start follow each other within milliseconds and each would cost a write of the
//! store; so a status that only tells of such a step waits a moment for the next one. The first
//! status of a pod does not wait: it shows that the kubelet has taken the pod (`ContainerCreating`),
//! and the store need not bring it to the disk.
//!
//! The status is the kubelet's alone, but for conditions of others: what somebody else wrote into it
//! is overwritten a little later.

use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Pod, PodStatus};
use client::{Backoff, Owned, kube, status as api_status};
use kube::api::{Api, Patch, PatchParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::diff;
use crate::pod::PodExt;

const RETRY: Backoff =
    Backoff { base: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(30), jitter: 0.2 };

/// How long a step of a start waits to be overtaken.
const STEP: Duration = Duration::from_millis(150);

/// A status that somebody else wrote over is written again after this long.
const RESTORE: Duration = Duration::from_secs(10);

/// Whether a status may wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Now,
    /// One step of a start.
    Step,
}

/// How far the API server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// The status with this number.
    Version(u64),
    /// There is no such pod any more.
    Gone,
}

/// The sending side, owned by the pod's worker.
pub(crate) struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<Written>,
    seen: watch::Sender<Option<Arc<Pod>>>,
    _task: Owned,
}

#[derive(Clone)]
struct Wanted {
    version: u64,
    status: Arc<PodStatus>,
    urgency: Urgency,
}

impl StatusWriter {
    /// Starts from the status that the API server has in `pod`.
    pub(crate) fn new(client: kube::Client, pod: &Pod) -> Self {
        let current = Arc::new(pod.status().clone());
        let (wanted, wanted_rx) = watch::channel(Wanted { version: 0, status: current.clone(), urgency: Urgency::Now });
        let (written_tx, written) = watch::channel(Written::Version(0));
        let (seen, seen_rx) = watch::channel(None);
        let shell = Shell {
            api: Api::namespaced(client, pod.namespace()),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            answer: current.clone(),
            current,
            revision: revision(pod),
            restore_at: None,
            wanted: wanted_rx,
            seen: seen_rx,
            written: written_tx,
        };
        Self { wanted, written, seen, _task: Owned::spawn(shell.run()) }
    }

    /// Looks whether somebody else changed what this kubelet wrote.
    pub(crate) fn saw(&self, pod: &Arc<Pod>) {
        self.seen.send_replace(Some(pod.clone()));
    }

    /// Replaces the wanted status; nothing happens when it is the same.
    pub(crate) fn set(&self, status: Arc<PodStatus>, urgency: Urgency) {
        self.wanted.send_if_modified(|wanted| {
            if *wanted.status == *status {
                return false;
            }
            *wanted = Wanted { version: wanted.version + 1, status, urgency };
            true
        });
    }

    /// Waits until the API server has the newest status or has no such pod.
    pub(crate) async fn flushed(&self) {
        let version = self.wanted.borrow().version;
        let mut written = self.written.clone();
        // The task ends only with this object, so an error means that nobody waits any more.
        let _ = written
            .wait_for(|w| match w {
                Written::Version(v) => *v >= version,
                Written::Gone => true,
            })
            .await;
    }
}

struct Shell {
    api: Api<Pod>,
    name: String,
    uid: String,
    /// What the API server has, as far as this kubelet knows.
    current: Arc<PodStatus>,
    /// What the API server answered to the last write, and the revision of the newest object known.
    answer: Arc<PodStatus>,
    revision: u64,
    restore_at: Option<Instant>,
    wanted: watch::Receiver<Wanted>,
    seen: watch::Receiver<Option<Arc<Pod>>>,
    written: watch::Sender<Written>,
}

impl Shell {
    async fn run(mut self) {
        loop {
            let restore = self.restore_at;
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.let_steps_pass().await;
                }
                Ok(()) = self.seen.changed() => {
                    self.note_seen();
                    continue;
                }
                () = tokio::time::sleep_until(restore.unwrap_or_else(Instant::now)), if restore.is_some() => {}
            }
            if !self.bring().await {
                return;
            }
        }
    }

    /// A newer object whose status is not what was written last is not left so.
    fn note_seen(&mut self) {
        let Some(pod) = self.seen.borrow_and_update().clone() else { return };
        let newer = revision(&pod);
        if newer <= self.revision {
            return;
        }
        self.revision = newer;
        if diff::patch(&self.uid, pod.status(), &self.answer).is_some() {
            self.current = Arc::new(pod.status().clone());
            self.restore_at.get_or_insert_with(|| Instant::now() + RESTORE);
        }
    }

    /// Writes the newest wanted status until it is there; false when there is no such pod any more.
    async fn bring(&mut self) -> bool {
        let mut attempt = 0;
        loop {
            let Wanted { version, status, .. } = self.wanted.borrow_and_update().clone();
            match self.write(&status).await {
                Ok(written) => {
                    if let Some(pod) = written {
                        self.revision = self.revision.max(revision(&pod));
                        self.answer = Arc::new(pod.status().clone());
                    }
                    self.restore_at = None;
                    self.current = status;
                    self.written.send_replace(Written::Version(version));
                    return true;
                }
                Err(e) if api_status::is_not_found(&e) => {
                    debug!(pod = self.name, "no such pod any more, its status is not written");
                    self.written.send_replace(Written::Gone);
                    return false;
                }
                Err(e) => {
                    warn!(pod = self.name, "pod status not written, will retry: {}", api_status::message(&e));
                    tokio::time::sleep(RETRY.delay(attempt)).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn let_steps_pass(&mut self) {
        let is_first = self.current.start_time.is_none();
        if is_first {
            return;
        }
        let until = Instant::now() + STEP;
        while self.wanted.borrow_and_update().urgency == Urgency::Step {
            match timeout_at(until, self.wanted.changed()).await {
                Ok(Ok(())) => {}
                // Time is up, or nobody will send another.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    async fn write(&self, status: &PodStatus) -> kube::Result<Option<Pod>> {
        let Some(patch) = diff::patch(&self.uid, &self.current, status) else { return Ok(None) };
        self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(Some)
    }
}

fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    /// A pod's writer, and what arrives at an API server that answers everything with the pod.
    fn writer(known: Value) -> (StatusWriter, mpsc::Receiver<Value>) {
        let (sent, got) = mpsc::channel(8);
        let mut pod = pod(json!({"containers": [{"name": "a"}]}));
        pod.status = serde_json::from_value(known).unwrap();
        let answer = serde_json::to_vec(&pod).unwrap();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (sent, answer) = (sent.clone(), answer.clone());
            async move {
                let body = request.into_body().collect_bytes().await?;
                sent.send(serde_json::from_slice(&body).unwrap()).await.unwrap();
                Ok::<_, kube::Error>(http::Response::new(Body::from(answer)))
            }
        });
        (StatusWriter::new(kube::Client::new(service, "prod"), &pod), got)
    }

    fn status(reason: &str) -> Arc<PodStatus> {
        let state = json!({"waiting": {"reason": reason}});
        let entry = json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let status = json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [entry]});
        Arc::new(serde_json::from_value(status).unwrap())
    }

    fn reason(patch: &Value) -> &Value {
        &patch["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_status_is_written_at_once_and_the_steps_after_it_as_one() {
        let (writer, mut got) = writer(json!({"phase": "Pending"}));
        let began = Instant::now();
        writer.set(status("first"), Urgency::Step);
        assert_eq!(reason(&got.recv().await.unwrap()), "first");
        assert_eq!(began.elapsed(), Duration::ZERO);
        writer.set(status("second"), Urgency::Step);
        tokio::task::yield_now().await;
        writer.set(status("third"), Urgency::Now);
        writer.flushed().await;
        assert_eq!(reason(&got.recv().await.unwrap()), "third");
        assert!(got.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_wrote_is_overwritten_a_little_later() {
        let (writer, mut got) = writer(json!({"phase": "Pending"}));
        writer.set(status("mine"), Urgency::Now);
        writer.flushed().await;
        got.recv().await.unwrap();
        let mut theirs = pod(json!({"containers": [{"name": "a"}]}));
        theirs.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
        theirs.metadata.resource_version = Some("7".to_owned());
        let began = Instant::now();
        writer.saw(&Arc::new(theirs.clone()));
        tokio::task::yield_now().await;
        assert!(got.try_recv().is_err(), "what was answered is what is there");
        theirs.status.get_or_insert_default().phase = Some("Failed".to_owned());
        theirs.metadata.resource_version = Some("8".to_owned());
        writer.saw(&Arc::new(theirs));
        let again = got.recv().await.unwrap();
        assert_eq!((&again["status"]["phase"], began.elapsed()), (&json!("Pending"), RESTORE));
    }
}
