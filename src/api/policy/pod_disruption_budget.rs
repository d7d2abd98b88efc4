//! Pod disruption budgets: at least so many up, or at most so many down.

use k8s_openapi::api::policy::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::{format, validate_label_selector};

pub(crate) struct PodDisruptionBudget;

impl Kind for PodDisruptionBudget {
    type Object = api::PodDisruptionBudget;

    fn validate(&self, obj: &api::PodDisruptionBudget, errs: &mut ErrorList) {
        let Some(spec) = obj.spec.as_ref() else { return };
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errs.push(field::invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set"));
        }
        for (name, value) in
            [("minAvailable", spec.min_available.as_ref()), ("maxUnavailable", spec.max_unavailable.as_ref())]
        {
            let at = path.child(name);
            match value {
                None => {}
                Some(IntOrString::Int(number)) => field::non_negative(&at, i64::from(*number), errs),
                Some(IntOrString::String(text)) => {
                    field::invalid_each(&at, text, format::percent(text), errs);
                    if text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 100) {
                        errs.push(field::invalid(&at, text, "must not be greater than 100%"));
                    }
                }
            }
        }
        validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errs);
        const POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
            errs.push(field::not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, POLICIES));
        }
    }
}
