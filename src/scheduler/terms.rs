//! Node selector terms and pod affinity terms, parsed once and matched often.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::object::ObjectIndex;
use api::selector::LabelSelector as Selector;

/// Labels as the object index keeps them.
pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// Whether a node with this name and these labels is selected: any term, all of its requirements.
pub(crate) fn node_selector_matches(selector: &NodeSelector, name: &str, labels: &Labels) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term_matches(term, name, labels))
}

/// A term without requirements matches nothing.
pub(crate) fn node_term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement_matches(r, labels.get(r.key.as_str()).map(|v| &**v)))
        && fields.iter().all(|r| r.key == "metadata.name" && requirement_matches(r, Some(name)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |f: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(|b| b.parse().ok());
        matches!((value.and_then(|v| v.parse().ok()), bound), (Some(v), Some(b)) if f(&v, &b))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        // Validation admits no other operator.
        _ => false,
    }
}

/// A label selector as pods carry it; an absent one selects nothing, an empty one everything.
pub(crate) fn parse_selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.and_then(|s| Selector::from_meta(Some(s)).ok())
}

/// One (anti-)affinity term of a pod, ready to be matched against other pods.
#[derive(Clone, Debug)]
pub(crate) struct AffinityTerm {
    pub topology_key: Box<str>,
    namespaces: Vec<String>,
    /// `{}` selects every namespace.
    namespace_selector: Option<Selector>,
    selector: Option<Selector>,
}

impl AffinityTerm {
    /// `namespace` is the pod's own, which is meant when the term names none; `labels` are the pod's
    /// own, which `matchLabelKeys` refer to.
    pub(crate) fn parse(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            merge_label_keys(selector, term.match_label_keys.as_deref(), "In", labels);
            merge_label_keys(selector, term.mismatch_label_keys.as_deref(), "NotIn", labels);
        }
        Self {
            topology_key: term.topology_key.as_str().into(),
            namespaces,
            namespace_selector: parse_selector(term.namespace_selector.as_ref()),
            selector: parse_selector(selector.as_ref()),
        }
    }

    /// Whether the pod is one that the term speaks of; `namespace_labels` are its namespace's.
    pub(crate) fn matches(&self, pod: &ObjectIndex, namespace_labels: Option<&Labels>) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| **n == *pod.key.namespace)
            || match (&self.namespace_selector, namespace_labels) {
                (Some(selector), Some(labels)) => selector.matches(labels),
                (Some(selector), None) => selector.matches(&Labels::new()),
                (None, _) => false,
            };
        in_namespace && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

/// Adds a requirement for each key that the pod itself has.
pub(crate) fn merge_label_keys(selector: &mut LabelSelector, keys: Option<&[String]>, operator: &str, labels: &Labels) {
    use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.get(key.as_str()) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.to_string()]),
            });
        }
    }
}
