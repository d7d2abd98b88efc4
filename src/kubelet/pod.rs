//! What the kubelet asks of a pod object again and again: identity, its containers with their
//! roles, restart policy. Pure look-ups on the typed pod; nothing is computed twice elsewhere.

use std::borrow::Cow;

use api::k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus,
};

/// The part that a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs to completion before the next init container.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then runs beside the others.
    Sidecar,
    App,
    Ephemeral,
}

impl Role {
    /// The field of the pod's spec that lists such containers, as events name it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Init | Self::Sidecar => "initContainers",
            Self::App => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// Look-ups on a pod.
pub(crate) trait PodExt {
    fn pod(&self) -> &Pod;

    fn uid(&self) -> &str {
        self.pod().metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.pod().metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.pod().metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, as upstream's messages name a pod.
    fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod().spec.as_ref().unwrap_or(&EMPTY)
    }

    fn status(&self) -> &PodStatus {
        static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
        self.pod().status.as_ref().unwrap_or(&EMPTY)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref())
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn is_deleting(&self) -> bool {
        self.pod().metadata.deletion_timestamp.is_some()
    }

    /// `Succeeded` or `Failed` as the API server knows it.
    fn is_terminal(&self) -> bool {
        is_terminal_phase(self.status().phase.as_deref())
    }

    /// Every container with its role: init containers in order, then the others.
    fn containers(&self) -> Vec<(Role, Cow<'_, Container>)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().map(|c| (init_role(c), Cow::Borrowed(c)));
        let apps = spec.containers.iter().map(|c| (Role::App, Cow::Borrowed(c)));
        let ephemeral =
            spec.ephemeral_containers.iter().flatten().map(|c| (Role::Ephemeral, Cow::Owned(as_container(c))));
        init.chain(apps).chain(ephemeral).collect()
    }

    fn container(&self, name: &str) -> Option<(Role, Cow<'_, Container>)> {
        self.containers().into_iter().find(|(_, c)| c.name == name)
    }

    /// Whether a container that ended so is started again. The first of its own rules that fits
    /// decides, else its policy. No code: how it ended is not known.
    fn restarts(&self, role: Role, c: &Container, exit_code: Option<i32>) -> bool {
        let rules = c.restart_policy_rules.iter().flatten().filter(|_| role != Role::Ephemeral);
        if exit_code.is_some_and(|code| rules.into_iter().any(|rule| rule_restarts(rule, code))) {
            return true;
        }
        match self.container_restart_policy(role, c) {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != Some(0),
            RestartPolicy::Never => false,
        }
    }

    /// Restart policy of one container: sidecars always, a container's own policy, else the pod's.
    fn container_restart_policy(&self, role: Role, c: &Container) -> RestartPolicy {
        match role {
            Role::Sidecar => RestartPolicy::Always,
            Role::Ephemeral => RestartPolicy::Never,
            Role::Init | Role::App => match c.restart_policy.as_deref() {
                Some(own) => RestartPolicy::parse(Some(own)),
                None if role == Role::Init && self.restart_policy() == RestartPolicy::Always => {
                    RestartPolicy::OnFailure
                }
                None => self.restart_policy(),
            },
        }
    }

    /// The status that the API server holds for a container.
    fn known_status(&self, name: &str) -> Option<&ContainerStatus> {
        container_status(self.status(), name)
    }
}

impl PodExt for Pod {
    fn pod(&self) -> &Pod {
        self
    }
}

fn rule_restarts(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(on) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
    let listed = on.values.iter().flatten().any(|v| *v == code);
    match on.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

pub(crate) fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A container's entry in any of the three lists of a pod's status.
pub(crate) fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|s| s.name == name)
}

pub(crate) fn init_role(c: &Container) -> Role {
    if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

/// Ephemeral containers carry the same fields under another type.
fn as_container(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(pod_policy: &str, container: &Value, code: i32, expected: bool) {
        let pod = pod(json!({"restartPolicy": pod_policy, "containers": [container]}));
        assert_eq!(pod.restarts(Role::App, &pod.spec().containers[0], Some(code)), expected);
    }

    #[test]
    fn a_rule_that_fits_goes_before_the_policies() {
        let rules = |operator: &str| {
            json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": operator, "values": [42, 43]}}]})
        };
        check("Always", &json!({"name": "a"}), 0, true);
        check("OnFailure", &json!({"name": "a"}), 0, false);
        check("OnFailure", &json!({"name": "a"}), 1, true);
        check("Always", &json!({"name": "a", "restartPolicy": "Never"}), 1, false);
        check("Never", &rules("In"), 42, true);
        check("Never", &rules("In"), 1, false);
        check("Always", &rules("NotIn"), 1, true);
        check("Always", &rules("NotIn"), 43, false);
    }

    #[test]
    fn an_ephemeral_container_is_a_container() {
        let fields = json!({"name": "e", "image": "i", "command": ["c"], "args": ["a"], "workingDir": "/w",
            "env": [{"name": "k", "value": "v"}], "envFrom": [{"secretRef": {"name": "s"}}], "imagePullPolicy": "Always",
            "securityContext": {"runAsUser": 5}, "stdin": true, "stdinOnce": true, "tty": true,
            "terminationMessagePath": "/m", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let mut given = fields.clone();
        given["targetContainerName"] = json!("a");
        let pod = pod(json!({"containers": [{"name": "a"}], "ephemeralContainers": [given]}));
        let (role, c) = pod.container("e").unwrap();
        assert_eq!((role, serde_json::to_value(&*c).unwrap()), (Role::Ephemeral, fields));
    }
}
