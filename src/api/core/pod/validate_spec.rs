//! The pod spec as a whole, alone or inside a template.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec, PodTemplateSpec};

use super::validate_containers::{Context, validate_all_containers, validate_image_trimmed};
use super::validate_file_keys::validate_file_keys;
use super::validate_resources::{validate_overhead, validate_pod_resources};
use super::validate_scheduling::{validate_affinity, validate_spread, validate_tolerations};
use super::validate_security::validate_pod_security_context;
use super::validate_volumes::validate_volumes;
use crate::field::{self, ErrorList, Path};
use crate::meta::format::{self, NameRule};
use crate::meta::{validate_annotations, validate_labels};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// The resolver of the C library reads no more.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const SECONDS_MAX: i64 = i32::MAX as i64;

/// The spec of an actual pod.
pub(super) fn validate_pod(pod: &Pod, errs: &mut ErrorList) {
    let path = Path::new("spec");
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    validate_pod_annotations(pod.metadata.annotations.as_ref(), spec, &Path::new("metadata.annotations"), errs);
    validate_pod_spec(spec, pod.metadata.name.as_deref(), true, &path, errs);
    if spec.service_account_name.as_deref().unwrap_or("").is_empty() {
        validate_no_tokens(spec, &path, errs);
    }
    for (name, list) in [
        ("containers", spec.containers.as_slice()),
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
    ] {
        let at = path.child(name);
        for (i, ctr) in list.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_image_trimmed(ctr.image.as_deref(), &at.index(i).child("image"), errs);
        }
    }
}

/// The spec of a pod that exists. A stop signal that was accepted once stays: who takes a finalizer off must be
/// able to.
pub(super) fn validate_changed_pod(new: &Pod, old: &Pod, errs: &mut ErrorList) {
    let known = stop_signals(old);
    if known.iter().all(Option::is_none) || known != stop_signals(new) {
        return validate_pod(new, errs);
    }
    let mut without = new.clone();
    for c in without.spec.iter_mut().flat_map(|s| s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten()))
    {
        if let Some(lifecycle) = c.lifecycle.as_mut() {
            lifecycle.stop_signal = None;
        }
    }
    validate_pod(&without, errs);
}

fn stop_signals(pod: &Pod) -> Vec<Option<&str>> {
    let containers = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    containers.map(|c| c.lifecycle.as_ref()?.stop_signal.as_deref()).collect()
}

fn validate_pod_annotations(
    annotations: Option<&std::collections::BTreeMap<String, String>>,
    spec: &PodSpec,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let Some(annotations) = annotations else { return };
    if let Some(value) = annotations.get(MIRROR).filter(|_| spec.node_name.as_deref().unwrap_or("").is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errs.push(field::invalid(&path.key(MIRROR), value, why));
    }
    if let Some(cost) = annotations.get(COST) {
        let canonical =
            cost.parse::<i32>().is_ok() && !cost.starts_with('+') && (cost == "0" || !cost.starts_with('0'));
        if !canonical {
            errs.push(field::invalid(&path.key(COST), cost, "must be a 32bit integer"));
        }
    }
}

fn validate_no_tokens(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let volumes_at = path.child("volumes");
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = volumes_at.index(i);
        let sources_at = at.child("projected.sources");
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for (j, _) in sources.enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
            let why = "must not be specified when serviceAccountName is not set";
            errs.push(field::forbidden(&sources_at.index(j).child("serviceAccountToken"), why));
        }
    }
}

/// The template of a controller; its metadata holds labels and annotations only.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let meta = template.metadata.as_ref();
    validate_labels(meta.and_then(|m| m.labels.as_ref()), &path.child("labels"), errs);
    let annotations = meta.and_then(|m| m.annotations.as_ref());
    let annotations_at = path.child("annotations");
    validate_annotations(annotations, &annotations_at, errs);
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    validate_pod_annotations(annotations, spec, &annotations_at, errs);
    validate_pod_spec(spec, None, false, &path.child("spec"), errs);
    if spec.ephemeral_containers.as_ref().is_some_and(|e| !e.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        errs.push(field::forbidden(&path.child("spec.ephemeralContainers"), why));
    }
}

fn validate_pod_spec(spec: &PodSpec, pod_name: Option<&str>, is_pod: bool, path: &Path<'_>, errs: &mut ErrorList) {
    if spec.termination_grace_period_seconds.is_none() {
        errs.push(field::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let volumes = validate_volumes(volumes, pod_name, &path.child("volumes"), errs);
    let claims = spec.resource_claims.iter().flatten().map(|c| c.name.as_str()).filter(|n| !n.is_empty()).collect();
    validate_resource_claims(spec, &path.child("resourceClaims"), errs);
    let context = Context { spec, volumes, claims };
    validate_all_containers(&context, path, errs);
    validate_file_keys(spec, path, errs);
    validate_pod_resources(spec, &path.child("resources"), errs);
    validate_host_network_ports(spec, is_pod, path, errs);
    let policy = spec.restart_policy.as_deref();
    validate_choice(policy, RESTART_POLICIES, &path.child("restartPolicy"), errs);
    validate_choice(spec.dns_policy.as_deref(), DNS_POLICIES, &path.child("dnsPolicy"), errs);
    validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errs);
    if let Some(security) = spec.security_context.as_ref() {
        validate_pod_security_context(security, spec, &path.child("securityContext"), errs);
    }
    if let Some(affinity) = spec.affinity.as_ref() {
        validate_affinity(affinity, &path.child("affinity"), errs);
    }
    validate_dns_config(spec, &path.child("dnsConfig"), errs);
    validate_gates(spec, path, errs);
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    validate_spread(constraints, &path.child("topologySpreadConstraints"), errs);
    validate_host_users(spec, path, errs);
    validate_names(spec, path, errs);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=SECONDS_MAX).contains(s)) {
        let at = path.child("activeDeadlineSeconds");
        errs.push(field::invalid(&at, &seconds, format::inclusive_range(1, SECONDS_MAX)));
    }
    validate_tolerations(spec.tolerations.as_deref().unwrap_or_default(), &path.child("tolerations"), errs);
    validate_host_aliases(spec, &path.child("hostAliases"), errs);
    validate_rest(spec, path, errs);
}

/// A value that defaulting has set, from a list.
pub(crate) fn validate_choice(value: Option<&str>, known: &[&str], path: &Path<'_>, errs: &mut ErrorList) {
    match value.unwrap_or("") {
        "" => errs.push(field::required(path, "")),
        value if known.contains(&value) => {}
        other => errs.push(field::not_supported(path, other, known)),
    }
}

fn validate_resource_claims(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let mut names = std::collections::BTreeSet::new();
    for (i, claim) in spec.resource_claims.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if claim.name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        } else if !names.insert(&claim.name) {
            errs.push(field::duplicate(&at.child("name"), &claim.name));
        } else {
            field::invalid_each(&at.child("name"), &claim.name, format::dns1123_label(&claim.name), errs);
        }
        match (claim.resource_claim_name.as_deref(), claim.resource_claim_template_name.as_deref()) {
            (Some(_), Some(_)) => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errs.push(field::invalid(&at, claim, why));
            }
            (None, None) => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errs.push(field::invalid(&at, claim, why));
            }
            (Some(name), None) => {
                field::invalid_each(&at.child("resourceClaimName"), name, format::dns1123_subdomain(name), errs);
            }
            (None, Some(name)) => {
                let at = at.child("resourceClaimTemplateName");
                field::invalid_each(&at, name, format::dns1123_subdomain(name), errs);
            }
        }
    }
}

fn validate_host_network_ports(spec: &PodSpec, is_pod: bool, path: &Path<'_>, errs: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    let containers_at = path.child("containers");
    for (i, ctr) in spec.containers.iter().enumerate() {
        let at = containers_at.index(i);
        let ports_at = at.child("ports");
        for (j, port) in ctr.ports.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let host = port.host_port.unwrap_or(0);
            // A template may leave the host port to the pods that will be made from it.
            if (is_pod || host != 0) && host != port.container_port {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errs.push(field::invalid(&ports_at.index(j).child("hostPort"), &host, why));
            }
        }
    }
}

fn validate_dns_config(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let config = spec.dns_config.as_ref();
    if spec.dns_policy.as_deref() == Some("None") {
        match config {
            None => {
                errs.push(field::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
                return;
            }
            Some(config) if config.nameservers.as_deref().unwrap_or_default().is_empty() => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errs.push(field::required(&path.child("nameservers"), why));
                return;
            }
            Some(_) => {}
        }
    }
    if let Some(config) = config {
        validate_resolver(config, path, errs);
    }
}

fn validate_resolver(config: &PodDNSConfig, path: &Path<'_>, errs: &mut ErrorList) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let servers_at = path.child("nameservers");
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errs.push(field::invalid(&servers_at, servers, why));
    }
    for (i, server) in servers.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        field::invalid_each(&servers_at.index(i), server, format::ip_address(server), errs);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let searches_at = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        errs.push(field::invalid(&searches_at, searches, why));
    }
    if searches.join(" ").len() > SEARCH_CHARS_MAX {
        let why =
            format!("must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list");
        errs.push(field::invalid(&searches_at, searches, why));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        if errs.is_full() {
            break;
        }
        let search = search.strip_suffix('.').unwrap_or(search);
        let why = format::dns1123_subdomain_with_underscore(search);
        field::invalid_each(&searches_at.index(i), search, why, errs);
    }
    let options_at = path.child("options");
    for (i, _) in
        config.options.iter().flatten().enumerate().filter(|(_, o)| o.name.as_deref().unwrap_or("").is_empty())
    {
        if errs.is_full() {
            break;
        }
        errs.push(field::required(&options_at.index(i), "must not be empty"));
    }
}

fn validate_gates(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("readinessGates");
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = at.index(i);
        let name = &gate.condition_type;
        field::invalid_each(&at.child("conditionType"), name, format::qualified_name(name), errs);
    }
    let at = path.child("schedulingGates");
    let mut seen = std::collections::BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        field::invalid_each(&at.index(i), &gate.name, format::qualified_name(&gate.name), errs);
        if !seen.insert(&gate.name) {
            errs.push(field::duplicate(&at.index(i), &gate.name));
        }
    }
}

fn validate_host_users(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    if spec.host_users != Some(false) {
        return;
    }
    for (name, set) in [("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc), ("hostNetwork", spec.host_network)] {
        if set == Some(true) {
            errs.push(field::forbidden(&path.child(name), "when `pod.Spec.HostUsers` is false"));
        }
    }
}

fn validate_names(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let subdomain = |name: &str| NameRule::Subdomain.check(name, false);
    type Check = fn(&str) -> Vec<String>;
    let rows: [(&str, Option<&String>, Check); 6] = [
        ("serviceAccountName", spec.service_account_name.as_ref(), subdomain),
        ("nodeName", spec.node_name.as_ref(), subdomain),
        ("hostname", spec.hostname.as_ref(), format::dns1123_label),
        ("subdomain", spec.subdomain.as_ref(), format::dns1123_label),
        ("priorityClassName", spec.priority_class_name.as_ref(), subdomain),
        ("hostnameOverride", spec.hostname_override.as_ref(), subdomain),
    ];
    for (name, value, check) in rows {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            field::invalid_each(&path.child(name), value, check(value), errs);
        }
    }
    if let Some(name) = spec.runtime_class_name.as_deref() {
        field::invalid_each(&path.child("runtimeClassName"), name, subdomain(name), errs);
    }
}

fn validate_host_aliases(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        field::invalid_each(&at.child("ip"), &alias.ip, format::ip_address(&alias.ip), errs);
        let names_at = at.child("hostnames");
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            field::invalid_each(&names_at.index(j), name, format::dns1123_subdomain(name), errs);
        }
    }
}

fn validate_rest(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(policy) = spec.preemption_policy.as_deref() {
        validate_choice(Some(policy), &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy"), errs);
    }
    if let Some(overhead) = spec.overhead.as_ref() {
        validate_overhead(overhead, &path.child("overhead"), errs);
    }
    if let Some(os) = spec.os.as_ref() {
        let at = path.child("os");
        match os.name.as_str() {
            "" => errs.push(field::required(&at.child("name"), "cannot be empty")),
            "linux" | "windows" => {}
            other => errs.push(field::not_supported(&at, other, &["linux", "windows"])),
        }
        let windows = spec.security_context.as_ref().is_some_and(|s| s.windows_options.is_some());
        if os.name == "linux" && windows {
            let at = path.child("securityContext.windowsOptions");
            errs.push(field::forbidden(&at, "windows options cannot be set for a linux pod"));
        }
    }
}
