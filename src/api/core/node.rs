//! Nodes: taints are unique by key and effect, pod ranges and the provider's name are set once.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as api;

use super::pod::{TAINT_EFFECTS, default_amounts, validate_amount, validate_choice};
use crate::field::{self, Error, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

pub(crate) struct Node;

impl Kind for Node {
    type Object = api::Node;

    fn default(&self, obj: &mut api::Node) {
        let Some(status) = obj.status.as_mut() else { return };
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
        default_amounts(status.capacity.as_mut());
        default_amounts(status.allocatable.as_mut());
    }

    fn validate(&self, obj: &api::Node, errs: &mut ErrorList) {
        validate_taints(obj, errs);
        validate_resources(obj, errs);
        let path = Path::new("spec.podCIDRs");
        let ranges = obj.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for (i, range) in ranges.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            field::invalid_each(&path.index(i), range, format::cidr(range), errs);
            if !seen.insert(range) {
                errs.push(field::duplicate(&path.index(i), range));
            }
        }
        let v6 = ranges.iter().filter(|r| r.contains(':')).count();
        if ranges.len() > 1 && (v6 != 1 || ranges.len() > 2) {
            errs.push(field::invalid(&path, ranges, "may specify no more than one CIDR for each IP family"));
        }
    }

    fn validate_update(&self, new: &api::Node, old: &api::Node, errs: &mut ErrorList) {
        validate_resources(new, errs);
        validate_taints(new, errs);
        let (Some(new_spec), Some(old_spec)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
        let ranges = old_spec.pod_cidrs.as_deref().unwrap_or_default();
        if !ranges.is_empty() && new_spec.pod_cidrs.as_deref() != Some(ranges) {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errs.push(field::forbidden(&Path::new("spec.podCIDRs"), why));
        }
        let provider = old_spec.provider_id.as_deref().unwrap_or("");
        if !provider.is_empty() && new_spec.provider_id.as_deref() != Some(provider) {
            let why = "node updates may not change providerID except from \"\" to valid";
            errs.push(field::forbidden(&Path::new("spec.providerID"), why));
        }
    }

    fn validate_status_update(&self, new: &api::Node, _old: &api::Node, errs: &mut ErrorList) {
        validate_resources(new, errs);
        let path = Path::new("status.addresses");
        let addresses = new.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for (i, address) in addresses.iter().enumerate().filter(|(_, a)| !seen.insert((&a.type_, &a.address))) {
            if errs.is_full() {
                break;
            }
            errs.push(field::duplicate(&path.index(i), address));
        }
    }
}

fn validate_taints(obj: &api::Node, errs: &mut ErrorList) {
    let path = Path::new("metadata.taints");
    let mut seen = BTreeSet::new();
    for (i, taint) in obj.spec.iter().flat_map(|s| s.taints.iter().flatten()).enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        field::invalid_each(&at.child("key"), &taint.key, format::qualified_name(&taint.key), errs);
        let value = taint.value.as_deref().unwrap_or("");
        let wrong = format::label_value(value);
        if !wrong.is_empty() {
            errs.push(field::invalid(&at.child("value"), value, wrong.join(";")));
        }
        validate_choice(Some(&taint.effect), TAINT_EFFECTS, &at.child("effect"), errs);
        if !seen.insert((&taint.key, &taint.effect)) {
            let detail = "taints must be unique by key and effect pair".to_owned();
            errs.push(Error { detail, ..field::duplicate(&at, taint) });
        }
    }
}

fn validate_resources(obj: &api::Node, errs: &mut ErrorList) {
    let Some(status) = obj.status.as_ref() else { return };
    for (name, amounts) in [("status.capacity", &status.capacity), ("status.allocatable", &status.allocatable)] {
        let path = Path::new(name);
        for (resource, amount) in amounts.iter().flatten() {
            if errs.is_full() {
                break;
            }
            validate_amount(resource, amount, &path.child(resource), errs);
        }
    }
}
