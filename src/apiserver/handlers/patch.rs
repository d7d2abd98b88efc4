//! PATCH of an object or its status.

use std::io;

use api::patch::{self, Patch, PatchError};
use api::schema;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::body::{Target, check_type, content_type, judge_issues, too_large};
use super::context::Context;
use super::options::{FieldValidation, WriteOptions};
use super::{respond, rules, update};
use crate::error::{ApiError, Cause};
use crate::negotiate::unsupported_media_type;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Bytes that an error shows of a refused object. They stand in the answer twice, with every quote escaped.
const SHOWN_MAX: usize = 64 * 1024;

/// The forms of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
}

impl PatchType {
    pub(super) fn of(cx: &Context<'_>) -> Result<Self, ApiError> {
        match content_type(cx.headers) {
            JSON_PATCH => Ok(Self::Json),
            MERGE_PATCH => Ok(Self::Merge),
            STRATEGIC => Ok(Self::Strategic),
            _ => Err(unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC])),
        }
    }

    /// Reads a patch and applies it to an object of the requested version; the result is not checked.
    pub(super) fn apply(self, object: Value, body: &[u8], ty: schema::TypeId) -> Result<Value, ApiError> {
        let patch = Patch::read(body).map_err(|error| match error {
            // Upstream's library says nothing else of a body that it cannot use.
            PatchError::Malformed(_) if self == Self::Merge => ApiError::BadRequest("Invalid JSON Patch".into()),
            other => refused(other),
        })?;
        self.apply_read(object, patch, ty)
    }

    fn apply_read(self, object: Value, patch: Patch, ty: schema::TypeId) -> Result<Value, ApiError> {
        match self {
            Self::Json => patch::json_patch(object, patch),
            Self::Merge => patch::merge_patch(object, patch),
            Self::Strategic => patch::strategic_merge_patch(object, patch, ty),
        }
        .map_err(refused)
    }
}

fn refused(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::BadRequest(text),
        PatchError::TooManyOperations { .. } => ApiError::RequestEntityTooLarge(error.to_string()),
        PatchError::TooLarge(text) => ApiError::RequestEntityTooLarge(text),
        PatchError::DoesNotApply(_) => ApiError::Unprocessable,
        PatchError::Failed(text) => ApiError::Unknown(text),
    }
}

pub(super) async fn patch(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let patch_type = PatchType::of(cx)?;
    let options = WriteOptions::parse(cx.query, "PatchOptions")?;
    let mut warnings = Vec::new();
    let mut read = match options.field_validation {
        FieldValidation::Ignore => None,
        FieldValidation::Warn | FieldValidation::Strict => Some(Patch::read(body).map_err(refused)?),
    };
    let duplicates = read.as_ref().map(|patch| patch.duplicates().to_vec()).unwrap_or_default();
    let mut dropped = Vec::new();
    let mut change = |old: &Value| -> Result<Value, ApiError> {
        let ty = cx.served.ty.ok_or(ApiError::UnknownPath)?;
        let current = rules::to_served(cx, old.clone())?;
        let type_meta = ["apiVersion", "kind"].map(|member| (member, current[member].clone()));
        // Only where somebody else wrote meanwhile is the body read again.
        let patched = match read.take() {
            Some(patch) => patch_type.apply_read(current, patch, ty)?,
            None => patch_type.apply(current, body, ty)?,
        };
        let shown = Shown::of(patch_type, &patched);
        let invalid = |error: &str| invalid_patch(&shown.text(body), error);
        if patch_type != PatchType::Strategic {
            check_type(&patched, Target::object(cx)).map_err(|error| invalid(&error))?;
        }
        let decoded =
            schema::check_value(patched, ty).map_err(|e| too_large(&e).unwrap_or_else(|| invalid(&e.to_string())))?;
        let mut issues = duplicates.clone();
        issues.extend(decoded.issues);
        dropped.clear();
        judge_issues(&issues, options.field_validation, &mut dropped, |error| invalid(&error))?;
        let mut value = decoded.value;
        keep_type(type_meta, &mut value);
        rules::to_stored(cx, value)
    };
    let updated = update::update(cx, &options, &mut warnings, &mut change).await?;
    warnings.extend(dropped);
    respond::object(cx, StatusCode::OK, &updated, &warnings)
}

/// Upstream decodes the patched object into the type that it had, from whichever version it names.
fn keep_type(type_meta: [(&str, Value); 2], patched: &mut Value) {
    if let Some(object) = patched.as_object_mut() {
        object.extend(type_meta.map(|(member, value)| (member.to_owned(), value)));
    }
}

/// What an error shows of a refused patch: the whole object as it would be, but of a strategic merge only
/// the patch.
///
/// The object is written down before it is checked, which takes it apart, and no further than it is shown:
/// applying the patch once more would double what a patch may cost.
enum Shown {
    Object(Beginning),
    Patch,
}

impl Shown {
    fn of(patch_type: PatchType, patched: &Value) -> Self {
        if patch_type == PatchType::Strategic {
            return Self::Patch;
        }
        let mut beginning = Beginning::default();
        // Its one error is that there is more than is shown.
        let _ = serde_json::to_writer(&mut beginning, patched);
        Self::Object(beginning)
    }

    fn text(&self, body: &[u8]) -> String {
        match self {
            Self::Object(beginning) => cut(String::from_utf8_lossy(&beginning.0).into_owned()),
            Self::Patch => cut(serde_json::from_slice(body).map_or_else(|_| String::new(), |p| patch::go_text(&p))),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN_MAX {
        text.truncate((0..=SHOWN_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// The first bytes that are written to it: enough to be cut.
#[derive(Default)]
struct Beginning(Vec<u8>);

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A character is up to four bytes, and the last one may be cut in two.
        const ROOM: usize = SHOWN_MAX + 8;
        let taken = bytes.len().min(ROOM - self.0.len());
        self.0.extend_from_slice(&bytes[..taken]);
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid_patch(patched: &str, error: &str) -> ApiError {
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {patched:?}: {error}"),
        field: "patch".into(),
    };
    ApiError::Invalid { group: String::new(), kind: String::new(), name: String::new(), causes: vec![cause] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_object_is_written_no_further_than_it_is_shown() {
        let small = json!({"a": "é"});
        assert_eq!(Shown::of(PatchType::Merge, &small).text(b""), small.to_string());
        let large = json!(["é".repeat(SHOWN_MAX), vec![0; 1_000_000]]);
        let Shown::Object(beginning) = Shown::of(PatchType::Json, &large) else { panic!("not the object") };
        assert!(beginning.0.len() <= SHOWN_MAX + 8, "{}", beginning.0.len());
        let text = Shown::Object(beginning).text(b"");
        assert_eq!(text, cut(large.to_string()));
        assert!(text.ends_with("é..."));
        let patch = br#"{"b":[1,null]}"#;
        assert_eq!(Shown::of(PatchType::Strategic, &large).text(patch), "map[b:[1 <nil>]]");
    }
}
