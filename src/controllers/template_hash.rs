//! The short hash of a pod template that names ReplicaSets and ControllerRevisions.
//!
//! It must be the same for equal templates, on every run and every machine; it need not be the
//! number that upstream computes, because owners find their revisions by comparing templates.

use serde::Serialize;
use serde_json::Value;

/// No vowels (no bad words) and no characters that are easily mistaken for each other.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Hash of a template, varied by how often a name made from it was found taken.
pub(crate) fn hash<T: Serialize>(template: &T, collision_count: Option<i32>) -> String {
    let mut bytes = canonical(template).to_string().into_bytes();
    if let Some(count) = collision_count {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    safe_encode(&fnv1a(&bytes).to_string())
}

/// The template as JSON with keys in order and without what only looks like content: nulls and empty lists.
pub(crate) fn canonical<T: Serialize>(template: &T) -> Value {
    let value = serde_json::to_value(template).expect("invariant: Kubernetes types serialise to JSON");
    pruned(value)
}

fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map
                .into_iter()
                .map(|(k, v)| (k, pruned(v)))
                .filter(|(_, v)| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()))
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hash_never_changes_between_builds() {
        assert_eq!(hash(&json!({"spec": {"containers": [{"image": "nginx", "name": "web"}]}}), None), "588f7449db");
    }

    #[test]
    fn order_nulls_and_empty_lists_do_not_count_but_collisions_do() {
        let plain = hash(&json!({"a": 1, "b": {"c": "x"}}), None);
        assert_eq!(hash(&json!({"b": {"c": "x", "d": null}, "a": 1, "e": []}), None), plain);
        assert_ne!(hash(&json!({"a": 2, "b": {"c": "x"}}), None), plain);
        assert_ne!(hash(&json!({"a": 1, "b": {"c": "x"}}), Some(1)), plain);
    }

    #[test]
    fn only_the_safe_alphabet_is_used() {
        for count in 0..200 {
            assert!(hash(&json!({}), Some(count)).bytes().all(|b| ALPHABET.contains(&b)));
        }
    }
}
