//! Updates through `pods/resize`: CPU and memory of containers, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::validate_containers::is_sidecar;
use super::{qos_class, validate_spec};
use crate::field::{self, ErrorList, Path};
use crate::quantity::Quantity;

type Amounts = BTreeMap<String, Text>;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// What a container may be given more or less of while it runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Checks a pod whose resources were changed through the subresource; everything else in it is the
/// old pod's already.
#[must_use]
pub fn validate_resize(new: &Pod, old: &Pod) -> ErrorList {
    let mut errs = ErrorList::new();
    validate_spec::validate_changed_pod(new, old, &mut errs);
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return field::forbidden(&Path::new(""), "static pods cannot be resized").into();
    }
    let (Some(new_spec), Some(old_spec)) = (new.spec.as_ref(), old.spec.as_ref()) else { return errs };
    let path = Path::new("spec");
    let class = |pod: &Pod| pod.status.as_ref().and_then(|s| s.qos_class.clone()).unwrap_or_default();
    if qos_class(new_spec).as_str() != class(old) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errs.push(field::invalid(&path, &class(new), why));
    }
    if !node_resizes(old) {
        errs.push(field::forbidden(&path, "Pod running on node without support for resize"));
    }
    validate_whole(new_spec, old_spec, &path, &mut errs);
    let before = errs.len();
    let none: &[Container] = &[];
    let lists = [
        ("containers", &*new_spec.containers, &*old_spec.containers),
        (
            "initContainers",
            new_spec.init_containers.as_deref().unwrap_or(none),
            old_spec.init_containers.as_deref().unwrap_or(none),
        ),
    ];
    for (name, new, old) in lists {
        validate_same_containers(new, old, name, &path.child(name), &mut errs);
    }
    if errs.len() == before {
        for (name, new, old) in lists {
            validate_containers(new, old, name == "initContainers", &path.child(name), &mut errs);
        }
    }
    errs
}

/// A kubelet that resizes pods tells what its running containers have.
fn node_resizes(pod: &Pod) -> bool {
    let mut statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let running = statuses.find(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    running.is_none_or(|s| s.resources.is_some())
}

fn validate_same_containers(new: &[Container], old: &[Container], what: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if new.len() != old.len() {
        errs.push(field::forbidden(path, format!("{what} may not be added or removed on resize")));
        return;
    }
    for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
        let why = format!("{what} may not be renamed or reordered on resize");
        errs.push(field::forbidden(&path.index(i).child("name"), why));
    }
}

fn validate_containers(new: &[Container], old: &[Container], init: bool, path: &Path<'_>, errs: &mut ErrorList) {
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let at = path.index(i);
        let (now, before) = (new.resources.as_ref(), old.resources.as_ref());
        let resources = at.child("resources");
        validate_none_removed(now, before, "resource", &resources, errs);
        if !same_but_resizable(now, before) {
            if init {
                let why = "only cpu and memory resources for init or sidecar containers are mutable";
                errs.push(field::forbidden(&at, why));
            } else {
                errs.push(field::forbidden(&Path::new("spec"), "only cpu and memory resources are mutable"));
            }
        }
        let restarts = new.resize_policy.iter().flatten().any(|p| p.restart_policy == "RestartContainer");
        if init && now != before && !is_sidecar(new) && restarts {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errs.push(field::forbidden(&at, why));
        }
    }
}

/// Resources of the pod as a whole.
fn validate_whole(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("resources");
    match (new.resources.as_ref(), old.resources.as_ref()) {
        (None, Some(_)) => errs.push(field::forbidden(&at, "pod-level resources cannot be removed")),
        (new, old) => {
            validate_none_removed(new, old, "pod-level resource", &at, errs);
            if !same_but_resizable(new, old) {
                errs.push(field::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
            }
        }
    }
}

fn validate_none_removed(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    what: &str,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let removed = |read: fn(&ResourceRequirements) -> Option<&Amounts>| {
        let (new, old) = (new.and_then(read), old.and_then(read));
        old.into_iter().flatten().any(|(name, _)| new.is_none_or(|n| !n.contains_key(name)))
    };
    if removed(|r| r.requests.as_ref()) {
        errs.push(field::forbidden(&path.child("requests"), format!("{what} requests cannot be removed")));
    }
    if removed(|r| r.limits.as_ref()) {
        errs.push(field::forbidden(&path.child("limits"), format!("{what} limits cannot be removed")));
    }
}

fn same_but_resizable(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>) -> bool {
    let rest = |list: Option<&Amounts>| -> BTreeMap<String, Quantity> {
        let others = list.into_iter().flatten().filter(|(name, _)| !RESIZABLE.contains(&name.as_str()));
        others.map(|(name, q)| (name.clone(), Quantity::of(q))).collect()
    };
    let parts = |r: Option<&ResourceRequirements>| {
        let claims = r.and_then(|r| r.claims.clone()).unwrap_or_default();
        (rest(r.and_then(|r| r.requests.as_ref())), rest(r.and_then(|r| r.limits.as_ref())), claims)
    };
    parts(new) == parts(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: &Value) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "prod"},
            "spec": {"containers": containers, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"},
        }))
        .unwrap();
        super::super::defaults::default_pod(&mut pod);
        let class = qos_class(pod.spec.as_ref().unwrap()).as_str().to_owned();
        pod.status.get_or_insert_default().qos_class = Some(class);
        pod
    }

    fn one(requests: &Value, limits: &Value) -> Value {
        json!([{"name": "a", "image": "i", "resources": {"requests": requests, "limits": limits}}])
    }

    #[track_caller]
    fn check(new: &Value, expected: &[&str]) {
        let old = pod(&one(&json!({"cpu": "20m", "memory": "20Mi"}), &json!({"cpu": "30m", "memory": "30Mi"})));
        let mut new = pod(new);
        new.status.clone_from(&old.status);
        let got: Vec<String> = validate_resize(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn only_cpu_and_memory_may_change_and_the_class_stays() {
        let limits = &json!({"cpu": "30m", "memory": "30Mi"});
        check(&one(&json!({"cpu": "25m", "memory": "10Mi"}), &json!({"cpu": "50m", "memory": "40Mi"})), &[]);
        check(
            &one(&json!({"cpu": "30m", "memory": "30Mi"}), limits),
            &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
        );
        check(
            &one(&json!({"cpu": "20m", "memory": "20Mi"}), &json!({"memory": "30Mi"})),
            &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
        );
        check(
            &one(&json!({"cpu": "20m", "memory": "20Mi", "ephemeral-storage": "1Gi"}), limits),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        let renamed = json!([{"name": "b", "image": "i", "resources": {"requests": {"cpu": "20m"}, "limits": limits}}]);
        check(&renamed, &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]);
        check(
            &json!([one(&json!({}), limits)[0], {"name": "b", "image": "i"}]),
            &["spec.containers: Forbidden: containers may not be added or removed on resize"],
        );
    }

    #[test]
    fn the_node_must_tell_what_its_containers_have() {
        let mut old = pod(&one(&json!({"cpu": "20m"}), &json!({})));
        let running = json!([{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
        old.status.get_or_insert_default().container_statuses = serde_json::from_value(running).unwrap();
        let got: Vec<String> = validate_resize(&old, &old).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["spec: Forbidden: Pod running on node without support for resize"]);
    }
}
