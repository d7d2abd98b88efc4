//! ConfigMaps of a given size with data that does not compress, and the versions in answers.

use anyhow::{Context as _, Result};

use crate::http1::find;

pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// A ConfigMap whose data is `size` characters that differ for each `tag`.
pub(crate) fn body(namespace: &str, name: &str, version: Option<&str>, size: usize, tag: u64) -> String {
    use std::fmt::Write as _;
    let version = version.map_or(String::new(), |v| format!(r#","resourceVersion":"{v}""#));
    let mut text = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"{namespace}"{version}}},"data":{{"k":""#
    );
    let end = text.len() + size;
    // Marsaglia's xorshift; a seed of 0 would stay 0.
    let mut x = tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while text.len() < end {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        write!(text, "{x:016x}").expect("writing to a String does not fail");
    }
    text.truncate(end);
    text.push_str("\"}}");
    text
}

/// The resourceVersion of one object (not of a list, whose items have their own).
pub(crate) fn version(object: &[u8]) -> Result<&str> {
    const KEY: &[u8] = br#""resourceVersion":""#;
    let rest = find(object, KEY).map(|at| &object[at + KEY.len()..]);
    let version = rest.and_then(|rest| rest.split(|b| *b == b'"').next());
    Ok(std::str::from_utf8(version.context("an object without resourceVersion")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_valid_of_the_size_asked_for_and_different() {
        let parse = |tag| serde_json::from_str::<serde_json::Value>(&body("n", "a", Some("7"), 100, tag)).unwrap();
        let (one, two) = (parse(1), parse(2));
        assert_eq!(one["data"]["k"].as_str().unwrap().len(), 100);
        assert_eq!(one["metadata"], serde_json::json!({"name": "a", "namespace": "n", "resourceVersion": "7"}));
        assert_ne!(one["data"], two["data"]);
    }

    #[test]
    fn versions_are_found() {
        assert_eq!(version(br#"{"metadata":{"resourceVersion":"42","uid":"x"}}"#).unwrap(), "42");
        assert!(version(b"{}").is_err());
    }
}
