//! PATCH of an object or its status.

use api::patch::{self, PatchError};
use api::schema;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::body::{Target, check_type, content_type, judge_issues};
use super::context::Context;
use super::options::{FieldValidation, WriteOptions};
use super::{respond, rules, update};
use crate::error::{ApiError, Cause};
use crate::negotiate::unsupported_media_type;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

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
    pub(super) fn apply(self, object: &Value, body: &[u8], ty: schema::TypeId) -> Result<Value, ApiError> {
        match self {
            Self::Json => patch::json_patch(object, body),
            Self::Merge => patch::merge_patch(object, body),
            Self::Strategic => patch::strategic_merge_patch(object, body, ty),
        }
        .map_err(refused)
    }

    /// What an error shows: the whole object as it would be, but of a strategic merge only the patch.
    fn shown(self, patched: &Value, body: &[u8]) -> String {
        match self {
            Self::Json | Self::Merge => patched.to_string(),
            Self::Strategic => serde_json::from_slice(body).map_or_else(|_| String::new(), |p| patch::go_text(&p)),
        }
    }
}

fn refused(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::BadRequest(text),
        PatchError::TooManyOperations { .. } => ApiError::RequestEntityTooLarge(error.to_string()),
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
        let current = rules::to_served(cx, old.clone())?;
        let ty = cx.served.ty.ok_or(ApiError::UnknownPath)?;
        let patched = patch_type.apply(&current, body, ty)?;
        let shown = patch_type.shown(&patched, body);
        if patch_type != PatchType::Strategic {
            check_type(&patched, Target::object(cx)).map_err(|error| invalid_patch(&shown, &error))?;
        }
        let decoded = schema::check_value(patched, ty).map_err(|e| invalid_patch(&shown, &e.to_string()))?;
        let mut issues = duplicates.clone();
        issues.extend(decoded.issues);
        dropped.clear();
        judge_issues(&issues, options.field_validation, &mut dropped, |error| invalid_patch(&shown, &error))?;
        let mut value = decoded.value;
        keep_type(&current, &mut value);
        rules::to_stored(cx, value)
    };
    let updated = update::update(cx, &options, &mut warnings, &mut change).await?;
    warnings.extend(dropped);
    respond::object(cx, StatusCode::OK, &updated, &warnings)
}

/// Upstream decodes the patched object into the type that it had, from whichever version it names.
fn keep_type(current: &Value, patched: &mut Value) {
    if let Some(object) = patched.as_object_mut() {
        for member in ["apiVersion", "kind"] {
            object.insert(member.into(), current[member].clone());
        }
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
