//! A job's rules for failures and for early success.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const RULES_MAX: usize = 20;

pub(super) fn validate_policies(spec: &api::JobSpec, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(policy) = spec.pod_failure_policy.as_ref() {
        validate_failure_policy(spec, policy, &path.child("podFailurePolicy.rules"), errs);
    }
    if let Some(policy) = spec.success_policy.as_ref() {
        let at = path.child("successPolicy");
        if spec.completion_mode.as_deref() != Some("Indexed") {
            errs.push(field::invalid(&at, policy, "requires indexed completion mode"));
            return;
        }
        let at = at.child("rules");
        if policy.rules.is_empty() {
            errs.push(field::required(&at, "at least one rules must be specified when the successPolicy is specified"));
        }
        if policy.rules.len() > RULES_MAX {
            errs.push(field::too_many(&at, policy.rules.len(), RULES_MAX));
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            let at = at.index(i);
            if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
                errs.push(field::required(&at, "at least one of succeededCount or succeededIndexes must be specified"));
            }
            let count = i64::from(rule.succeeded_count.unwrap_or(0));
            field::non_negative(&at.child("succeededCount"), count, errs);
        }
    }
}

fn validate_failure_policy(spec: &api::JobSpec, policy: &api::PodFailurePolicy, path: &Path<'_>, errs: &mut ErrorList) {
    if policy.rules.len() > RULES_MAX {
        errs.push(field::too_many(path, policy.rules.len(), RULES_MAX));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        match rule.action.as_str() {
            "" => errs.push(field::required(&at.child("action"), &format!("valid values: {ACTIONS:?}"))),
            "FailIndex" if spec.backoff_limit_per_index.is_none() => {
                errs.push(field::invalid(
                    &at.child("action"),
                    "FailIndex",
                    "requires the backoffLimitPerIndex to be set",
                ));
            }
            action if ACTIONS.contains(&action) => {}
            other => errs.push(field::not_supported(&at.child("action"), other, ACTIONS)),
        }
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
        match (rule.on_exit_codes.as_ref(), conditions.is_empty()) {
            (Some(_), false) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                errs.push(field::invalid(&at, "", why));
            }
            (None, true) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                errs.push(field::invalid(&at, "", why));
            }
            (Some(codes), true) => validate_exit_codes(spec, codes, &at.child("onExitCodes"), errs),
            (None, false) => {
                let at = at.child("onPodConditions");
                for (j, pattern) in conditions.iter().enumerate() {
                    if errs.is_full() {
                        break;
                    }
                    let at = at.index(j);
                    let kind = &pattern.type_;
                    field::invalid_each(&at.child("type"), kind, format::qualified_name(kind), errs);
                }
            }
        }
    }
}

fn validate_exit_codes(
    spec: &api::JobSpec,
    codes: &api::PodFailurePolicyOnExitCodesRequirement,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    match codes.operator.as_str() {
        "" => errs.push(field::required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]")),
        "In" | "NotIn" => {}
        other => errs.push(field::not_supported(&path.child("operator"), other, &["In", "NotIn"])),
    }
    if let Some(name) = codes.container_name.as_deref() {
        let containers =
            spec.template.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        if !containers.into_iter().any(|c| c.name == name) {
            let why = "must be one of the container or initContainer names in the pod template";
            errs.push(field::invalid(&path.child("containerName"), name, why));
        }
    }
    let at = path.child("values");
    if codes.values.is_empty() {
        errs.push(field::invalid(&at, &codes.values, "at least one value is required"));
    }
    let mut seen = BTreeSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        if codes.operator == "In" && *code == 0 {
            errs.push(field::invalid(&at.index(i), code, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errs.push(field::duplicate(&at.index(i), code));
        }
    }
}
