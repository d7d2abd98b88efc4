//! Requests and limits: which resources there are and how they relate.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

use crate::field::{self, Error, ErrorList, Path};
use crate::meta::format;
use crate::quantity::Quantity;

const CONTAINER_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const STANDARD_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Resources that are counted, not measured.
const INTEGER_RESOURCES: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

type Amounts = BTreeMap<String, Wire>;

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Without a prefix, or with one of Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_extended(name: &str) -> bool {
    if is_native(name) || name.starts_with("requests.") {
        return false;
    }
    format::qualified_name(&format!("requests.{name}")).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Complaints about the name of any resource.
pub(crate) fn validate_resource_name(name: &str, path: &Path<'_>, errs: &mut ErrorList) -> bool {
    let wrong = format::qualified_name(name);
    if !wrong.is_empty() {
        field::invalid_each(path, name, wrong, errs);
        return false;
    }
    let quota = name.strip_prefix("requests.").is_some_and(is_huge_pages) || name.starts_with("count/");
    if !name.contains('/') && !STANDARD_RESOURCES.contains(&name) && !is_huge_pages(name) && !quota {
        errs.push(field::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    true
}

pub(crate) fn validate_container_resource_name(name: &str, path: &Path<'_>, errs: &mut ErrorList) {
    validate_resource_name(name, path, errs);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_huge_pages(name) {
            errs.push(field::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errs.push(field::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

fn validate_pod_resource_name(name: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if validate_resource_name(name, path, errs) && !["cpu", "memory"].contains(&name) && !is_huge_pages(name) {
        errs.push(field::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// An amount must be one, not negative, and whole where its resource is counted.
pub(crate) fn validate_amount(name: &str, wire: &Wire, path: &Path<'_>, errs: &mut ErrorList) {
    let amount: Quantity = match wire.0.parse() {
        Ok(amount) => amount,
        Err(error) => {
            errs.push(field::invalid(path, &wire.0, error.to_string()));
            return;
        }
    };
    if amount.sign() < 0 {
        errs.push(field::invalid(path, &amount.to_string(), "must be greater than or equal to 0"));
    }
    if (INTEGER_RESOURCES.contains(&name) || is_extended(name)) && !amount.is_whole() {
        errs.push(field::invalid(path, wire, "must be an integer"));
    }
}

fn validate_huge_pages(name: &str, wire: &Wire, path: &Path<'_>, errs: &mut ErrorList) {
    let amount = Quantity::of(wire);
    let page = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok()).map_or(0, |q| q.value());
    if page <= 0 || amount.value() % page != 0 {
        let why = format!("{amount} is not positive integer multiple of {name}");
        errs.push(field::invalid(path, &amount.to_string(), why));
    }
}

pub(super) fn validate_container_resources(
    resources: &ResourceRequirements,
    claims: &BTreeSet<&str>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    validate_requirements(resources, validate_container_resource_name, path, errs);
    validate_claims(resources.claims.as_deref().unwrap_or_default(), claims, &path.child("claims"), errs);
}

pub(super) fn validate_overhead(overhead: &Amounts, path: &Path<'_>, errs: &mut ErrorList) {
    let as_limits = ResourceRequirements { limits: Some(overhead.clone()), ..ResourceRequirements::default() };
    validate_requirements(&as_limits, validate_container_resource_name, path, errs);
}

fn validate_requirements(
    resources: &ResourceRequirements,
    validate_name: fn(&str, &Path<'_>, &mut ErrorList),
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let none = Amounts::new();
    let limits = resources.limits.as_ref().unwrap_or(&none);
    let requests = resources.requests.as_ref().unwrap_or(&none);
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (at, amounts) in [(&limits_at, limits), (&requests_at, requests)] {
        for (name, amount) in amounts {
            if errs.is_full() {
                return;
            }
            let key_at = at.key(name);
            validate_name(name, &key_at, errs);
            validate_amount(name, amount, &key_at, errs);
            if std::ptr::eq(amounts, requests) {
                validate_against_limit(name, amount, limits, path, errs);
            }
            if is_huge_pages(name) {
                validate_huge_pages(name, amount, &key_at, errs);
            }
        }
    }
    let mut names = limits.keys().chain(requests.keys());
    let compute = names.clone().any(|n| n == "cpu" || n == "memory");
    if !compute && names.any(|n| is_huge_pages(n)) {
        errs.push(field::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn validate_against_limit(name: &str, request: &Wire, limits: &Amounts, path: &Path<'_>, errs: &mut ErrorList) {
    let amount = Quantity::of(request);
    let requests_at = path.child("requests");
    match limits.get(name).map(Quantity::of) {
        Some(limit) if amount != limit && !may_overcommit(name) => {
            let why = format!("must be equal to {name} limit of {limit}");
            errs.push(field::invalid(&requests_at, &amount.to_string(), why));
        }
        Some(limit) if amount > limit => {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errs.push(field::invalid(&requests_at, &amount.to_string(), why));
        }
        None if !may_overcommit(name) => {
            errs.push(field::required(&path.child("limits"), "Limit must be set for non overcommitable resources"));
        }
        _ => {}
    }
}

fn validate_claims(used: &[ResourceClaim], known: &BTreeSet<&str>, path: &Path<'_>, errs: &mut ErrorList) {
    // Claims as a whole and requests of claims; and the names of either.
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (i, claim) in used.iter().enumerate() {
        if errs.is_full() {
            return;
        }
        let at = path.index(i);
        if claim.name.is_empty() {
            errs.push(field::required(&at, ""));
            continue;
        }
        let request = claim.request.as_deref().unwrap_or("");
        let key = if request.is_empty() { claim.name.clone() } else { format!("{}/{request}", claim.name) };
        let overlaps = request.is_empty() && names.contains(claim.name.as_str());
        if seen.contains(&claim.name) || overlaps {
            errs.push(field::duplicate(&at, &claim.name));
        } else if seen.contains(&key) {
            errs.push(field::duplicate(&at, &key));
        }
        if !request.is_empty() {
            field::invalid_each(&at.child("request"), request, format::dns1123_label(request), errs);
        }
        seen.insert(key);
        names.insert(&claim.name);
        if !known.contains(claim.name.as_str()) {
            let known: Vec<&str> = known.iter().copied().collect();
            let list = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{list}");
            errs.push(Error { detail, ..field::not_found(&at, &claim.name) });
        }
    }
}

/// Requests and limits of the pod as a whole.
pub(super) fn validate_pod_resources(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(resources) = spec.resources.as_ref() else { return };
    if resources.claims.is_some() {
        errs.push(field::forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    validate_requirements(resources, validate_pod_resource_name, path, errs);
    let mut totals: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, amount) in
        spec.containers.iter().flat_map(|c| c.resources.iter()).flat_map(|r| r.requests.iter().flatten())
    {
        let total = totals.entry(name).or_insert(Quantity::ZERO);
        *total = total.plus(Quantity::of(amount));
    }
    let requests_at = path.child("requests");
    for (name, total) in totals.iter().filter(|(n, _)| ["cpu", "memory"].contains(n) || is_huge_pages(n)) {
        let whole = resources.requests.as_ref().and_then(|r| r.get(*name)).map_or(Quantity::ZERO, Quantity::of);
        if *total > whole && resources.requests.is_some() {
            let why = format!("must be greater than or equal to aggregate container requests of {total}");
            errs.push(field::invalid(&requests_at.key(name), &whole.to_string(), why));
        }
    }
    let containers_at = path.child("containers");
    for (i, ctr) in spec.containers.iter().enumerate() {
        let at = containers_at.index(i);
        for (name, limit) in ctr.resources.iter().flat_map(|r| r.limits.iter().flatten()) {
            if errs.is_full() {
                break;
            }
            let Some(whole) = resources.limits.as_ref().and_then(|l| l.get(name)) else { continue };
            let (limit, whole) = (Quantity::of(limit), Quantity::of(whole));
            if limit > whole {
                let why = format!("must be less than or equal to pod limits of {whole}");
                errs.push(field::invalid(&at.key(name).child("limits"), &limit.to_string(), why));
            }
        }
    }
}
