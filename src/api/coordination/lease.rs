//! Leases.

use k8s_openapi::api::coordination::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct Lease;

impl Kind for Lease {
    type Object = api::Lease;

    fn validate(&self, obj: &api::Lease, errs: &mut ErrorList) {
        let Some(spec) = obj.spec.as_ref() else { return };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errs.push(field::invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0"));
        }
        field::non_negative(&path.child("leaseTransitions"), i64::from(spec.lease_transitions.unwrap_or(0)), errs);
        if spec.preferred_holder.as_deref().is_some_and(|h| !h.is_empty())
            && spec.strategy.as_deref().unwrap_or("").is_empty()
        {
            let why = "may only be specified when `strategy` is defined";
            errs.push(field::forbidden(&path.child("preferredHolder"), why));
        }
    }
}
