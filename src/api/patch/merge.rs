//! JSON merge patch, RFC 7386.

use serde_json::{Map, Value};

use super::{Patch, PatchError};

/// Applies a merge patch to an object.
///
/// # Errors
/// When the patch is no JSON object.
pub fn merge_patch(mut doc: Value, patch: Patch) -> Result<Value, PatchError> {
    let patch @ Value::Object(_) = patch.value else {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    };
    merge(&mut doc, patch);
    Ok(doc)
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}
