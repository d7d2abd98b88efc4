//! What a client is warned of though it is accepted: fields and annotations that do nothing any more,
//! and settings that rarely mean what their author thinks.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

use crate::core::persistent_volume_claim::claim_warnings;
use crate::field::Path;
use crate::quantity::Quantity;

const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("scheduler.alpha.kubernetes.io/tolerations", "non-functional in v1.19+; use the \"tolerations\" field instead"),
    ("scheduler.alpha.kubernetes.io/affinity", "non-functional in v1.19+; use the \"affinity\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const DEPRECATED_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Warnings about a pod spec that stands at `prefix` (empty for a pod, `template` for a template).
pub(crate) fn pod_warnings(
    spec: &PodSpec,
    annotations: Option<&BTreeMap<String, String>>,
    prefix: &str,
) -> Vec<String> {
    let mut out = Vec::new();
    let at = |path: &str| if prefix.is_empty() { path.to_owned() } else { format!("{prefix}.{path}") };
    for (old, new) in DEPRECATED_NODE_LABELS {
        if spec.node_selector.as_ref().is_some_and(|s| s.contains_key(*old)) {
            let path = at(&format!("spec.nodeSelector[{old}]"));
            out.push(format!(
                "{path}: deprecated since v1.{}; use \"{new}\" instead",
                if old.contains("arch") || old.contains("/os") { 14 } else { 17 }
            ));
        }
    }
    annotation_warnings(spec, annotations, &at, &mut out);
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        volume_warnings(volume, &at(&format!("spec.volumes[{i}]")), &mut out);
    }
    repeated("imagePullSecrets", spec, &at, &mut out);
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let path = at("spec.terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for (list, containers) in [
        ("containers", spec.containers.as_slice()),
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
    ] {
        for (i, container) in containers.iter().enumerate() {
            container_warnings(container, &at(&format!("spec.{list}[{i}]")), &mut out);
        }
    }
    host_port_warnings(spec, &at, &mut out);
    out
}

fn annotation_warnings(
    spec: &PodSpec,
    annotations: Option<&BTreeMap<String, String>>,
    at: &impl Fn(&str) -> String,
    out: &mut Vec<String>,
) {
    let Some(annotations) = annotations else { return };
    for (key, why) in DEPRECATED_ANNOTATIONS.iter().filter(|(key, _)| annotations.contains_key(*key)) {
        out.push(format!("{}: {why}", at(&format!("metadata.annotations[{key}]"))));
    }
    let pod_profile = spec.security_context.as_ref().is_some_and(|s| s.seccomp_profile.is_some());
    if annotations.contains_key(SECCOMP_POD) && !pod_profile {
        let path = at(&format!("metadata.annotations[{SECCOMP_POD}]"));
        out.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
    }
    for key in annotations.keys() {
        let why = if key.starts_with(SECCOMP_CONTAINER) {
            "non-functional in v1.27+; use the \"seccompProfile\" field instead"
        } else if key.starts_with(APP_ARMOR) {
            "deprecated since v1.30; use the \"appArmorProfile\" field instead"
        } else {
            continue;
        };
        out.push(format!("{}: {why}", at(&format!("metadata.annotations[{key}]"))));
    }
}

fn volume_warnings(volume: &Volume, path: &str, out: &mut Vec<String>) {
    let rows = [
        (volume.git_repo.is_some(), "gitRepo: deprecated in v1.11, and disabled by default in v1.33+"),
        (
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
        ),
        (volume.scale_io.is_some(), "scaleIO: deprecated in v1.16, non-functional in v1.22+"),
        (volume.cephfs.is_some(), "cephfs: deprecated in v1.28, non-functional in v1.31+"),
        (volume.rbd.is_some(), "rbd: deprecated in v1.28, non-functional in v1.31+"),
        (volume.glusterfs.is_some(), "glusterfs: deprecated in v1.25, non-functional in v1.26+"),
        (volume.flocker.is_some(), "flocker: deprecated in v1.22, non-functional in v1.25+"),
        (volume.storageos.is_some(), "storageOS: deprecated in v1.22, non-functional in v1.25+"),
        (volume.quobyte.is_some(), "quobyte: deprecated in v1.22, non-functional in v1.25+"),
    ];
    out.extend(rows.into_iter().filter(|(set, _)| *set).map(|(_, text)| format!("{path}.{text}")));
    if let Some(claim) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
        out.extend(claim_warnings(&claim.spec, &Path::new(path).child("ephemeral.volumeClaimTemplate.spec")));
    }
}

fn repeated(name: &str, spec: &PodSpec, at: &impl Fn(&str) -> String, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let path = at(&format!("spec.{name}[{i}].name"));
        if secret.name.is_empty() {
            out.push(format!("{path}: invalid empty name \"\""));
        } else if !seen.insert(&secret.name) {
            out.push(format!("{path}: duplicate name \"{}\"", secret.name));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        if !seen.insert(&alias.ip) {
            out.push(format!("{}: duplicate ip \"{}\"", at(&format!("spec.hostAliases[{i}].ip")), alias.ip));
        }
    }
}

fn container_warnings(container: &Container, path: &str, out: &mut Vec<String>) {
    for (list, amounts) in
        container.resources.iter().flat_map(|r| [("limits", r.limits.as_ref()), ("requests", r.requests.as_ref())])
    {
        for (name, amount) in amounts.into_iter().flatten() {
            if ["memory", "ephemeral-storage"].contains(&name.as_str()) && !Quantity::of(amount).is_whole() {
                let why = format!("fractional byte value \"{}\" is invalid, must be an integer", amount.0);
                out.push(format!("{path}.resources.{list}[{name}]: {why}"));
            }
        }
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, var) in container.env.iter().flatten().enumerate() {
        if seen.contains(var.name.as_str()) {
            let why = format!("hides previous definition of \"{}\", which may be dropped when using apply", var.name);
            out.push(format!("{path}.env[{i}]: {why}"));
        }
        seen.insert(&var.name);
    }
    port_warnings(container, path, out);
}

fn port_warnings(container: &Container, path: &str, out: &mut Vec<String>) {
    let mut places = BTreeMap::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let first = *places.entry((port.container_port, &port.protocol, port.host_port, &port.host_ip)).or_insert(i);
        if first != i {
            out.push(format!("{path}.ports[{i}]: duplicate port definition with {path}.ports[{first}]"));
        }
    }
}

fn host_port_warnings(spec: &PodSpec, at: &impl Fn(&str) -> String, out: &mut Vec<String>) {
    let mut seen: BTreeMap<(i32, Option<&str>), String> = BTreeMap::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let own = container.ports.as_deref().unwrap_or_default();
        for (j, port) in own.iter().enumerate().filter(|(_, p)| p.host_port.unwrap_or(0) == 0) {
            let path = at(&format!("spec.containers[{i}].ports[{j}]"));
            let key = (port.container_port, port.protocol.as_deref());
            match seen.get(&key) {
                Some(first) if !first.starts_with(&at(&format!("spec.containers[{i}]."))) => {
                    out.push(format!("{path}: duplicate port definition with {first}"));
                }
                _ => {
                    seen.insert(key, path);
                }
            }
        }
    }
}
