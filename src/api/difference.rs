//! What differs between two versions of a value, one line a field, for messages to people.

use serde::Serialize;
use serde_json::Value;

/// Lines such as `- containers[0].name: "a"` and `+ containers[0].name: "b"`.
#[must_use]
pub(crate) fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else { return String::new() };
    let mut lines = Vec::new();
    compare("", Some(&old), Some(&new), &mut lines);
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, a.get(key), b.get(key), lines);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                compare(&format!("{path}[{i}]"), a.get(i), b.get(i), lines);
            }
        }
        _ => {
            lines.extend(old.map(|v| format!("- {path}: {v}")));
            lines.extend(new.map(|v| format!("+ {path}: {v}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_shown() {
        let old = json!({"a": [{"n": 1}, 2], "b": "x"});
        let new = json!({"a": [{"n": 3}], "b": "x", "c": true});
        assert_eq!(difference(&old, &new), "- a[0].n: 1\n+ a[0].n: 3\n- a[1]: 2\n+ c: true\n");
    }
}
