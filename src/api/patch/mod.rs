//! The three patches that the API takes: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and
//! Kubernetes' strategic merge patch, which knows the schema.
//!
//! Each takes the object as its clients see it and answers the patched one, unchecked: the caller runs
//! [`crate::schema::check_value`] on the answer. Input is bounded: operations and copies of a JSON patch
//! as upstream bounds them, elements of lists that are moved or merged, size and nesting by the decoder.

mod json;
mod merge;
mod strategic;
mod strategic_list;

use serde_json::Value;

use crate::schema::{self, FieldIssue};

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

/// Why a patch was refused; the variants are the statuses that upstream answers with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: the body is no patch.
    #[error("{0}")]
    Malformed(String),
    /// 413.
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {found}")]
    TooManyOperations { limit: usize, found: usize },
    /// 413: what the patch or the object that it makes would take in memory or time.
    #[error("{0}")]
    TooLarge(String),
    /// 422: the patch does not apply to this object.
    #[error("{0}")]
    DoesNotApply(String),
    /// 500, which is what upstream answers for the rest.
    #[error("{0}")]
    Failed(String),
}

/// The body of a patch. It is read once, however often it is applied.
#[derive(Clone, Debug)]
pub struct Patch {
    value: Value,
    duplicates: Vec<FieldIssue>,
}

impl Patch {
    /// Reads a body of any of the three forms.
    ///
    /// # Errors
    /// When it is no JSON, or takes too much memory.
    pub fn read(body: &[u8]) -> Result<Self, PatchError> {
        let decoded = schema::decode_any(body).map_err(|error| {
            let text = error.to_string();
            if error.is_too_large() { PatchError::TooLarge(text) } else { PatchError::Malformed(text) }
        })?;
        Ok(Self { value: decoded.value, duplicates: decoded.issues })
    }

    /// The members that stand twice, for field validation.
    #[must_use]
    pub fn duplicates(&self) -> &[FieldIssue] {
        &self.duplicates
    }
}

/// A value as Go's `%v` prints it.
#[must_use]
pub fn go_text(value: &Value) -> String {
    let mut text = String::new();
    write_go(value, &mut text);
    text
}

fn write_go(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => out.push_str(s),
        Value::Array(list) => {
            out.push('[');
            for (i, element) in list.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { " " });
                write_go(element, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, (key, member)) in map.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { " " });
                out.push_str(key);
                out.push(':');
                write_go(member, out);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests;
