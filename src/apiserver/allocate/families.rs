//! The IP families of a service: which it has, by its policy and what the cluster offers.

use api::field::{self, ErrorList, Path};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

pub(super) const IPV4: &str = "IPv4";
pub(super) const IPV6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const PREFER_DUAL: &str = "PreferDualStack";
const REQUIRE_DUAL: &str = "RequireDualStack";
pub(super) const HEADLESS: &str = "None";

/// Sets policy and families of a service that has addresses.
///
/// # Errors
/// What contradicts what.
pub(super) fn initialize(spec: &mut ServiceSpec, old: Option<&Service>, offered: &[&str]) -> Result<(), ErrorList> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(());
    }
    let old = old.and_then(|s| s.spec.as_ref());
    if keeps_prefer_dual(spec, old) {
        return Ok(());
    }
    let selectorless = spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
    let bare = spec.cluster_ip.as_deref() == Some(HEADLESS) && selectorless;
    let inherited = old.and_then(|o| o.ip_family_policy.clone());
    let default = if bare { REQUIRE_DUAL } else { SINGLE };
    let policy = spec.ip_family_policy.get_or_insert_with(|| inherited.unwrap_or_else(|| default.to_owned())).clone();
    let mut errors = ErrorList::new();
    if let Some(old) = old {
        shrink(spec, old, &policy, &mut errors);
    }
    contradictions(spec, &policy, &mut errors);
    infer(spec, offered, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let families = spec.ip_families.get_or_insert_default();
    if bare {
        // Endpoints of both families may be listed here whatever the cluster offers.
        if families.is_empty() {
            families.push(offered[0].to_owned());
        }
        add_other(families, policy != SINGLE);
        return Ok(());
    }
    offered_only(families, &policy, offered)?;
    if families.is_empty() {
        families.push(offered[0].to_owned());
    }
    add_other(families, policy != SINGLE && offered.len() == 2);
    Ok(())
}

/// Such a service changes its stack only when asked to, not when the cluster changes.
fn keeps_prefer_dual(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> bool {
    old.is_some_and(|old| {
        spec.ip_family_policy.as_deref() == Some(PREFER_DUAL)
            && old.ip_family_policy.as_deref() == Some(PREFER_DUAL)
            && spec.cluster_ips == old.cluster_ips
            && spec.ip_families == old.ip_families
            && old.type_.as_deref() != Some("ExternalName")
    })
}

fn shrink(spec: &mut ServiceSpec, old: &ServiceSpec, policy: &str, errors: &mut ErrorList) {
    let (ips, families) = (spec.cluster_ips.clone(), spec.ip_families.clone());
    let (old_ips, old_families) = (&old.cluster_ips, &old.ip_families);
    let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
    if policy == SINGLE {
        if ips == *old_ips && length(&ips) > 1 {
            spec.cluster_ips.get_or_insert_default().truncate(1);
        }
        if families == *old_families && length(&families) > 1 {
            spec.ip_families.get_or_insert_default().truncate(1);
        }
        return;
    }
    let path = Path::new("spec");
    let path = path.child("ipFamilyPolicy");
    if length(&ips) == 1 && length(old_ips) == 2 {
        let detail = "must be 'SingleStack' to release the secondary cluster IP";
        errors.push(field::invalid(&path, policy, detail));
    }
    if length(&families) == 1 && length(old_families) == 2 {
        let detail = "must be 'SingleStack' to release the secondary IP family";
        errors.push(field::invalid(&path, policy, detail));
    }
}

fn contradictions(spec: &ServiceSpec, policy: &str, errors: &mut ErrorList) {
    if policy != SINGLE {
        return;
    }
    let path = Path::new("spec");
    let path = path.child("ipFamilyPolicy");
    let two = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| l.len() == 2);
    for (is_two, what) in [(two(&spec.cluster_ips), "cluster IPs"), (two(&spec.ip_families), "IP families")] {
        if is_two {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(field::invalid(&path, policy, detail));
        }
    }
}

/// Addresses that were named tell their families.
fn infer(spec: &mut ServiceSpec, offered: &[&str], errors: &mut ErrorList) {
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    for (i, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != HEADLESS) {
        let family = if ip.contains(':') { IPV6 } else { IPV4 };
        if ip.is_empty() || i < spec.ip_families.as_ref().map_or(0, Vec::len) {
            continue;
        }
        if offered.contains(&family) {
            spec.ip_families.get_or_insert_default().push(family.to_owned());
        } else {
            let spec_path = Path::new("spec");
            let list_path = spec_path.child("clusterIPs");
            let detail = format!("{family} is not configured on this cluster");
            errors.push(field::invalid(&list_path.index(i), &ips, detail));
        }
    }
}

fn offered_only(families: &[String], policy: &str, offered: &[&str]) -> Result<(), ErrorList> {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    if policy == REQUIRE_DUAL && offered.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(field::invalid(&spec.child("ipFamilyPolicy"), policy, detail));
    }
    let list = spec.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !offered.contains(&family.as_str()) {
            errors.push(field::invalid(&list.index(i), family, "not configured on this cluster"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn add_other(families: &mut Vec<String>, wanted: bool) {
    if wanted && families.len() == 1 {
        let other = if families[0] == IPV4 { IPV6 } else { IPV4 };
        families.push(other.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: &Value, offered: &[&str], expected: Result<(&str, &[&str]), &str>) {
        let mut typed: ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
        let got = initialize(&mut typed, None, offered).map_err(|e| field::aggregate(&e));
        let got = got.map(|()| (typed.ip_family_policy.unwrap_or_default(), typed.ip_families.unwrap_or_default()));
        let expected = expected
            .map(|(policy, families)| (policy.to_owned(), families.iter().map(|f| (*f).to_owned()).collect()))
            .map_err(str::to_owned);
        assert_eq!(got, expected, "{spec}");
    }

    #[test]
    fn families_follow_the_policy_and_the_cluster() {
        let (one, two): (&[&str], &[&str]) = (&[IPV4], &[IPV4, IPV6]);
        check(&json!({"selector": {"a": "b"}}), one, Ok((SINGLE, &[IPV4])));
        check(&json!({"ipFamilyPolicy": PREFER_DUAL}), one, Ok((PREFER_DUAL, &[IPV4])));
        check(&json!({"ipFamilyPolicy": PREFER_DUAL}), two, Ok((PREFER_DUAL, &[IPV4, IPV6])));
        check(&json!({"clusterIP": "None"}), one, Ok((REQUIRE_DUAL, &[IPV4, IPV6])));
        check(&json!({"clusterIP": "None", "selector": {"a": "b"}}), one, Ok((SINGLE, &[IPV4])));
        check(&json!({"type": "ExternalName"}), one, Ok(("", &[])));
        check(
            &json!({"ipFamilyPolicy": REQUIRE_DUAL}),
            one,
            Err("spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
                 dual-stack services"),
        );
        check(
            &json!({"ipFamilies": [IPV6]}),
            one,
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        );
    }
}
