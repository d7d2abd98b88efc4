//! YAML bodies: turned into JSON as upstream does before it decodes them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::decode::{Decoded, check_value};
use super::error::{DecodeError, FieldIssue};
use super::table::TypeId;

/// Decodes a YAML body of one document.
///
/// # Errors
/// When the bytes are no YAML or hold a value of a wrong type.
pub fn decode_yaml(bytes: &[u8], ty: TypeId) -> Result<Decoded, DecodeError> {
    let mut duplicates = Vec::new();
    let node = Node { duplicates: &mut duplicates, path: String::new() };
    let value = node
        .deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))
        .map_err(|error| DecodeError::Yaml(error.to_string()))?;
    let mut decoded = check_value(value, ty)?;
    decoded.issues.splice(0..0, duplicates.into_iter().map(|path| FieldIssue::Duplicate { path }));
    Ok(decoded)
}

/// Builds the JSON form of a YAML value: keys become strings, whole floats integers, `<<` is merged.
struct Node<'d> {
    duplicates: &'d mut Vec<String>,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            return Ok((value as i64).into());
        }
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let Some(value) = seq.next_element_seed(Node { duplicates: self.duplicates, path })? else { break };
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = map.next_key_seed(Node { duplicates: &mut Vec::new(), path: String::new() })? {
            let key = match key {
                Value::String(key) => key,
                Value::Null => "null".to_owned(),
                other => other.to_string(),
            };
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let value = map.next_value_seed(Node { duplicates: self.duplicates, path: path.clone() })?;
            if key == "<<" {
                merged.push(value);
            } else if object.insert(key, value).is_some() {
                self.duplicates.push(path);
            }
        }
        merged.into_iter().for_each(|source| merge(&mut object, source));
        Ok(object.into())
    }
}

/// Adds what a merge key brings; keys that are there win.
fn merge(object: &mut Map<String, Value>, source: Value) {
    match source {
        Value::Object(source) => {
            for (key, value) in source {
                object.entry(key).or_insert(value);
            }
        }
        Value::Array(sources) => sources.into_iter().for_each(|source| merge(object, source)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
