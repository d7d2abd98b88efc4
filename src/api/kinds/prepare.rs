//! The preparation that is the same for every kind: who may write metadata, status and generation.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

use super::{Generation, Traits};

const METADATA: &str = "metadata";

fn metadata(obj: &mut Value) -> Option<&mut Map<String, Value>> {
    obj.as_object_mut()?.entry(METADATA).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn set_or_remove(map: &mut Map<String, Value>, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.remove(key);
        }
    }
}

/// A new object has no status yet and is of the first generation.
pub(super) fn create(obj: &mut Value, traits: &Traits) {
    if let Some(map) = obj.as_object_mut().filter(|_| traits.status_reset) {
        map.remove("status");
    }
    if let Some(meta) = metadata(obj) {
        if traits.generation == Generation::None {
            meta.remove("generation");
        } else {
            meta.insert("generation".to_owned(), 1.into());
        }
        meta.remove("selfLink");
    }
}

/// Clients may leave out what identifies the object; what they say about deletion is ignored.
pub(super) fn inherit_metadata(new: &mut Value, old: &Value) {
    let Some(meta) = metadata(new) else { return };
    let old = |key: &str| old.get(METADATA).and_then(|m| m.get(key));
    for key in ["uid", "deletionGracePeriodSeconds"] {
        if meta.get(key).is_none_or(|v| v.is_null() || v == "") {
            set_or_remove(meta, key, old(key));
        }
    }
    set_or_remove(meta, "creationTimestamp", old("creationTimestamp"));
    if old("deletionTimestamp").is_some() {
        set_or_remove(meta, "deletionTimestamp", old("deletionTimestamp"));
    }
    set_or_remove(meta, "generation", old("generation"));
    meta.remove("selfLink");
}

/// The status of an object is not touched by an ordinary update.
pub(super) fn keep_status(new: &mut Value, old: &Value, traits: &Traits) {
    if let Some(map) = new.as_object_mut().filter(|_| traits.status) {
        set_or_remove(map, "status", old.get("status"));
    }
}

fn content_differs(new: &Value, old: &Value) -> bool {
    let content = |obj: &Value| -> Map<String, Value> {
        let keep = |(key, _): &(&String, &Value)| !["metadata", "status", "apiVersion", "kind"].contains(&key.as_str());
        obj.as_object().into_iter().flatten().filter(keep).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    content(new) != content(old)
}

/// Sets the generation after the objects were normalised.
pub(super) fn bump_generation(new: &mut Value, old: &Value, traits: &Traits) {
    let changed = match traits.generation {
        Generation::None => false,
        Generation::Spec => new.get("spec") != old.get("spec"),
        Generation::Content => content_differs(new, old),
    };
    let before = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if let Some(meta) = metadata(new).filter(|_| changed) {
        meta.insert("generation".to_owned(), (before + 1).into());
    }
}

/// Conditions of one type are matched in their order: there may be several.
fn keep_observed_generations(new: &mut Value, old: &Value) {
    const OBSERVED: &str = "observedGeneration";
    let keep = |new: &mut Value, old: &Value| {
        let (Some(new), Some(observed)) = (new.as_object_mut(), old.get(OBSERVED)) else { return };
        if new.get(OBSERVED).is_none_or(|v| v.is_null() || *v == 0) {
            new.insert(OBSERVED.to_owned(), observed.clone());
        }
    };
    let mut known: BTreeMap<&str, VecDeque<&Value>> = BTreeMap::new();
    for condition in old["status"]["conditions"].as_array().into_iter().flatten() {
        known.entry(condition["type"].as_str().unwrap_or_default()).or_default().push_back(condition);
    }
    let Some(status) = new.get_mut("status") else { return };
    keep(status, &old["status"]);
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = known.get_mut(condition["type"].as_str().unwrap_or_default());
        if let Some(before) = same.and_then(VecDeque::pop_front) {
            keep(condition, before);
        }
    }
}

/// A status update changes the status, and otherwise only what clients may always change.
pub(super) fn status_update(new: &mut Value, old: &Value, traits: &Traits) {
    inherit_metadata(new, old);
    for key in traits.status_kept {
        let (status, kept) = (new.get_mut("status").and_then(Value::as_object_mut), old["status"].get(key));
        if let (Some(status), Some(kept)) = (status, kept) {
            status.entry(*key).or_insert_with(|| kept.clone());
        }
    }
    if traits.status_keeps_generations {
        keep_observed_generations(new, old);
    }
    let Some(map) = new.as_object_mut() else { return };
    let others: Vec<String> =
        map.keys().filter(|k| !["metadata", "status", "apiVersion", "kind"].contains(&k.as_str())).cloned().collect();
    for key in others {
        map.remove(&key);
    }
    for (key, value) in old.as_object().into_iter().flatten() {
        if !["metadata", "status", "apiVersion", "kind"].contains(&key.as_str()) {
            map.insert(key.clone(), value.clone());
        }
    }
    if let Some(meta) = metadata(new) {
        // Owners and the end of an object belong to whoever writes the object itself.
        let kept_labels = traits.status_keeps_labels.then_some("labels");
        for key in ["ownerReferences", "deletionTimestamp"].into_iter().chain(kept_labels) {
            set_or_remove(meta, key, old.get(METADATA).and_then(|m| m.get(key)));
        }
    }
}
