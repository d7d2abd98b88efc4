//! The patch that turns the status the API server has into the one that was computed.
//!
//! Only fields that differ are sent, and of the conditions only those: others may own conditions
//! of the same pod, and a strategic merge patch leaves theirs alone.

use api::k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::PASSING;

/// Lists that a strategic merge patch merges by this key instead of replacing them.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// Conditions that this kubelet writes; the others in a status belong to somebody else.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
    PASSING[0],
    PASSING[1],
];

/// The body of a strategic merge patch, or `None` when nothing differs.
pub(super) fn patch(uid: &str, from: &PodStatus, to: &PodStatus) -> Option<Value> {
    let (from, to) = (object(from), object(to));
    let mut fields = Map::new();
    for (key, value) in &to {
        let old = from.get(key);
        if old == Some(value) {
            continue;
        }
        let change = match MERGED.iter().find(|(name, _)| name == key) {
            Some((_, by)) => merged_list(by, old, value),
            None => value.clone(),
        };
        if change != Value::Array(Vec::new()) {
            fields.insert(key.clone(), change);
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        fields.insert(key.clone(), Value::Null);
    }
    (!fields.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": fields }))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Entries that are new or differ; addresses and passing conditions that went are deleted by name.
fn merged_list(by: &str, old: Option<&Value>, new: &Value) -> Value {
    let empty = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&empty);
    let new = new.as_array().unwrap_or(&empty);
    let same_key = |a: &Value, b: &Value| a.get(by) == b.get(by);
    let mut out: Vec<Value> = old
        .iter()
        .filter(|o| by == "ip" || PASSING.iter().any(|p| o[by] == *p))
        .filter(|o| !new.iter().any(|n| same_key(n, o)))
        .map(|gone| json!({ "$patch": "delete", by: gone[by] }))
        .collect();
    for entry in new {
        let before = old.iter().find(|o| same_key(o, entry));
        let foreign = by == "type" && !OWN.iter().any(|o| entry.get(by).is_some_and(|t| t == o));
        if foreign || before == Some(entry) {
            continue;
        }
        let mut entry = entry.clone();
        if let (Some(Value::Object(before)), Value::Object(entry)) = (before, &mut entry) {
            for key in before.keys().filter(|k| !matches!(k.as_str(), "lastProbeTime")) {
                entry.entry(key.clone()).or_insert(Value::Null);
            }
        }
        out.push(entry);
    }
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_sent() {
        let from = status(json!({
            "phase": "Pending", "reason": "X", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
                {"type": "Foreign", "status": "True"}, {"type": "Initialized", "status": "True"}],
        }));
        let to = status(json!({
            "phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "Foreign", "status": "False"}, {"type": "Initialized", "status": "True"}],
        }));
        assert_eq!(
            patch("u", &from, &to),
            Some(json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running", "reason": null,
                "podIPs": [{"$patch": "delete", "ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            }}))
        );
        assert_eq!(patch("u", &to, &to), None);
        let from = status(json!({"conditions": [{"type": "PodResizePending", "status": "True"}]}));
        assert_eq!(
            patch("u", &from, &status(json!({"conditions": []}))),
            Some(json!({"metadata": {"uid": "u"}, "status": {
                "conditions": [{"$patch": "delete", "type": "PodResizePending"}]}}))
        );
    }
}
