//! Containers, init containers and ephemeral containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec, Volume,
};

use super::validate_env::{validate_env, validate_env_from};
use super::validate_mounts::{validate_volume_devices, validate_volume_mounts};
use super::validate_probes::validate_hooks_and_probes;
use super::validate_resources::validate_container_resources;
use super::validate_security::validate_security_context;
use crate::field::{self, ErrorList, Path};
use crate::meta::format;

pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const RESTART_RULES_MAX: usize = 20;

/// What the containers of one pod are judged against.
pub(super) struct Context<'a> {
    pub(super) spec: &'a PodSpec,
    pub(super) volumes: BTreeMap<&'a str, &'a Volume>,
    /// Names in `spec.resourceClaims`.
    pub(super) claims: BTreeSet<&'a str>,
}

impl Context<'_> {
    pub(super) fn host_users(&self) -> bool {
        self.spec.host_users != Some(false)
    }
}

/// All three lists, in upstream's order.
pub(super) fn validate_all_containers(context: &Context<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    validate_containers(context, &path.child("containers"), errs);
    validate_init_containers(context, &path.child("initContainers"), errs);
    let ephemeral = context.spec.ephemeral_containers.as_deref().unwrap_or_default();
    validate_ephemeral_containers(ephemeral, context, &path.child("ephemeralContainers"), errs);
}

fn validate_containers(context: &Context<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    let containers = &context.spec.containers;
    if containers.is_empty() {
        errs.push(field::required(path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, ctr) in containers.iter().enumerate() {
        if errs.is_full() {
            return;
        }
        let at = path.index(i);
        validate_any(ctr, context, &at, errs);
        if !names.insert(ctr.name.as_str()) {
            errs.push(field::duplicate(&at.child("name"), &ctr.name));
        }
        validate_hooks_and_probes(ctr, context.spec, &at, errs);
        validate_restart_rules(ctr, &at, errs);
    }
    validate_unique_host_ports(containers, path, errs);
}

fn validate_init_containers(context: &Context<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    let mut names: BTreeSet<&str> = context.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, ctr) in context.spec.init_containers.iter().flatten().enumerate() {
        if errs.is_full() {
            return;
        }
        let at = path.index(i);
        validate_any(ctr, context, &at, errs);
        validate_restart_rules(ctr, &at, errs);
        if !ctr.name.is_empty() && !names.insert(&ctr.name) {
            errs.push(field::duplicate(&at.child("name"), &ctr.name));
        }
        validate_unique_host_ports(std::slice::from_ref(ctr), path, errs);
        if is_sidecar(ctr) {
            validate_hooks_and_probes(ctr, context.spec, &at, errs);
        } else {
            let set = [
                ("lifecycle", ctr.lifecycle.is_some()),
                ("livenessProbe", ctr.liveness_probe.is_some()),
                ("readinessProbe", ctr.readiness_probe.is_some()),
                ("startupProbe", ctr.startup_probe.is_some()),
            ];
            for (name, _) in set.into_iter().filter(|(_, set)| *set) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errs.push(field::forbidden(&at.child(name), why));
            }
        }
    }
}

/// An init container that keeps running beside the others.
pub(crate) fn is_sidecar(ctr: &Container) -> bool {
    ctr.restart_policy.as_deref() == Some("Always")
}

fn validate_restart_rules(ctr: &Container, path: &Path<'_>, errs: &mut ErrorList) {
    let rules = ctr.restart_policy_rules.as_deref().unwrap_or_default();
    let at = path.child("restartPolicy");
    match ctr.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => errs.push(field::required(&at, "must specify restartPolicy when restart rules are used")),
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => errs.push(field::not_supported(&at, other, &["Always", "Never", "OnFailure"])),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errs.push(field::too_many(&at, rules.len(), RESTART_RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_restart_rule(rule, &at.index(i), errs);
    }
}

fn validate_restart_rule(rule: &ContainerRestartRule, path: &Path<'_>, errs: &mut ErrorList) {
    match rule.action.as_str() {
        "" => errs.push(field::required(&path.child("action"), "")),
        "Restart" | "RestartAllContainers" => {}
        other => errs.push(field::not_supported(&path.child("action"), other, &["Restart", "RestartAllContainers"])),
    }
    let at = path.child("exitCodes");
    let Some(codes) = rule.exit_codes.as_ref() else {
        errs.push(field::required(&at, "must be specified"));
        return;
    };
    match codes.operator.as_str() {
        "" => errs.push(field::required(&at.child("operator"), "")),
        "In" | "NotIn" => {}
        other => errs.push(field::not_supported(&at.child("operator"), other, &["In", "NotIn"])),
    }
    match codes.values.as_deref().unwrap_or_default() {
        [] => errs.push(field::required(&at.child("values"), "must specify at least 1 value")),
        values if values.len() > 255 => errs.push(field::too_many(&at.child("values"), values.len(), 255)),
        _ => {}
    }
}

/// What holds for a container of any list.
fn validate_any(ctr: &Container, context: &Context<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("name");
    if ctr.name.is_empty() {
        errs.push(field::required(&at, ""));
    } else {
        field::invalid_each(&at, &ctr.name, format::dns1123_label(&ctr.name), errs);
    }
    if ctr.image.as_deref().unwrap_or("").is_empty() {
        errs.push(field::required(&path.child("image"), ""));
    }
    let at = path.child("terminationMessagePolicy");
    match ctr.termination_message_policy.as_deref().unwrap_or("") {
        "File" | "FallbackToLogsOnError" => {}
        "" => errs.push(field::required(&at, "")),
        other => errs.push(field::not_supported(&at, other, &["File", "FallbackToLogsOnError"])),
    }
    validate_ports(ctr.ports.as_deref().unwrap_or_default(), &path.child("ports"), errs);
    validate_env(ctr.env.as_deref().unwrap_or_default(), &path.child("env"), errs);
    validate_env_from(ctr.env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), errs);
    validate_volume_mounts(ctr, &context.volumes, &path.child("volumeMounts"), errs);
    validate_volume_devices(ctr, &context.volumes, &path.child("volumeDevices"), errs);
    let at = path.child("imagePullPolicy");
    match ctr.image_pull_policy.as_deref().unwrap_or("") {
        "" => errs.push(field::required(&at, "")),
        policy if PULL_POLICIES.contains(&policy) => {}
        other => errs.push(field::not_supported(&at, other, PULL_POLICIES)),
    }
    if let Some(resources) = ctr.resources.as_ref() {
        validate_container_resources(resources, &context.claims, &path.child("resources"), errs);
    }
    let never = context.spec.restart_policy.as_deref() == Some("Never");
    validate_resize_policy(ctr.resize_policy.as_deref().unwrap_or_default(), never, &path.child("resizePolicy"), errs);
    if let Some(security) = ctr.security_context.as_ref() {
        validate_security_context(security, context.host_users(), &path.child("securityContext"), errs);
    }
}

fn validate_ports(ports: &[ContainerPort], path: &Path<'_>, errs: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let wrong = format::port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                errs.push(field::duplicate(&at.child("name"), name));
            }
            field::invalid_each(&at.child("name"), name, wrong, errs);
        }
        let number = port.container_port;
        if number == 0 {
            errs.push(field::required(&at.child("containerPort"), ""));
        } else {
            field::invalid_each(&at.child("containerPort"), &number, format::port_number(i64::from(number)), errs);
        }
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            field::invalid_each(&at.child("hostPort"), &number, format::port_number(i64::from(number)), errs);
        }
        validate_protocol(port.protocol.as_deref(), &at.child("protocol"), errs);
    }
}

pub(crate) fn validate_protocol(protocol: Option<&str>, path: &Path<'_>, errs: &mut ErrorList) {
    match protocol.unwrap_or("") {
        "" => errs.push(field::required(path, "")),
        known if PROTOCOLS.contains(&known) => {}
        other => errs.push(field::not_supported(path, other, PROTOCOLS)),
    }
}

fn validate_unique_host_ports(containers: &[Container], path: &Path<'_>, errs: &mut ErrorList) {
    let mut taken = BTreeSet::new();
    for (i, ctr) in containers.iter().enumerate() {
        let at = path.index(i);
        let ports_at = at.child("ports");
        for (j, port) in ctr.ports.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let (protocol, ip) = (port.protocol.as_deref().unwrap_or(""), port.host_ip.as_deref().unwrap_or(""));
            let key = format!("{protocol}/{ip}/{number}");
            if taken.contains(&key) {
                errs.push(field::duplicate(&ports_at.index(j).child("hostPort"), &key));
            }
            taken.insert(key);
        }
    }
}

fn validate_resize_policy(policies: &[ContainerResizePolicy], never: bool, path: &Path<'_>, errs: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        if !seen.insert(&policy.resource_name) {
            errs.push(field::duplicate(&path.index(i), &policy.resource_name));
        }
        match policy.resource_name.as_str() {
            "cpu" | "memory" => {}
            "" => errs.push(field::required(path, "")),
            other => errs.push(field::not_supported(path, other, &["cpu", "memory"])),
        }
        match policy.restart_policy.as_str() {
            "NotRequired" | "RestartContainer" => {}
            "" => errs.push(field::required(path, "")),
            other => errs.push(field::not_supported(path, other, &["NotRequired", "RestartContainer"])),
        }
        if never && policy.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errs.push(field::invalid(path, &policy.restart_policy, why));
        }
    }
}

/// The part of an ephemeral container that it shares with the others.
pub(crate) fn as_container(ec: &EphemeralContainer) -> Container {
    Container {
        name: ec.name.clone(),
        image: ec.image.clone(),
        image_pull_policy: ec.image_pull_policy.clone(),
        env: ec.env.clone(),
        env_from: ec.env_from.clone(),
        ports: ec.ports.clone(),
        resources: ec.resources.clone(),
        security_context: ec.security_context.clone(),
        termination_message_policy: ec.termination_message_policy.clone(),
        volume_mounts: ec.volume_mounts.clone(),
        volume_devices: ec.volume_devices.clone(),
        ..Container::default()
    }
}

fn validate_ephemeral_containers(
    list: &[EphemeralContainer],
    context: &Context<'_>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let others = context.spec.containers.iter().chain(context.spec.init_containers.iter().flatten());
    let others: BTreeSet<&str> = others.map(|c| c.name.as_str()).collect();
    let mut names = others.clone();
    for (i, ec) in list.iter().enumerate() {
        if errs.is_full() {
            return;
        }
        let at = path.index(i);
        let ctr = as_container(ec);
        validate_any(&ctr, context, &at, errs);
        validate_image_trimmed(ec.image.as_deref(), &at.child("image"), errs);
        if !names.insert(&ec.name) {
            errs.push(field::duplicate(&at.child("name"), &ec.name));
        }
        if let Some(target) = ec.target_container_name.as_deref().filter(|t| !t.is_empty() && !others.contains(t)) {
            errs.push(field::not_found(&at.child("targetContainerName"), target));
        }
        let resources = ec.resources.as_ref().is_some_and(|r| r.limits.is_some() || r.requests.is_some());
        let refused = [
            ("ports", ec.ports.as_ref().is_some_and(|p| !p.is_empty())),
            ("resources", resources),
            ("livenessProbe", ec.liveness_probe.is_some()),
            ("readinessProbe", ec.readiness_probe.is_some()),
            ("startupProbe", ec.startup_probe.is_some()),
            ("lifecycle", ec.lifecycle.is_some()),
            ("resizePolicy", ec.resize_policy.as_ref().is_some_and(|p| !p.is_empty())),
            ("restartPolicy", ec.restart_policy.is_some()),
        ];
        for (name, _) in refused.into_iter().filter(|(_, set)| *set) {
            errs.push(field::forbidden(&at.child(name), "cannot be set for an Ephemeral Container"));
        }
        let mounts_at = at.child("volumeMounts");
        for (j, mount) in ec.volume_mounts.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let mount_at = mounts_at.index(j);
            for (name, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if value.as_deref().is_some_and(|v| !v.is_empty()) {
                    errs.push(field::forbidden(&mount_at.child(name), "cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

/// Templates may carry a padded image for historical reasons, pods may not.
pub(super) fn validate_image_trimmed(image: Option<&str>, path: &Path<'_>, errs: &mut ErrorList) {
    let image = image.unwrap_or("");
    if image.trim().len() != image.len() {
        errs.push(field::invalid(path, image, "must not have leading or trailing whitespace"));
    }
}
