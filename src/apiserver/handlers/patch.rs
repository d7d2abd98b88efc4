//! PATCH of an object or its status.

use api::patch::{self, PatchError};
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

    /// Applies a patch to an object of the requested version; the result is not checked.
    pub(super) fn apply(self, object: Value, body: &[u8], ty: schema::TypeId) -> Result<Value, ApiError> {
        match self {
            Self::Json => patch::json_patch(object, body),
            Self::Merge => patch::merge_patch(object, body),
            Self::Strategic => patch::strategic_merge_patch(object, body, ty),
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
    let duplicates = match options.field_validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => patch::duplicate_fields(body).map_err(refused)?,
    };
    let mut dropped = Vec::new();
    let mut change = |old: &Value| -> Result<Value, ApiError> {
        let ty = cx.served.ty.ok_or(ApiError::UnknownPath)?;
        let current = rules::to_served(cx, old.clone())?;
        let type_meta = ["apiVersion", "kind"].map(|member| (member, current[member].clone()));
        let patched = patch_type.apply(current, body, ty)?;
        let invalid = |error: &str| invalid_patch(&shown(cx, patch_type, old, body, ty), error);
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
/// the patch. The object is made anew, so that a patch that is not refused does not pay for it.
fn shown(cx: &Context<'_>, patch_type: PatchType, old: &Value, body: &[u8], ty: schema::TypeId) -> String {
    let mut text = match patch_type {
        PatchType::Json | PatchType::Merge => rules::to_served(cx, old.clone())
            .and_then(|current| patch_type.apply(current, body, ty))
            .map_or_else(|_| String::new(), |patched| patched.to_string()),
        PatchType::Strategic => serde_json::from_slice(body).map_or_else(|_| String::new(), |p| patch::go_text(&p)),
    };
    if text.len() > SHOWN_MAX {
        text.truncate((0..=SHOWN_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

fn invalid_patch(patched: &str, error: &str) -> ApiError {
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {patched:?}: {error}"),
        field: "patch".into(),
    };
    ApiError::Invalid { group: String::new(), kind: String::new(), name: String::new(), causes: vec![cause] }
}
