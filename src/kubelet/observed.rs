//! What the runtime knows of one pod at one moment: its sandbox and every container that it still
//! keeps, and how the kubelet's own facts are written into their labels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};
use sha2::{Digest, Sha256};

use crate::pod::PodExt;

/// Labels by which a restarted kubelet recognises what it made.
pub(crate) mod label {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// The image as the pod names it, and the digest that it stood for.
    pub(crate) const IMAGE: &str = "io.coracle.container.image";
    pub(crate) const IMAGE_REF: &str = "io.coracle.container.image-ref";
    /// How many sandboxes the pod had before this one.
    pub(crate) const SANDBOX_ATTEMPT: &str = "io.coracle.sandbox.attempt";
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) sandbox: Option<SandboxStatus>,
    /// Oldest first.
    pub(crate) containers: Vec<ContainerStatus>,
    pub(crate) ips: Vec<IpAddr>,
}

impl Observed {
    /// Sorts what a listing gave.
    pub(crate) fn new(sandbox: Option<SandboxStatus>, mut containers: Vec<ContainerStatus>, ips: Vec<IpAddr>) -> Self {
        containers.sort_by_key(|c| (c.attempt, c.created_at_ns));
        Self { sandbox, containers, ips }
    }

    pub(crate) fn sandbox_ready(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|s| s.state == SandboxState::Ready)
    }

    /// Something of the pod may run, but nobody can say what.
    pub(crate) fn sandbox_unknown(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|s| s.state == SandboxState::Unknown)
    }

    /// The newest container of that name.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().rev().find(|c| c.name == name)
    }

    /// The newest container of that name that ended, other than the one with this id.
    pub(crate) fn ended_before(&self, name: &str, id: &str) -> Option<&ContainerStatus> {
        self.containers.iter().rev().find(|c| c.name == name && c.id != id && has_ended(c))
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| is_running(c))
    }

    /// The newest container of that name that was made in the present sandbox.
    pub(crate) fn latest_here(&self, name: &str) -> Option<&ContainerStatus> {
        let attempt = self.sandbox_attempt().to_string();
        self.latest(name).filter(|c| c.labels.get(label::SANDBOX_ATTEMPT).is_none_or(|a| *a == attempt))
    }

    pub(crate) fn sandbox_attempt(&self) -> u32 {
        let text = self.sandbox.as_ref().and_then(|s| s.labels.get(label::SANDBOX_ATTEMPT));
        text.and_then(|t| t.parse().ok()).unwrap_or(0)
    }
}

pub(crate) fn is_running(c: &ContainerStatus) -> bool {
    c.state == ContainerState::Running
}

/// Exited, or lost with its shim.
pub(crate) fn has_ended(c: &ContainerStatus) -> bool {
    matches!(c.state, ContainerState::Exited | ContainerState::Unknown)
}

pub(crate) fn succeeded(c: &ContainerStatus) -> bool {
    c.state == ContainerState::Exited && c.exit_code == Some(0) && c.error.is_none()
}

/// Changes when the running container no longer is what the pod asks for. Only the name and the
/// image count, as upstream's: resources may change in place.
pub(crate) fn container_hash(c: &Container) -> String {
    let mut sha = Sha256::new();
    sha.update(c.name.as_bytes());
    sha.update([0]);
    sha.update(c.image.as_deref().unwrap_or_default().as_bytes());
    hex::encode(&sha.finalize()[..8])
}

/// The labels of a container's runtime record.
pub(crate) fn container_labels(
    pod: &Pod,
    c: &Container,
    image_name: &str,
    image_ref: &str,
    sandbox_attempt: u32,
) -> BTreeMap<String, String> {
    let mut labels = pod_labels(pod);
    let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
    set(label::CONTAINER_NAME, &c.name);
    set(label::HASH, &container_hash(c));
    set(label::MESSAGE_PATH, message_path(c));
    set(label::MESSAGE_POLICY, c.termination_message_policy.as_deref().unwrap_or("File"));
    set(label::IMAGE, image_name);
    set(label::IMAGE_REF, image_ref);
    set(label::SANDBOX_ATTEMPT, &sandbox_attempt.to_string());
    labels
}

pub(crate) fn message_path(c: &Container) -> &str {
    c.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

/// The labels that name a pod.
pub(crate) fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let grace = pod.spec().termination_grace_period_seconds.unwrap_or(30).to_string();
    [
        (label::POD_NAME, pod.name()),
        (label::POD_NAMESPACE, pod.namespace()),
        (label::POD_UID, pod.uid()),
        (label::GRACE_PERIOD, &grace),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}
