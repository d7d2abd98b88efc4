//! What upstream fills into a Pod, and into the pod template of any other kind.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, Pod, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

use crate::quantity::{self, Quantity};

const FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

fn or(text: &mut Option<String>, value: &str) {
    if text.as_deref().unwrap_or("").is_empty() {
        *text = Some(value.to_owned());
    }
}

fn or_number(number: &mut Option<i32>, value: i32) {
    if number.unwrap_or(0) == 0 {
        *number = Some(value);
    }
}

/// Amounts are kept in thousandths at the finest, and in canonical form.
pub(crate) fn default_amounts(amounts: Option<&mut BTreeMap<String, Wire>>) {
    for wire in amounts.into_iter().flat_map(BTreeMap::values_mut) {
        if let Ok(amount) = wire.0.parse::<Quantity>() {
            wire.0 = amount.rounded_to_milli().to_string();
        }
    }
}

/// Defaults of a Pod proper; a template gets fewer of them, so that its owner does not change.
pub(super) fn default_pod(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    default_pod_spec(spec);
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    let host_network = spec.host_network == Some(true);
    for container in all {
        requests_from_limits(container);
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            or_number(&mut port.host_port, port.container_port);
        }
    }
    if spec.enable_service_links.is_none() {
        spec.enable_service_links = Some(true);
    }
    default_pod_level_resources(spec);
}

fn requests_from_limits(container: &mut Container) {
    let Some(resources) = container.resources.as_mut() else { return };
    let Some(limits) = resources.limits.as_ref() else { return };
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    for (name, amount) in limits {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

/// Requests of the whole pod follow its limits, when it has any.
fn default_pod_level_resources(spec: &mut PodSpec) {
    let mut totals: BTreeMap<String, Quantity> = BTreeMap::new();
    let Some(limits) = spec.resources.as_ref().and_then(|r| r.limits.clone()).filter(|l| !l.is_empty()) else { return };
    for container in &spec.containers {
        for (name, amount) in container.resources.iter().flat_map(|r| r.requests.iter().flatten()) {
            let total = totals.entry(name.clone()).or_insert(Quantity::ZERO);
            *total = total.plus(Quantity::of(amount));
        }
    }
    let Some(resources) = spec.resources.as_mut() else { return };
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    for (name, total) in totals.iter().filter(|(name, _)| ["cpu", "memory"].contains(&name.as_str())) {
        requests.entry(name.clone()).or_insert_with(|| total.to_wire());
    }
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    if let Some(spec) = template.spec.as_mut() {
        default_pod_spec(spec);
    }
}

pub(super) fn default_pod_spec(spec: &mut PodSpec) {
    or(&mut spec.dns_policy, "ClusterFirst");
    or(&mut spec.restart_policy, "Always");
    or(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The older name of the field mirrors the newer one.
    if spec.service_account_name.as_deref().unwrap_or("").is_empty() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        default_container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral_container(container);
    }
    if let Some(resources) = spec.resources.as_mut() {
        default_resources(resources);
    }
    default_amounts(spec.overhead.as_mut());
}

/// The policy that an image reference implies: `latest` may change, any other tag should not.
pub(crate) fn pull_policy_of(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Containers and ephemeral ones have these fields by name alone in common. An ephemeral container may
/// not have all of them; they are filled in all the same, so that a refusal names the field and no other.
macro_rules! default_container_fields {
    ($container:expr) => {{
        let container = $container;
        or(&mut container.image_pull_policy, pull_policy_of(container.image.as_deref().unwrap_or("")));
        or(&mut container.termination_message_path, "/dev/termination-log");
        or(&mut container.termination_message_policy, "File");
        default_ports(container.ports.as_deref_mut().unwrap_or_default());
        default_resources(container.resources.get_or_insert_default());
        default_env(container.env.as_deref_mut().unwrap_or_default());
        let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
        probes.into_iter().flatten().for_each(default_probe);
        default_lifecycle(container.lifecycle.as_mut());
    }};
}

fn default_container(container: &mut Container) {
    default_container_fields!(container);
}

fn default_ephemeral_container(container: &mut EphemeralContainer) {
    default_container_fields!(container);
}

fn default_ports(ports: &mut [ContainerPort]) {
    for port in ports {
        or(&mut port.protocol, "TCP");
    }
}

fn default_resources(resources: &mut ResourceRequirements) {
    default_amounts(resources.limits.as_mut());
    default_amounts(resources.requests.as_mut());
}

fn default_env(env: &mut [EnvVar]) {
    for source in env.iter_mut().filter_map(|e| e.value_from.as_mut()) {
        if let Some(reference) = source.field_ref.as_mut() {
            default_field_ref(reference);
        }
        if let Some(divisor) = source.resource_field_ref.as_mut() {
            default_divisor(&mut divisor.divisor);
        }
        if let Some(key) = source.file_key_ref.as_mut() {
            key.optional.get_or_insert(false);
        }
    }
}

fn default_lifecycle(lifecycle: Option<&mut Lifecycle>) {
    let hooks = lifecycle.into_iter().flat_map(|l| [&mut l.post_start, &mut l.pre_stop]);
    hooks.flatten().for_each(default_handler);
}

fn default_field_ref(reference: &mut ObjectFieldSelector) {
    or(&mut reference.api_version, "v1");
}

fn default_divisor(divisor: &mut Option<Wire>) {
    let wire = divisor.get_or_insert_with(|| Wire("0".to_owned()));
    // Text that is no quantity was refused when the object was decoded.
    let _ = quantity::canonicalize(wire);
}

fn default_probe(probe: &mut Probe) {
    or_number(&mut probe.timeout_seconds, 1);
    or_number(&mut probe.period_seconds, 10);
    or_number(&mut probe.success_threshold, 1);
    or_number(&mut probe.failure_threshold, 3);
    if let Some(http) = probe.http_get.as_mut() {
        default_http(http);
    }
    if let Some(grpc) = probe.grpc.as_mut() {
        grpc.service.get_or_insert_default();
    }
}

fn default_handler(handler: &mut LifecycleHandler) {
    if let Some(http) = handler.http_get.as_mut() {
        default_http(http);
    }
}

fn default_http(http: &mut HTTPGetAction) {
    or(&mut http.path, "/");
    or(&mut http.scheme, "HTTP");
}

fn default_volume(volume: &mut Volume) {
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare {
        volume.empty_dir = Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default());
    }
    if let Some(secret) = volume.secret.as_mut() {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(map) = volume.config_map.as_mut() {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = volume.downward_api.as_mut() {
        downward.default_mode.get_or_insert(FILE_MODE);
        default_downward_files(downward.items.as_deref_mut().unwrap_or_default());
    }
    if let Some(projected) = volume.projected.as_mut() {
        default_projected(projected);
    }
    if let Some(path) = volume.host_path.as_mut() {
        path.type_.get_or_insert_default();
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|e| e.size_limit.as_mut()) {
        // Text that is no quantity was refused when the object was decoded.
        let _ = quantity::canonicalize(limit);
    }
    if let Some(image) = volume.image.as_mut() {
        or(&mut image.pull_policy, pull_policy_of(image.reference.as_deref().unwrap_or("")));
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        or(&mut template.spec.volume_mode, "Filesystem");
    }
    default_remote_volume(volume);
}

fn default_remote_volume(volume: &mut Volume) {
    if let Some(iscsi) = volume.iscsi.as_mut() {
        or(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = volume.rbd.as_mut() {
        or(&mut rbd.pool, "rbd");
        or(&mut rbd.user, "admin");
        or(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = volume.azure_disk.as_mut() {
        or(&mut disk.caching_mode, "ReadWrite");
        or(&mut disk.kind, "Shared");
        or(&mut disk.fs_type, "ext4");
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = volume.scale_io.as_mut() {
        or(&mut scale.storage_mode, "ThinProvisioned");
        or(&mut scale.fs_type, "xfs");
    }
}

fn default_projected(projected: &mut ProjectedVolumeSource) {
    projected.default_mode.get_or_insert(FILE_MODE);
    for source in projected.sources.iter_mut().flatten() {
        if let Some(token) = source.service_account_token.as_mut() {
            token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
        }
        if let Some(downward) = source.downward_api.as_mut() {
            default_downward_files(downward.items.as_deref_mut().unwrap_or_default());
        }
    }
}

fn default_downward_files(files: &mut [k8s_openapi::api::core::v1::DownwardAPIVolumeFile]) {
    for file in files {
        if let Some(reference) = file.field_ref.as_mut() {
            default_field_ref(reference);
        }
        if let Some(resource) = file.resource_field_ref.as_mut() {
            default_divisor(&mut resource.divisor);
        }
    }
}
