//! Services. Addresses and node ports are inherited and given out elsewhere; here is what a manifest may say.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::endpoints::validate_ordinary_ip;
use super::pod::{validate_port, validate_protocol};
use super::service_addresses::{validate_address_update, validate_addresses};
use super::service_inheritance::{drop_type_dependent, kind_of, needs_health_check_port, reachable_from_outside};
use super::service_status;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::address_form::{cidr_warnings, ip_warnings};
use crate::meta::{format, validate_labels};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS: i32 = 10800;
const AFFINITY_SECONDS_MAX: i32 = 86400;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

pub(crate) struct Service;

pub(super) fn is_headless(spec: &api::ServiceSpec) -> bool {
    matches!(spec.cluster_ips.as_deref(), Some([only]) if only == "None")
}

impl Kind for Service {
    type Object = api::Service;

    fn default(&self, obj: &mut api::Service) {
        let spec = obj.spec.get_or_insert_default();
        default_affinity(spec);
        if kind_of(spec).is_empty() {
            spec.type_ = Some("ClusterIP".to_owned());
        }
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
            let unset = match port.target_port.as_ref() {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::String(name)) => name.is_empty(),
                Some(IntOrString::Int(_)) => false,
            };
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if reachable_from_outside(spec) && spec.external_traffic_policy.as_deref().unwrap_or("").is_empty() {
            spec.external_traffic_policy = Some("Cluster".to_owned());
        }
        if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind_of(spec)) {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        }
        if kind_of(spec) == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            if let Some(status) = obj.status.as_mut() {
                service_status::default_modes(status);
            }
        }
    }

    fn prepare_create(&self, obj: &mut api::Service) {
        obj.status = Some(api::ServiceStatus {
            load_balancer: Some(api::LoadBalancerStatus::default()),
            ..api::ServiceStatus::default()
        });
    }

    fn prepare_update(&self, new: &mut api::Service, old: &api::Service) {
        drop_type_dependent(new, old);
    }

    fn validate(&self, obj: &api::Service, errs: &mut ErrorList) {
        let empty = api::ServiceSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        validate_type(spec, &path, errs);
        validate_ports(spec, &path.child("ports"), errs);
        validate_labels(spec.selector.as_ref(), &path.child("selector"), errs);
        validate_affinity(spec, &path, errs);
        validate_addresses(spec, &path, errs);
        let at = path.child("externalIPs");
        for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let wrong = format::ip_address(ip);
            if wrong.is_empty() {
                validate_ordinary_ip(ip, &at.index(i), errs);
            }
            field::invalid_each(&at.index(i), ip, wrong, errs);
        }
        super::pod::validate_choice(spec.type_.as_deref(), TYPES, &path.child("type"), errs);
        validate_repeated_ports(spec, &path.child("ports"), errs);
        validate_load_balancer(spec, &path, errs);
        validate_traffic(spec, &path, errs);
    }

    fn validate_status_update(&self, new: &api::Service, _old: &api::Service, errs: &mut ErrorList) {
        let balanced = new.spec.as_ref().is_some_and(|spec| kind_of(spec) == "LoadBalancer");
        if let Some(status) = &new.status {
            service_status::validate(status, balanced, errs);
        }
    }

    fn validate_update(&self, new: &api::Service, old: &api::Service, errs: &mut ErrorList) {
        if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
            validate_address_update(new, old, errs);
            let both = kind_of(new) == "LoadBalancer" && kind_of(old) == "LoadBalancer";
            if both && new.load_balancer_class != old.load_balancer_class {
                let at = Path::new("spec.loadBalancerClass");
                errs.push(field::invalid(&at, &new.load_balancer_class, "may not change once set"));
            }
            if needs_health_check_port(new)
                && needs_health_check_port(old)
                && new.health_check_node_port != old.health_check_node_port
            {
                errs.push(field::forbidden(&Path::new("spec.healthCheckNodePort"), "field is immutable"));
            }
        }
        self.validate(new, errs);
    }

    fn warnings(&self, obj: &api::Service) -> Vec<String> {
        let Some(spec) = obj.spec.as_ref() else { return Vec::new() };
        let mut out = Vec::new();
        if obj.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(TOPOLOGY_HINTS)) {
            out.push(format!(
                "annotation {TOPOLOGY_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
            ));
        }
        out.extend(address_warnings(spec));
        let external_ips = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        let by_name = kind_of(spec) == "ExternalName";
        if is_headless(spec) {
            let ignored = [
                ("loadBalancerIP", spec.load_balancer_ip.as_deref().is_some_and(|ip| !ip.is_empty())),
                ("externalIPs", external_ips),
                ("SessionAffinity", spec.session_affinity.as_deref().is_some_and(|a| a != "None")),
            ];
            let ignored = ignored.into_iter().filter(|(_, set)| *set);
            out.extend(ignored.map(|(name, _)| format!("spec.{name} is ignored for headless services")));
        } else if external_ips && by_name {
            out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
        } else if external_ips {
            out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
        }
        if !by_name && spec.external_name.as_deref().is_some_and(|name| !name.is_empty()) {
            out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
        }
        if spec.traffic_distribution.as_deref() == Some("PreferClose") {
            out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
        }
        out
    }
}

fn address_warnings(spec: &api::ServiceSpec) -> Vec<String> {
    let path = Path::new("spec");
    let mut out = Vec::new();
    let mut each = |name: &str, values: &Option<Vec<String>>, judge: fn(&Path<'_>, &str) -> Vec<String>| {
        for (i, value) in values.iter().flatten().enumerate() {
            out.extend(judge(&path.child(name).index(i), value));
        }
    };
    each("clusterIPs", &spec.cluster_ips, ip_warnings);
    each("externalIPs", &spec.external_ips, ip_warnings);
    each("loadBalancerSourceRanges", &spec.load_balancer_source_ranges, cidr_warnings);
    out.extend(spec.load_balancer_ip.iter().flat_map(|ip| ip_warnings(&path.child("loadBalancerIP"), ip)));
    out
}

fn default_affinity(spec: &mut api::ServiceSpec) {
    if spec.session_affinity.as_deref().unwrap_or("").is_empty() {
        spec.session_affinity = Some("None".to_owned());
    }
    if spec.session_affinity.as_deref() == Some("None") {
        spec.session_affinity_config = None;
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_default();
        config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(AFFINITY_SECONDS);
    }
}

fn validate_type(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let no_ports = spec.ports.as_deref().unwrap_or_default().is_empty();
    if no_ports && !is_headless(spec) && kind_of(spec) != "ExternalName" {
        errs.push(field::required(&path.child("ports"), ""));
    }
    match kind_of(spec) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let at = path.child("clusterIPs");
            errs.push(field::invalid(&at.index(0), "None", format!("may not be set to 'None' for {kind} services")));
        }
        "ExternalName" => {
            let set = [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|f| !f.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (name, _) in set.into_iter().filter(|(_, set)| *set) {
                errs.push(field::forbidden(&path.child(name), "may not be set for ExternalName services"));
            }
            let name = spec.external_name.as_deref().unwrap_or("");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errs.push(field::required(&path.child("externalName"), "")),
                name => {
                    field::invalid_each(&path.child("externalName"), name, format::dns1123_subdomain(name), errs);
                }
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        match port.name.as_deref().unwrap_or("") {
            "" if ports.len() > 1 => errs.push(field::required(&at.child("name"), "")),
            "" => {}
            name => {
                field::invalid_each(&at.child("name"), name, format::dns1123_label(name), errs);
                if !names.insert(name) {
                    errs.push(field::duplicate(&at.child("name"), name));
                }
            }
        }
        field::invalid_each(&at.child("port"), &port.port, format::port_number(i64::from(port.port)), errs);
        validate_protocol(port.protocol.as_deref(), &at.child("protocol"), errs);
        if let Some(target) = port.target_port.as_ref() {
            validate_port(target, &at.child("targetPort"), errs);
        }
        if let Some(name) = port.app_protocol.as_deref() {
            field::invalid_each(&at.child("appProtocol"), name, format::qualified_name(name), errs);
        }
    }
}

fn validate_affinity(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("sessionAffinityConfig");
    match spec.session_affinity.as_deref().unwrap_or("") {
        "" => errs.push(field::required(&path.child("sessionAffinity"), "")),
        "None" => {
            if spec.session_affinity_config.is_some() {
                errs.push(field::forbidden(&at, "must not be set when session affinity is None"));
            }
        }
        "ClientIP" => {
            let why = "when session affinity type is ClientIP";
            let client = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let timeout_at = at.child("clientIP.timeoutSeconds");
            match (spec.session_affinity_config.as_ref(), client.map(|c| c.timeout_seconds)) {
                (None, _) => errs.push(field::required(&at, why)),
                (Some(_), None) => errs.push(field::required(&at.child("clientIP"), why)),
                (Some(_), Some(None)) => errs.push(field::required(&timeout_at, why)),
                (Some(_), Some(Some(seconds))) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errs.push(field::invalid(&timeout_at, &seconds, why));
                }
                _ => {}
            }
        }
        other => errs.push(field::not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"])),
    }
}

fn validate_repeated_ports(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let cluster = kind_of(spec) == "ClusterIP";
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| p.node_port.unwrap_or(0) != 0) {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if cluster {
            errs.push(field::forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
        if !seen.insert((port.node_port, &port.protocol)) {
            errs.push(field::duplicate(&at.child("nodePort"), &port.node_port));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        if !seen.insert((port.port, &port.protocol)) {
            let key = api::ServicePort { port: port.port, protocol: port.protocol.clone(), ..Default::default() };
            errs.push(field::duplicate(&path.index(i), &key));
        }
    }
}

fn validate_load_balancer(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balancer = kind_of(spec) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balancer {
        errs.push(field::forbidden(&at, ONLY));
    }
    for (i, range) in ranges.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        field::invalid_each(&at.index(i), range.trim(), format::cidr(range.trim()), errs);
    }
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !balancer => errs.push(field::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY)),
        None if balancer => errs.push(field::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    if let Some(class) = spec.load_balancer_class.as_deref() {
        let at = path.child("loadBalancerClass");
        if balancer {
            field::invalid_each(&at, class, format::qualified_name(class), errs);
        } else {
            errs.push(field::forbidden(&at, ONLY));
        }
    }
}

fn validate_traffic(spec: &api::ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("externalTrafficPolicy");
    let policy = spec.external_traffic_policy.as_deref().unwrap_or("");
    if reachable_from_outside(spec) {
        super::pod::validate_choice(Some(policy), &["Cluster", "Local"], &at, errs);
    } else if !policy.is_empty() {
        errs.push(field::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let at = path.child("healthCheckNodePort");
    let port = spec.health_check_node_port.unwrap_or(0);
    if !needs_health_check_port(spec) {
        if port != 0 {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errs.push(field::invalid(&at, &port, why));
        }
    } else if port != 0 {
        // Zero means that the allocator has not been asked yet.
        field::invalid_each(&at, &port, format::port_number(i64::from(port)), errs);
    }
    let at = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind_of(spec)) => {
            errs.push(field::required(&at, ""));
        }
        Some(other) if !["Cluster", "Local"].contains(&other) => {
            errs.push(field::not_supported(&at, other, &["Cluster", "Local"]));
        }
        _ => {}
    }
    const CLOSE: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(other) = spec.traffic_distribution.as_deref().filter(|d| !CLOSE.contains(d)) {
        errs.push(field::not_supported(&path.child("trafficDistribution"), other, CLOSE));
    }
}
