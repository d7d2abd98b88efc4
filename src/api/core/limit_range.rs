//! Limit ranges: the bounds must leave room for a value between them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

use super::pod::{default_amounts, validate_container_resource_name, validate_resource_name};
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;
use crate::quantity::Quantity;

pub(crate) struct LimitRange;

impl Kind for LimitRange {
    type Object = api::LimitRange;

    fn default(&self, obj: &mut api::LimitRange) {
        for item in obj.spec.iter_mut().flat_map(|s| s.limits.iter_mut()) {
            let lists = [
                &mut item.max,
                &mut item.min,
                &mut item.default,
                &mut item.default_request,
                &mut item.max_limit_request_ratio,
            ];
            lists.into_iter().for_each(|list| default_amounts(list.as_mut()));
            if item.type_ == "Container" {
                default_container_limits(item);
            }
        }
    }

    fn validate(&self, obj: &api::LimitRange, errs: &mut ErrorList) {
        let path = Path::new("spec.limits");
        let mut types = BTreeSet::new();
        for (i, item) in obj.spec.iter().flat_map(|s| s.limits.iter()).enumerate() {
            if errs.is_full() {
                break;
            }
            let at = path.index(i);
            let type_at = at.child("type");
            let wrong = format::qualified_name(&item.type_);
            let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&item.type_.as_str());
            if wrong.is_empty() && !item.type_.contains('/') && !standard {
                let why = "must be a standard limit type or fully qualified";
                errs.push(field::invalid(&type_at, &item.type_, why));
            }
            field::invalid_each(&type_at, &item.type_, wrong, errs);
            if !types.insert(&item.type_) {
                errs.push(field::duplicate(&type_at, &item.type_));
            }
            validate_item(item, &at, errs);
        }
    }
}

/// Defaults follow the maximum, requests the default limits, else the minimum.
fn default_container_limits(item: &mut api::LimitRangeItem) {
    let limits = item.default.get_or_insert_default();
    for (name, amount) in item.max.iter().flatten() {
        limits.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    let requests = item.default_request.get_or_insert_default();
    for (name, amount) in limits.iter().chain(item.min.iter().flatten()) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

fn validate_item(item: &api::LimitRangeItem, path: &Path<'_>, errs: &mut ErrorList) {
    let of_pods = item.type_ == "Pod" || item.type_ == "Container";
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (name, list) in lists {
        let at = path.child(name);
        if item.type_ == "Pod" && name.starts_with("default") {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                errs.push(field::forbidden(&at, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for resource in list.iter().flat_map(BTreeMap::keys) {
            if errs.is_full() {
                break;
            }
            if of_pods {
                validate_container_resource_name(resource, &at.key(resource), errs);
            } else {
                validate_resource_name(resource, &at.key(resource), errs);
            }
            names.insert(resource);
        }
    }
    let has_storage = |l: &Option<BTreeMap<String, Wire>>| l.as_ref().is_some_and(|l| l.contains_key("storage"));
    if item.type_ == "PersistentVolumeClaim" && !has_storage(&item.min) && !has_storage(&item.max) {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errs.push(field::required(&path.child("limits"), why));
    }
    for name in names {
        validate_order(item, name, path, errs);
    }
}

fn validate_order(item: &api::LimitRangeItem, name: &str, path: &Path<'_>, errs: &mut ErrorList) {
    let get = |list: &Option<BTreeMap<String, Wire>>| list.as_ref().and_then(|l| l.get(name)).map(Quantity::of);
    let (min, max) = (get(&item.min), get(&item.max));
    let (limit, request) = (get(&item.default), get(&item.default_request));
    let rows = [
        ("min", min, "min value", max, "max value", min),
        ("defaultRequest", min, "min value", request, "default request value", request),
        ("defaultRequest", request, "default request value", max, "max value", request),
        ("defaultRequest", request, "default request value", limit, "default limit value", request),
        ("default", min, "min value", limit, "default value", min),
        ("default", limit, "default value", max, "max value", max),
    ];
    for (list, low, low_name, high, high_name, shown) in rows {
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let at = path.child(list);
            let why = format!("{low_name} {low} is greater than {high_name} {high}");
            errs.push(field::invalid(&at.key(name), &shown.to_string(), why));
        }
    }
    if let Some(ratio) = get(&item.max_limit_request_ratio).filter(|r| *r < Quantity::from_int(1)) {
        let at = path.child("maxLimitRequestRatio");
        errs.push(field::invalid(&at.key(name), &ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
}
