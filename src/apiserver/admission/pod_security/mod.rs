//! PodSecurity: the Pod Security Standards, as a namespace's `pod-security.kubernetes.io/*` labels ask
//! for them.
//!
//! `enforce` refuses pods, `warn` tells the client, also about the templates of workloads. Every level
//! is judged by the newest version of the standards. [`labels`] reads what a namespace asks for, and
//! [`namespace`] refuses what cannot be read.

mod baseline;
mod labels;
mod namespace;
mod restricted;

use api::object::{GroupResource, ObjectKey};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Lifecycle, Pod, PodSpec, Probe, SecurityContext};
use serde::Deserialize;
use serde_json::Value;

use super::review::{Operation, Review};
use crate::error::ApiError;
use crate::registry::Registry;
use labels::{Level, Policies, Policy};

pub(super) use namespace::{admit as admit_namespace, scanned_bytes};

/// One rule that a pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    reason: &'static str,
    detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail }
    }
}

/// What the rules look at in a container of any of the three kinds.
#[derive(Clone, Copy)]
struct View<'p> {
    name: &'p str,
    context: Option<&'p SecurityContext>,
    ports: &'p [ContainerPort],
    lifecycle: Option<&'p Lifecycle>,
    probes: [Option<&'p Probe>; 3],
}

/// Refuses a pod that breaks the namespace's enforced level, and warns of the level to warn of.
///
/// # Errors
/// `Forbidden`.
pub(super) fn admit_pod(registry: &Registry, review: &mut Review<'_>, pod: &Pod) -> Result<(), ApiError> {
    let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
    if review.operation == Operation::Update && !is_significant(review, pod) {
        return Ok(());
    }
    let policies = policies(registry, review.namespace)?;
    if let Some(enforce) = &policies.enforce
        && let Some(text) = judge(spec, annotations_of(pod), enforce)
    {
        return Err(review.forbidden(format!("violates PodSecurity {text}")));
    }
    if let Some(text) = policies.warn.as_ref().and_then(|warn| judge(spec, annotations_of(pod), warn)) {
        review.warnings.push(format!("would violate PodSecurity {text}"));
    }
    Ok(())
}

/// Warns of a workload whose pods would break a level. Nothing is refused: the pods will be.
///
/// # Errors
/// When the namespace or the template cannot be read.
pub(super) fn warn_of_template(
    registry: &Registry,
    review: &mut Review<'_>,
    group: &str,
    resource: &str,
) -> Result<(), ApiError> {
    let template = match (group, resource) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return Ok(()),
    };
    let policies = policies(registry, review.namespace)?;
    let wanted: Vec<Policy> = policies.warn.into_iter().chain(policies.enforce).collect();
    let strictest = wanted.iter().max_by_key(|p| p.level);
    let Some(policy) = strictest else { return Ok(()) };
    let Some(template) = review.object.as_ref().and_then(|o| o.pointer(template)) else { return Ok(()) };
    let pod = Pod::deserialize(with_meta(template)).map_err(ApiError::internal)?;
    let text = pod.spec.as_ref().and_then(|spec| judge(spec, annotations_of(&pod), policy));
    if let Some(text) = text {
        review.warnings.push(format!("would violate PodSecurity {text}"));
    }
    Ok(())
}

/// A template may leave its metadata out; a pod may not.
fn with_meta(template: &Value) -> Value {
    let mut pod = template.clone();
    if pod["metadata"].is_null() {
        pod["metadata"] = Value::Object(serde_json::Map::new());
    }
    pod
}

/// Only what changes a container's image or adds a container has to be judged again.
fn is_significant(review: &Review<'_>, new: &Pod) -> bool {
    let Ok(old) = review.typed_old::<Pod>() else { return true };
    let images = |pod: &Pod| -> Vec<(String, Option<String>)> {
        let spec = pod.spec.clone().unwrap_or_default();
        let plain = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten());
        let ephemeral = spec.ephemeral_containers.into_iter().flatten().map(|c| (c.name, c.image));
        plain.map(|c| (c.name, c.image)).chain(ephemeral).collect()
    };
    images(&old) != images(new)
}

/// What the namespace's labels ask for beyond `privileged`. A namespace that cannot be read asks for
/// nothing that could be granted.
fn policies(registry: &Registry, namespace: &str) -> Result<Policies, ApiError> {
    let namespaces = GroupResource::new("", "namespaces");
    let object = registry.get(&namespaces, &ObjectKey::new("", namespace));
    let object = object.ok_or_else(|| ApiError::not_found(&namespaces, namespace))?;
    Ok(labels::read(&object.index.labels).0)
}

type Annotations<'p> = Option<&'p std::collections::BTreeMap<String, String>>;

fn annotations_of(pod: &Pod) -> Annotations<'_> {
    pod.metadata.annotations.as_ref()
}

/// What the pod breaks, as upstream prints it: `"baseline:latest": reason (detail), …`.
fn judge(spec: &PodSpec, annotations: Annotations<'_>, policy: &Policy) -> Option<String> {
    let violations = violations(spec, annotations, policy.level);
    if violations.is_empty() {
        return None;
    }
    let list: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    Some(format!("\"{policy}\": {}", list.join(", ")))
}

fn violations(spec: &PodSpec, annotations: Annotations<'_>, level: Level) -> Vec<Violation> {
    match level {
        Level::Baseline => baseline::judge(spec, annotations, Level::Baseline),
        Level::Restricted => {
            let mut all = baseline::judge(spec, annotations, Level::Restricted);
            all.extend(restricted::judge(spec));
            all
        }
    }
}

/// Init containers, containers, ephemeral containers: upstream's order of visiting.
fn views(spec: &PodSpec) -> Vec<View<'_>> {
    let mut views: Vec<View<'_>> = Vec::new();
    views.extend(spec.init_containers.iter().flatten().map(view_of));
    views.extend(spec.containers.iter().map(view_of));
    views.extend(spec.ephemeral_containers.iter().flatten().map(|c| View {
        name: &c.name,
        context: c.security_context.as_ref(),
        ports: c.ports.as_deref().unwrap_or_default(),
        lifecycle: c.lifecycle.as_ref(),
        probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
    }));
    views
}

fn view_of(container: &Container) -> View<'_> {
    View {
        name: &container.name,
        context: container.security_context.as_ref(),
        ports: container.ports.as_deref().unwrap_or_default(),
        lifecycle: container.lifecycle.as_ref(),
        probes: [
            container.liveness_probe.as_ref(),
            container.readiness_probe.as_ref(),
            container.startup_probe.as_ref(),
        ],
    }
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("container{plural} {}", quoted(names))
}

fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{:?}", n.as_ref())).collect();
    quoted.join(", ")
}

/// The names of the containers for which `wrong` holds.
fn names_where<'p>(views: &[View<'p>], wrong: impl Fn(&View<'p>) -> bool) -> Vec<&'p str> {
    views.iter().filter(|v| wrong(v)).map(|v| v.name).collect()
}

#[cfg(test)]
mod tests;
