//! The status of services: where their load balancers are.

use k8s_openapi::api::core::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;

const MODES: &[&str] = &["Proxy", "VIP"];

/// An address is taken for one that the traffic keeps as its destination.
pub(super) fn default_modes(status: &mut api::ServiceStatus) {
    let ingress = status.load_balancer.iter_mut().flat_map(|b| b.ingress.iter_mut().flatten());
    for entry in ingress.filter(|entry| entry.ip.as_ref().is_some_and(|ip| !ip.is_empty())) {
        entry.ip_mode.get_or_insert_with(|| "VIP".to_owned());
    }
}

pub(super) fn validate(status: &api::ServiceStatus, balanced: bool, errs: &mut ErrorList) {
    let path = Path::new("status.loadBalancer.ingress");
    let ingress = status.load_balancer.as_ref().and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    if !balanced && !ingress.is_empty() {
        errs.push(field::forbidden(&path, "may only be used when `spec.type` is \"LoadBalancer\""));
        return;
    }
    for (i, entry) in ingress.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_entry(entry, &path.index(i), errs);
    }
}

fn validate_entry(entry: &api::LoadBalancerIngress, path: &Path<'_>, errs: &mut ErrorList) {
    let ip = entry.ip.as_deref().unwrap_or("");
    if !ip.is_empty() {
        field::invalid_each(&path.child("ip"), ip, format::ip_address(ip), errs);
    }
    let mode_at = path.child("ipMode");
    match entry.ip_mode.as_deref() {
        None if !ip.is_empty() => errs.push(field::required(&mode_at, "must be specified when `ip` is set")),
        Some(_) if ip.is_empty() => errs.push(field::forbidden(&mode_at, "may not be specified when `ip` is not set")),
        Some(mode) if !MODES.contains(&mode) => errs.push(field::not_supported(&mode_at, mode, MODES)),
        Some(_) | None => {}
    }
    let host = entry.hostname.as_deref().unwrap_or("");
    if !host.is_empty() {
        let at = path.child("hostname");
        field::invalid_each(&at, host, format::dns1123_subdomain(host), errs);
        if format::ip_address(host).is_empty() {
            errs.push(field::invalid(&at, host, "must be a DNS name, not an IP address"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(ingress: &Value, balanced: bool, expected: &[&str]) {
        let mut status: api::ServiceStatus =
            serde_json::from_value(json!({"loadBalancer": {"ingress": [ingress]}})).unwrap();
        if balanced {
            default_modes(&mut status);
        }
        let mut errs = ErrorList::new();
        validate(&status, balanced, &mut errs);
        let got: Vec<_> = errs.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected, "{ingress}");
    }

    #[test]
    fn only_a_load_balancer_has_addresses_and_they_are_well_formed() {
        const AT: &str = "status.loadBalancer.ingress[0]";
        check(&json!({"ip": "203.0.113.1"}), true, &[]);
        check(&json!({"hostname": "lb.example.com"}), true, &[]);
        let foreign = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\"";
        check(&json!({"ip": "203.0.113.1"}), false, &[foreign]);
        let mode = format!("{AT}.ipMode: Unsupported value: \"X\": supported values: \"Proxy\", \"VIP\"");
        check(&json!({"ip": "203.0.113.1", "ipMode": "X"}), true, &[&mode]);
        let lonely = format!("{AT}.ipMode: Forbidden: may not be specified when `ip` is not set");
        check(&json!({"hostname": "h", "ipMode": "VIP"}), true, &[&lonely]);
        let host = format!("{AT}.hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address");
        check(&json!({"hostname": "10.0.0.1"}), true, &[&host]);
    }
}
