//! Where a pod may run: tolerations, affinities, topology spread and node selectors.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;
use crate::meta::validate_label_selector;

pub(crate) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn validate_label_name(name: &str, path: &Path<'_>, errs: &mut ErrorList) {
    field::invalid_each(path, name, format::qualified_name(name), errs);
}

pub(super) fn validate_tolerations(tolerations: &[Toleration], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, toleration) in tolerations.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let key = toleration.key.as_deref().unwrap_or("");
        let operator = toleration.operator.as_deref().unwrap_or("");
        let value = toleration.value.as_deref().unwrap_or("");
        let effect = toleration.effect.as_deref().unwrap_or("");
        let operator_at = at.child("operator");
        if !key.is_empty() {
            validate_label_name(key, &at.child("key"), errs);
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errs.push(field::invalid(&operator_at, operator, why));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errs.push(field::invalid(&at.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => {
                let wrong = format::label_value(value);
                if !wrong.is_empty() {
                    errs.push(field::invalid(&operator_at, value, wrong.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                errs.push(field::invalid(&operator_at, value, "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            other => errs.push(field::not_supported(&operator_at, other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect) {
            errs.push(field::not_supported(&at.child("effect"), effect, TAINT_EFFECTS));
        }
    }
}

pub(super) fn validate_affinity(affinity: &Affinity, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(node) = affinity.node_affinity.as_ref() {
        let at = path.child("nodeAffinity");
        if let Some(selector) = node.required_during_scheduling_ignored_during_execution.as_ref() {
            validate_node_selector(selector, &at.child(REQUIRED), errs);
        }
        let list = at.child(PREFERRED);
        for (i, term) in node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let at = list.index(i);
            validate_weight(term.weight, &at, errs);
            // A preference that no node can meet does no harm, so its values go unchecked.
            validate_node_selector_term(&term.preference, false, &at.child("preference"), errs);
        }
    }
    if let Some(pods) = affinity.pod_affinity.as_ref() {
        let at = path.child("podAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        validate_pod_terms(required, preferred, &at, errs);
    }
    if let Some(pods) = affinity.pod_anti_affinity.as_ref() {
        let at = path.child("podAntiAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        validate_pod_terms(required, preferred, &at, errs);
    }
}

fn validate_weight(weight: i32, path: &Path<'_>, errs: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errs.push(field::invalid(&path.child("weight"), &weight, "must be in the range 1-100"));
    }
}

fn validate_pod_terms(
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let list = path.child(REQUIRED);
    for (i, term) in required.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_pod_term(term, &list.index(i), errs);
    }
    let list = path.child(PREFERRED);
    for (i, term) in preferred.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = list.index(i);
        validate_weight(term.weight, &at, errs);
        validate_pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"), errs);
    }
}

fn validate_pod_term(term: &PodAffinityTerm, path: &Path<'_>, errs: &mut ErrorList) {
    validate_label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errs);
    validate_label_selector(term.namespace_selector.as_ref(), &path.child("namespaceSelector"), errs);
    for name in term.namespaces.iter().flatten() {
        if errs.is_full() {
            break;
        }
        field::invalid_each(&path.child("namespace"), name, format::dns1123_label(name), errs);
    }
    let matching = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatching = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (name, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let at = path.child(name);
        if !keys.is_empty() && term.label_selector.is_none() {
            errs.push(field::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_label_name(key, &at.index(i), errs);
        }
    }
    let mentioned = mentions(term.label_selector.as_ref());
    let mismatching: BTreeSet<&str> = mismatching.iter().map(String::as_str).collect();
    for (i, key) in matching.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        // What this key added to the selector is there once; a second mention is the user's.
        if mentioned.get(key.as_str()).is_some_and(|times| *times > 1) {
            errs.push(field::invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
        if mismatching.contains(key.as_str()) {
            let at = path.child("matchLabelKeys");
            errs.push(field::invalid(&at.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
    let at = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errs.push(field::required(&at, "can not be empty"));
    }
    validate_label_name(&term.topology_key, &at, errs);
}

/// How often a selector names each key.
fn mentions(selector: Option<&LabelSelector>) -> BTreeMap<&str, usize> {
    let mut times = BTreeMap::new();
    let labels = selector.into_iter().flat_map(|s| s.match_labels.iter().flatten()).map(|(key, _)| key);
    let expressions = selector.into_iter().flat_map(|s| s.match_expressions.iter().flatten()).map(|e| &e.key);
    for key in labels.chain(expressions) {
        *times.entry(key.as_str()).or_default() += 1;
    }
    times
}

pub(crate) fn validate_node_selector(selector: &NodeSelector, path: &Path<'_>, errs: &mut ErrorList) {
    let list = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errs.push(field::required(&list, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_node_selector_term(term, true, &list.index(i), errs);
    }
}

fn validate_node_selector_term(term: &NodeSelectorTerm, check_values: bool, path: &Path<'_>, errs: &mut ErrorList) {
    let list = path.child("matchExpressions");
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_node_requirement(requirement, check_values, &list.index(i), errs);
    }
    let list = path.child("matchFields");
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_node_field(requirement, &list.index(i), errs);
    }
}

fn validate_node_requirement(
    requirement: &NodeSelectorRequirement,
    check_values: bool,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errs.push(field::required(&values_at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errs.push(field::forbidden(&values_at, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errs.push(field::required(&values_at, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errs.push(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    validate_label_name(&requirement.key, &path.child("key"), errs);
    for (i, value) in values.iter().enumerate().filter(|_| check_values) {
        if errs.is_full() {
            break;
        }
        field::invalid_each(&values_at.index(i), value, format::label_value(value), errs);
    }
}

fn validate_node_field(requirement: &NodeSelectorRequirement, path: &Path<'_>, errs: &mut ErrorList) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errs.push(field::required(&values_at, why));
        }
        "In" | "NotIn" => {}
        other => errs.push(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    if requirement.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            field::invalid_each(&values_at.index(i), value, format::dns1123_subdomain(value), errs);
        }
    } else {
        errs.push(field::invalid(&path.child("key"), &requirement.key, "not a valid field selector key"));
    }
}

pub(super) fn validate_spread(constraints: &[TopologySpreadConstraint], path: &Path<'_>, errs: &mut ErrorList) {
    let pair = |c: &'_ TopologySpreadConstraint| (c.topology_key.clone(), c.when_unsatisfiable.clone());
    let last: BTreeMap<(String, String), usize> = constraints.iter().enumerate().map(|(i, c)| (pair(c), i)).collect();
    for (i, constraint) in constraints.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            errs.push(field::invalid(&at.child("maxSkew"), &constraint.max_skew, "must be greater than zero"));
        }
        if constraint.topology_key.is_empty() {
            errs.push(field::required(&at.child("topologyKey"), "can not be empty"));
        }
        let action = constraint.when_unsatisfiable.as_str();
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            let known = &["DoNotSchedule", "ScheduleAnyway"];
            errs.push(field::not_supported(&at.child("whenUnsatisfiable"), action, known));
        }
        if last.get(&pair(constraint)).is_some_and(|last| *last > i) {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errs.push(field::duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), &pair));
        }
        validate_min_domains(constraint, &at.child("minDomains"), errs);
        for (name, policy) in [
            ("nodeAffinityPolicy", constraint.node_affinity_policy.as_deref()),
            ("nodeTaintsPolicy", constraint.node_taints_policy.as_deref()),
        ] {
            if let Some(policy) = policy.filter(|p| !["Honor", "Ignore"].contains(p)) {
                errs.push(field::not_supported(&at.child(name), policy, &["Honor", "Ignore"]));
            }
        }
        validate_spread_keys(constraint, &at.child("matchLabelKeys"), errs);
        validate_label_selector(constraint.label_selector.as_ref(), &at.child("labelSelector"), errs);
    }
}

fn validate_min_domains(constraint: &TopologySpreadConstraint, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(min) = constraint.min_domains else { return };
    if min <= 0 {
        errs.push(field::invalid(path, &min, "must be greater than zero"));
    }
    let action = &constraint.when_unsatisfiable;
    if action != "DoNotSchedule" {
        let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errs.push(field::invalid(path, &min, why));
    }
}

fn validate_spread_keys(constraint: &TopologySpreadConstraint, path: &Path<'_>, errs: &mut ErrorList) {
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    if !keys.is_empty() && constraint.label_selector.is_none() {
        errs.push(field::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    let mentioned = mentions(constraint.label_selector.as_ref());
    for (i, key) in keys.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_label_name(key, &path.index(i), errs);
        if mentioned.get(key.as_str()).is_some_and(|times| *times > 1) {
            errs.push(field::invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
}
