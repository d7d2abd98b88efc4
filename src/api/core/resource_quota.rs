//! Resource quotas: which resources and scopes one may be set on.

use k8s_openapi::api::core::v1 as api;

use super::pod::{default_amounts, validate_amount, validate_resource_name};
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

const QUOTA_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

pub(crate) struct ResourceQuota;

impl Kind for ResourceQuota {
    type Object = api::ResourceQuota;

    fn default(&self, obj: &mut api::ResourceQuota) {
        default_amounts(obj.spec.as_mut().and_then(|s| s.hard.as_mut()));
        if let Some(status) = obj.status.as_mut() {
            default_amounts(status.hard.as_mut());
            default_amounts(status.used.as_mut());
        }
    }

    fn validate(&self, obj: &api::ResourceQuota, errs: &mut ErrorList) {
        let path = Path::new("spec.hard");
        let Some(spec) = obj.spec.as_ref() else { return };
        for (name, amount) in spec.hard.iter().flatten() {
            if errs.is_full() {
                break;
            }
            let at = path.key(name);
            validate_resource_name(name, &at, errs);
            let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-");
            if !name.contains('/') && !QUOTA_RESOURCES.contains(&name.as_str()) && !huge {
                errs.push(field::invalid(&at, name, "must be a standard resource for quota"));
            }
            validate_amount(name, amount, &at, errs);
        }
        validate_scopes(spec, errs);
    }

    fn validate_update(&self, new: &api::ResourceQuota, old: &api::ResourceQuota, errs: &mut ErrorList) {
        self.validate(new, errs);
        let scopes = |obj: &api::ResourceQuota| {
            let mut scopes = obj.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        field::immutable(&Path::new("spec.scopes"), &scopes(new), &scopes(old), errs);
    }
}

fn validate_scopes(spec: &api::ResourceQuotaSpec, errs: &mut ErrorList) {
    let path = Path::new("spec.scopes");
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    for _ in scopes.iter().filter(|s| !SCOPES.contains(&s.as_str())) {
        if errs.is_full() {
            break;
        }
        errs.push(field::invalid(&path, scopes, "unsupported scope"));
    }
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    let at = Path::new("spec.scopeSelector.matchExpressions");
    for requirement in selected {
        if errs.is_full() {
            break;
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        if !SCOPES.contains(&requirement.scope_name.as_str()) {
            errs.push(field::invalid(&at.child("scopeName"), &requirement.scope_name, "unsupported scope"));
        }
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errs.push(field::required(&at.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errs.push(field::invalid(&at.child("values"), values, why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errs.push(field::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.iter().any(|s| s == a) && scopes.iter().any(|s| s == b) {
            errs.push(field::invalid(&path, scopes, "conflicting scopes"));
        }
    }
}
