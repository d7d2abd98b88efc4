//! A service's cluster addresses and their families, and how these may change.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::service::is_headless;
use crate::field::{self, ErrorList, Path};
use crate::meta::format;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

fn external_name(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("ExternalName")
}

pub(super) fn validate_addresses(spec: &ServiceSpec, path: &Path<'_>, errs: &mut ErrorList) {
    if external_name(spec) {
        return;
    }
    let at = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let first = spec.cluster_ip.as_deref().unwrap_or("");
    match (first, ips) {
        ("", []) => {}
        ("", _) => errs.push(field::invalid(&at, ips, "must be empty when `clusterIP` is not specified")),
        (_, []) => errs.push(field::required(&at, "")),
        (ip, [head, ..]) if head != ip => errs.push(field::invalid(&at, ips, "first value must match `clusterIP`")),
        _ => {}
    }
    let families_at = path.child("ipFamilies");
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        if !FAMILIES.contains(&family.as_str()) {
            errs.push(field::not_supported(&families_at.index(i), family, FAMILIES));
        }
        if !seen.insert(family) {
            errs.push(field::duplicate(&families_at.index(i), family));
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
        errs.push(field::not_supported(&path.child("ipFamilyPolicy"), policy, POLICIES));
    }
    validate_ips(spec, ips, families, &at, errs);
}

fn validate_ips(spec: &ServiceSpec, ips: &[String], families: &[String], at: &Path<'_>, errs: &mut ErrorList) {
    let before = errs.len();
    for (i, ip) in ips.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                errs.push(field::invalid(at, ips, "'None' must be the first and only value"));
            }
            continue;
        }
        field::invalid_each(&at.index(i), ip, format::ip_address(ip), errs);
    }
    let bad = errs.len() > before;
    if ips.len() > 2 {
        errs.push(field::invalid(at, ips, "may only hold up to 2 values"));
    }
    if bad {
        return;
    }
    let v6 = |ip: &str| ip.contains(':');
    if ips.len() > 1 && ips.iter().filter(|ip| v6(ip)).count() != 1 {
        errs.push(field::invalid(at, ips, "may specify no more than one IP for each IP family"));
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        if errs.is_full() {
            break;
        }
        if (family == "IPv6") != v6(ip) && FAMILIES.contains(&family.as_str()) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errs.push(field::invalid(&at.index(i), ip, why));
        }
    }
}

/// The first address stays for life; a second one may come and go.
pub(super) fn validate_address_update(new: &ServiceSpec, old: &ServiceSpec, errs: &mut ErrorList) {
    if external_name(new) || external_name(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let (ips, was) = (new.cluster_ips.as_deref().unwrap_or_default(), old.cluster_ips.as_deref().unwrap_or_default());
    let at = Path::new("spec.clusterIPs");
    if ips.is_empty() && !was.is_empty() {
        errs.push(field::invalid(&at.index(0), ips, "primary clusterIP can not be unset"));
    }
    let compared = if ips.len() == was.len() { was.len() } else { was.len().min(1) };
    for (i, (ip, before)) in ips.iter().zip(was).enumerate().take(compared) {
        if errs.is_full() {
            break;
        }
        if ip != before {
            errs.push(field::invalid(&at.index(i), ips, "may not change once set"));
        }
    }
    let single = new.ip_family_policy.as_deref() == Some("SingleStack");
    if was.len() > ips.len() && ips.len() == 1 && !single {
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errs.push(field::invalid(&Path::new("spec.ipFamilyPolicy"), &new.ip_family_policy, why));
    }
    if is_headless(new) != is_headless(old) {
        return;
    }
    let families = new.ip_families.as_deref().unwrap_or_default();
    let before = old.ip_families.as_deref().unwrap_or_default();
    if let (Some(now), Some(then)) = (families.first(), before.first())
        && now != then
    {
        let at = Path::new("spec.ipFamilies");
        errs.push(field::invalid(&at.index(0), families, "may not change once set"));
    }
}
