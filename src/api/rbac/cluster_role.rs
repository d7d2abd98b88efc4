//! ClusterRoles, which may gather their rules from others by label.

use k8s_openapi::api::rbac::v1 as api;

use super::role::validate_rules;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::validate_label_selector;
use crate::selector::LabelSelector;

pub(crate) struct ClusterRole;

impl Kind for ClusterRole {
    type Object = api::ClusterRole;

    fn validate(&self, obj: &api::ClusterRole, errs: &mut ErrorList) {
        validate_rules(obj.rules.as_deref().unwrap_or_default(), false, errs);
        let Some(aggregation) = obj.aggregation_rule.as_ref() else { return };
        let path = Path::new("aggregationRule.clusterRoleSelectors");
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errs.push(field::required(&path, why));
        }
        for (i, selector) in selectors.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_label_selector(Some(selector), &path.index(i), errs);
            if LabelSelector::from_meta(Some(selector)).is_err() {
                errs.push(field::invalid(&path.index(i), &None::<()>, "invalid label selector."));
            }
        }
    }
}
