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

/// The members that stand twice in a patch body, for field validation.
///
/// # Errors
/// When the body is no JSON.
pub fn duplicate_fields(patch: &[u8]) -> Result<Vec<FieldIssue>, PatchError> {
    schema::decode_any(patch).map(|decoded| decoded.issues).map_err(|error| unreadable(&error))
}

fn unreadable(error: &schema::DecodeError) -> PatchError {
    match error {
        schema::DecodeError::TooLarge { .. } => PatchError::TooLarge(error.to_string()),
        other => PatchError::Malformed(other.to_string()),
    }
}

fn parse(patch: &[u8]) -> Result<Value, PatchError> {
    schema::decode_any(patch).map(|decoded| decoded.value).map_err(|error| unreadable(&error))
}

/// A value as Go's `%v` prints it.
#[must_use]
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

#[cfg(test)]
mod tests;
