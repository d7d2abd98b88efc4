//! When the pods of one namespace got where: a watch whose events are stamped as they arrive.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, Watch};
use crate::fanout::list_version;
use crate::kubeconfig::Server;

/// Events that may wait while pods are being posted: some per pod of the largest test.
const QUEUE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Milestone {
    Scheduled,
    /// The phase is Running and so is the container.
    Running,
    Gone,
}

type Seen = (String, Milestone, Instant);

pub(crate) struct PodWatch {
    seen: mpsc::Receiver<Seen>,
    moments: HashMap<(String, Milestone), Instant>,
    _task: JoinSet<Result<()>>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    state: State,
}

#[derive(Deserialize)]
struct State {
    running: Option<serde::de::IgnoredAny>,
}

impl PodWatch {
    pub(crate) async fn open(server: &Server, namespace: &str) -> Result<Self> {
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let mut connection = Connection::open(server).await?;
        let from = list_version(connection.expect(200, "GET", &pods, "").await?)?;
        let watch = connection.watch(&format!("{pods}?watch=1&resourceVersion={from}&timeoutSeconds=900")).await?;
        let (sender, seen) = mpsc::channel(QUEUE);
        let mut task = JoinSet::new();
        task.spawn(follow(watch, sender));
        Ok(Self { seen, moments: HashMap::new(), _task: task })
    }

    /// When the pod reached the milestone, if a wait has seen it.
    pub(crate) fn moment(&self, pod: &str, milestone: Milestone) -> Option<Instant> {
        self.moments.get(&(pod.to_owned(), milestone)).copied()
    }

    /// Waits until all these pods have reached the milestone.
    ///
    /// # Errors
    /// Names a pod that has not after `within`.
    pub(crate) async fn wait(&mut self, pods: &[String], milestone: Milestone, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for pod in pods {
            while self.moment(pod, milestone).is_none() {
                let next = timeout_at(deadline, self.seen.recv()).await.ok().flatten();
                let (name, reached, at) = next.with_context(|| format!("pod {pod} never was {milestone:?}"))?;
                self.moments.entry((name, reached)).or_insert(at);
            }
        }
        Ok(())
    }
}

async fn follow(mut watch: Watch, sender: mpsc::Sender<Seen>) -> Result<()> {
    while let Some(line) = watch.next().await? {
        let at = Instant::now();
        let event: Event = serde_json::from_slice(&line).context("a watch event of a pod")?;
        for milestone in milestones(&event) {
            if sender.send((event.object.metadata.name.clone(), milestone, at)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn milestones(event: &Event) -> Vec<Milestone> {
    let Pod { spec, status, .. } = &event.object;
    let mut reached = Vec::new();
    if spec.node_name.is_some() {
        reached.push(Milestone::Scheduled);
    }
    let first_runs = status.container_statuses.first().is_some_and(|c| c.state.running.is_some());
    if status.phase.as_deref() == Some("Running") && first_runs {
        reached.push(Milestone::Running);
    }
    if event.r#type == "DELETED" {
        reached.push(Milestone::Gone);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_where_a_pod_is() {
        let rows: [(&str, &[Milestone]); 4] = [
            (r#"{"type":"ADDED","object":{"metadata":{"name":"p"},"spec":{}}}"#, &[]),
            (
                r#"{"type":"MODIFIED","object":{"metadata":{"name":"p"},"spec":{"nodeName":"n"},"status":{"phase":"Running","containerStatuses":[{"state":{"waiting":{}}}]}}}"#,
                &[Milestone::Scheduled],
            ),
            (
                r#"{"type":"MODIFIED","object":{"metadata":{"name":"p"},"spec":{"nodeName":"n"},"status":{"phase":"Running","containerStatuses":[{"state":{"running":{"startedAt":"x"}}}]}}}"#,
                &[Milestone::Scheduled, Milestone::Running],
            ),
            (
                r#"{"type":"DELETED","object":{"metadata":{"name":"p"},"spec":{"nodeName":"n"}}}"#,
                &[Milestone::Scheduled, Milestone::Gone],
            ),
        ];
        for (line, expected) in rows {
            assert_eq!(milestones(&serde_json::from_str(line).unwrap()), expected, "{line}");
        }
    }
}
