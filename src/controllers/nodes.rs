//! What controllers ask of a node, and whether a pod may run on it: node affinity and taints.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::object::{Object, ObjectIndex};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use serde::Deserialize;

/// The labels of an object as its index holds them.
pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// A node as controllers see it.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) index: Arc<ObjectIndex>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    spec: Spec,
}

api::decode!(Body);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    taints: Option<Vec<Taint>>,
    unschedulable: bool,
}

impl NodeView {
    pub(crate) fn of(object: &Object) -> serde_json::Result<Self> {
        let Body { spec } = object.decode()?;
        Ok(Self {
            index: object.index.clone(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.index.key.name
    }
}

/// The pod's node selector and required node affinity hold for this node.
pub(crate) fn affinity_admits(spec: &PodSpec, node: &str, labels: &Labels) -> bool {
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key.as_str()).is_some_and(|v| **v == **value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_admits(t, node, labels)))
}

/// A term without requirements admits nothing.
fn term_admits(term: &NodeSelectorTerm, node: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| (key == "metadata.name").then_some(node);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| holds(r, labels.get(r.key.as_str()).map(|v| &**v)))
        && fields.iter().all(|r| holds(r, field(&r.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(v, b)| v > b),
        "Lt" => number(value).zip(bound).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            !key.is_empty() && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
        let rows = [
            (Some("k"), Some("Equal"), Some("v"), Some("NoSchedule"), true),
            (Some("k"), None, Some("v"), None, true),
            (Some("k"), Some("Equal"), Some("w"), None, false),
            (Some("k"), Some("Exists"), None, None, true),
            (None, Some("Exists"), None, None, true),
            (Some("k"), Some("Exists"), None, Some("NoExecute"), false),
            (Some("x"), Some("Exists"), None, None, false),
        ];
        for (key, operator, value, effect, expected) in rows {
            let owned = |t: Option<&str>| t.map(str::to_owned);
            let toleration = Toleration {
                key: owned(key),
                operator: owned(operator),
                value: owned(value),
                effect: owned(effect),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
