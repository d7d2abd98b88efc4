//! Roles, and the policy rules that ClusterRoles share with them.

use k8s_openapi::api::rbac::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct Role;

impl Kind for Role {
    type Object = api::Role;

    fn validate(&self, obj: &api::Role, errs: &mut ErrorList) {
        validate_rules(obj.rules.as_deref().unwrap_or_default(), true, errs);
    }
}

/// Rules name resources, or URLs that belong to no namespace.
pub(super) fn validate_rules(rules: &[api::PolicyRule], namespaced: bool, errs: &mut ErrorList) {
    let path = Path::new("rules");
    for (i, rule) in rules.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let groups = rule.api_groups.as_deref().unwrap_or_default();
        let resources = rule.resources.as_deref().unwrap_or_default();
        let urls = rule.non_resource_urls.as_deref().unwrap_or_default();
        let names = rule.resource_names.as_deref().unwrap_or_default();
        if rule.verbs.is_empty() {
            errs.push(field::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        if !urls.is_empty() {
            let urls_at = at.child("nonResourceURLs");
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errs.push(field::invalid(&urls_at, urls, why));
            }
            if !groups.is_empty() || !resources.is_empty() || !names.is_empty() {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errs.push(field::invalid(&urls_at, urls, why));
            }
            continue;
        }
        if groups.is_empty() {
            errs.push(field::required(&at.child("apiGroups"), "resource rules must supply at least one api group"));
        }
        if resources.is_empty() {
            errs.push(field::required(&at.child("resources"), "resource rules must supply at least one resource"));
        }
    }
}
