//! Builders for tests: pods from JSON, runtime records from a few words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};
use serde_json::{Value, json};

use crate::observed::{Observed, container_labels};
use crate::pod::PodExt;

pub(crate) const SECOND: i64 = 1_000_000_000;

/// A pod `web` in `prod` with this spec; containers without an image get `nginx`.
pub(crate) fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    for list in ["initContainers", "containers"] {
        for c in spec[list].as_array_mut().into_iter().flatten() {
            if c.get("image").is_none() {
                c["image"] = json!("nginx");
            }
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "prod", "uid": "u1", "generation": 2}, "spec": spec,
    }))
    .unwrap()
}

pub(crate) fn sandbox(state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        uid: "u1".to_owned(),
        namespace: "prod".to_owned(),
        name: "web".to_owned(),
        state,
        created_at_ns: 0,
        shim_pid: 1,
        labels: BTreeMap::new(),
    }
}

/// A container of `pod`; its id is `<name>-<attempt>`.
pub(crate) fn container(pod: &Pod, name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    let (_, spec) = pod.container(name).unwrap();
    ContainerStatus {
        id: format!("{name}-{attempt}"),
        sandbox_uid: pod.uid().to_owned(),
        name: name.to_owned(),
        attempt,
        state,
        pid: None,
        image: "nginx".to_owned(),
        image_id: "sha256:1".to_owned(),
        created_at_ns: SECOND,
        started_at_ns: Some(SECOND),
        finished_at_ns: None,
        exit_code: None,
        signal: None,
        oom_killed: false,
        error: None,
        log_path: PathBuf::new(),
        labels: container_labels(pod, &spec, "docker.io/library/nginx:latest", "docker.io/library/nginx@sha256:2", 0),
    }
}

pub(crate) fn running(pod: &Pod, name: &str, attempt: u32) -> ContainerStatus {
    container(pod, name, attempt, ContainerState::Running)
}

/// Ended ten seconds after the epoch with this code.
pub(crate) fn exited(pod: &Pod, name: &str, attempt: u32, code: i32) -> ContainerStatus {
    ContainerStatus {
        exit_code: Some(code),
        finished_at_ns: Some(10 * SECOND),
        ..container(pod, name, attempt, ContainerState::Exited)
    }
}

/// A ready sandbox with an address and these containers.
pub(crate) fn observed(containers: Vec<ContainerStatus>) -> Observed {
    Observed::new(Some(sandbox(SandboxState::Ready)), containers, vec!["10.244.0.5".parse().unwrap()])
}
