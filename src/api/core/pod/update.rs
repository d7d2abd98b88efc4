//! What may change in a pod once it exists.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, EphemeralContainer, Pod, PodSpec, Toleration,
};

use super::validate_scheduling::validate_tolerations;
use crate::difference::difference;
use crate::field::{self, ErrorList, Path};
use crate::meta::format;

const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const SECONDS_MAX: i64 = i32::MAX as i64;
const MIRROR: &str = "kubernetes.io/config.mirror";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks an ordinary update; the new pod as such was validated before.
pub(super) fn validate_pod_update(new: &Pod, old: &Pod, errs: &mut ErrorList) {
    validate_annotation_update(new, old, errs);
    let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
    let path = Path::new("spec");
    let none: &[Container] = &[];
    let (new_init, old_init) =
        (new.init_containers.as_deref().unwrap_or(none), old.init_containers.as_deref().unwrap_or(none));
    if !validate_images(&new.containers, &old.containers, &path.child("containers"), errs)
        || !validate_images(new_init, old_init, &path.child("initContainers"), errs)
        || !validate_deadline(new, old, &path.child("activeDeadlineSeconds"), errs)
    {
        return;
    }
    validate_added_tolerations(new, old, &path.child("tolerations"), errs);
    validate_removed_gates(new, old, &path.child("schedulingGates"), errs);
    if new == old {
        return;
    }
    let munged = with_changeable_of(new, old, &path, errs);
    if munged != *old {
        let why = format!("pod updates may not change fields other than {CHANGEABLE}\n{}", difference(old, &munged));
        errs.push(field::forbidden(&path, why));
    }
}

fn validate_annotation_update(new: &Pod, old: &Pod, errs: &mut ErrorList) {
    let path = Path::new("metadata.annotations");
    let (new, old) = (new.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    for (key, value) in old.into_iter().flatten() {
        if errs.is_full() {
            break;
        }
        if new.and_then(|a| a.get(key)) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errs.push(field::forbidden(&path.key(key), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR {
            errs.push(field::forbidden(&path.key(key), "may not remove or update mirror pod annotation"));
        }
    }
    for key in new.into_iter().flat_map(|a| a.keys()).filter(|key| old.is_none_or(|o| !o.contains_key(*key))) {
        if errs.is_full() {
            break;
        }
        if key.starts_with(APP_ARMOR) {
            errs.push(field::forbidden(&path.key(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            errs.push(field::forbidden(&path.key(key), "may not add mirror pod annotation"));
        }
    }
}

/// False when further comparison makes no sense.
fn validate_images(new: &[Container], old: &[Container], path: &Path<'_>, errs: &mut ErrorList) -> bool {
    if new.len() != old.len() {
        errs.push(field::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    for (i, ctr) in new.iter().enumerate() {
        if ctr.image.as_deref().unwrap_or("").is_empty() {
            errs.push(field::required(&path.index(i).child("image"), ""));
        }
    }
    true
}

fn validate_deadline(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=SECONDS_MAX).contains(&new) => {
            errs.push(field::invalid(path, &new, format::inclusive_range(0, SECONDS_MAX)));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errs.push(field::invalid(path, &new, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errs.push(field::invalid(path, &None::<i64>, why));
            true
        }
        _ => true,
    }
}

fn validate_added_tolerations(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let new = new.tolerations.as_deref().unwrap_or_default();
    let fixed = |t: &Toleration| (t.key.clone(), t.operator.clone(), t.value.clone(), t.effect.clone());
    let kept: BTreeSet<_> = new.iter().map(fixed).collect();
    if old.tolerations.iter().flatten().any(|o| !kept.contains(&fixed(o))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errs.push(field::forbidden(path, why));
        return;
    }
    validate_tolerations(new, path, errs);
}

fn validate_removed_gates(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let known: BTreeSet<&str> = old.scheduling_gates.iter().flatten().map(|g| g.name.as_str()).collect();
    let gates = new.scheduling_gates.iter().flatten().enumerate();
    for (i, gate) in gates.filter(|(_, g)| !known.contains(g.name.as_str())) {
        if errs.is_full() {
            break;
        }
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errs.push(field::forbidden(&path.index(i).child("name"), why));
    }
}

/// The new spec with what may change put back to what it was.
fn with_changeable_of(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) -> PodSpec {
    let mut munged = new.clone();
    let new_lists = munged.containers.iter_mut().chain(munged.init_containers.iter_mut().flatten());
    let old_lists = old.containers.iter().chain(old.init_containers.iter().flatten());
    for (new, old) in new_lists.zip(old_lists) {
        new.image.clone_from(&old.image);
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&old.scheduling_gates);
    munged.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0) && new.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        allow_gated(&mut munged, old, path, errs);
    }
    munged
}

/// A pod that may not be scheduled yet may be narrowed further.
fn allow_gated(munged: &mut PodSpec, old: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("nodeSelector");
    let kept = |key: &String, value: &String| munged.node_selector.as_ref().and_then(|s| s.get(key)) == Some(value);
    if !old.node_selector.iter().flatten().all(|(key, value)| kept(key, value)) {
        errs.push(field::invalid(
            &at,
            &munged.node_selector,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ));
    }
    munged.node_selector.clone_from(&old.node_selector);
    let old_node = old.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    if let Some(affinity) = munged.affinity.as_mut().filter(|_| old_node.is_none()) {
        affinity.node_affinity = None;
        if *affinity == k8s_openapi::api::core::v1::Affinity::default() && old.affinity.is_none() {
            munged.affinity = None;
        }
    }
}

/// A terminated container that must not restart stays terminated.
pub(super) fn validate_pod_status_update(new: &Pod, old: &Pod, errs: &mut ErrorList) {
    let path = Path::new("status");
    let (Some(new_status), Some(old_status)) = (new.status.as_ref(), old.status.as_ref()) else { return };
    if let (Some(new), Some(old)) = (new_status.qos_class.as_ref(), old_status.qos_class.as_ref()) {
        field::immutable(&path.child("qosClass"), new, old, errs);
    }
    let none = &PodSpec::default();
    let spec = old.spec.as_ref().unwrap_or(none);
    let rows = [
        ("containerStatuses", &new_status.container_statuses, &old_status.container_statuses),
        ("initContainerStatuses", &new_status.init_container_statuses, &old_status.init_container_statuses),
        (
            "ephemeralContainerStatuses",
            &new_status.ephemeral_container_statuses,
            &old_status.ephemeral_container_statuses,
        ),
    ];
    for (name, new, old) in rows {
        let old = old.as_deref().unwrap_or_default();
        validate_transitions(new.as_deref().unwrap_or_default(), old, spec, &path.child(name), errs);
    }
}

fn validate_transitions(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    spec: &PodSpec,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let terminated = |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    let containers: BTreeMap<&str, &Container> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| (container.name.as_str(), container))
        .collect();
    let running: BTreeSet<&str> =
        new.iter().filter(|after| terminated(after).is_none()).map(|after| after.name.as_str()).collect();
    for (i, before) in old.iter().enumerate() {
        let Some(code) = terminated(before) else { continue };
        let container = containers.get(before.name.as_str());
        if container.is_some_and(|container| may_restart(spec, container, code)) {
            continue;
        }
        if running.contains(before.name.as_str()) {
            errs.push(field::forbidden(
                &path.index(i).child("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

/// Whether a container that ended with `code` is started again: by a rule of its own, by its own
/// policy, else by its pod's. Ephemeral ones never are.
fn may_restart(spec: &PodSpec, c: &Container, code: i32) -> bool {
    let fits = |rule: &ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|on| {
            let listed = on.values.iter().flatten().any(|v| *v == code);
            if on.operator == "NotIn" { !listed } else { listed }
        })
    };
    if c.restart_policy_rules.iter().flatten().any(fits) {
        return true;
    }
    match c.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always") {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

/// Checks an update through `ephemeralcontainers`: containers may be added there and nothing else.
#[must_use]
pub fn validate_ephemeral_containers_update(new: &Pod, old: &Pod) -> ErrorList {
    let mut errs = ErrorList::new();
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        errs.push(field::forbidden(&Path::new(""), "static pods do not support ephemeral containers"));
        return errs;
    }
    super::validate_spec::validate_pod(new, &mut errs);
    let path = Path::new("spec.ephemeralContainers");
    let list = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let new = list(new);
    let by_name: BTreeMap<&str, &EphemeralContainer> = new.iter().map(|c| (c.name.as_str(), c)).collect();
    for old in list(old) {
        match by_name.get(old.name.as_str()) {
            None => {
                let why = format!("existing ephemeral containers {} may not be removed\n", field::quote(&old.name));
                errs.push(field::forbidden(&path, why));
            }
            Some(now) if **now != old => {
                let name = field::quote(&old.name);
                let why =
                    format!("existing ephemeral containers {name} may not be changed\n{}", difference(&old, *now));
                errs.push(field::forbidden(&path, why));
            }
            Some(_) => {}
        }
    }
    errs
}
