//! Every way in which a request can fail, and its one translation into a `metav1.Status`.
//!
//! Codes, reasons, details and message texts are upstream's: clients branch on them.

use std::fmt;

use api::field;
use api::object::GroupResource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

/// One failed field of an invalid object, or one reason of another failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// For example `FieldValueRequired`; empty when upstream gives none.
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A failed request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{resource} {name:?} not found")]
    NotFound { resource: GroupResource, name: String },
    /// No such path, group, version, resource or subresource.
    #[error("the server could not find the requested resource")]
    UnknownPath,
    #[error("{resource} {name:?} already exists")]
    AlreadyExists { resource: GroupResource, name: String },
    #[error("{resource} {name:?} already exists, the server was not able to generate a unique name for the object")]
    GenerateNameConflict { resource: GroupResource, name: String },
    #[error("Operation cannot be fulfilled on {resource} {name:?}: {detail}")]
    Conflict { resource: GroupResource, name: String, detail: String },
    #[error("{}", invalid_message(.group, .kind, .name, .causes))]
    Invalid { group: String, kind: String, name: String, causes: Vec<Cause> },
    #[error("{0}")]
    BadRequest(String),
    /// A patch that does not apply; upstream keeps the reason to itself.
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable,
    #[error("Unauthorized")]
    Unauthorized,
    #[error("{}", forbidden_message(.resource.as_ref(), .name, .detail))]
    Forbidden { resource: Option<GroupResource>, name: String, detail: String },
    #[error("{action} is not supported on resources of kind \"{resource}\"")]
    MethodNotSupported { resource: GroupResource, action: String },
    /// The method exists nowhere on this path.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    #[error("{0}")]
    NotAcceptable(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    #[error("{0}")]
    Gone(String),
    /// The revision asked for is no longer known; `continue_token` lets a paged list go on from here.
    #[error("{message}")]
    Expired { message: String, continue_token: Option<String> },
    /// The revision asked for lies in the future.
    #[error("Timeout: Too large resource version: {requested}, current: {current}")]
    TooLargeResourceVersion { requested: u64, current: u64 },
    #[error("Timeout: {0}")]
    Timeout(String),
    #[error("The {operation} operation against {resource} could not be completed at this time, please try again.")]
    ServerTimeout { resource: GroupResource, operation: String, retry_after: i32 },
    #[error("{message}")]
    TooManyRequests { message: String, retry_after: i32, causes: Vec<Cause> },
    #[error("Request entity too large: {0}")]
    RequestEntityTooLarge(String),
    #[error("{0}")]
    ServiceUnavailable(String),
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// A failure below the API, told as upstream tells an unknown error: code 500 without a reason.
    #[error("{0}")]
    Unknown(String),
    /// A status made elsewhere, for example by the kubelet, passed on as it is.
    #[error("{}", .0.message.as_deref().unwrap_or_default())]
    Status(Box<Status>),
}

impl ApiError {
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::NotFound { resource: resource.clone(), name: name.to_owned() }
    }

    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, detail: impl fmt::Display) -> Self {
        Self::Conflict { resource: resource.clone(), name: name.to_owned(), detail: detail.to_string() }
    }

    /// The conflict that optimistic locking reports.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, detail: impl fmt::Display) -> Self {
        Self::Forbidden { resource: Some(resource.clone()), name: name.to_owned(), detail: detail.to_string() }
    }

    /// An object that breaks its kind's rules.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> Self {
        Self::Invalid {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            causes: errors.iter().map(Cause::from).collect(),
        }
    }

    #[must_use]
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

/// What was stored cannot be sent in this form.
impl From<api::protobuf::Error> for ApiError {
    fn from(error: api::protobuf::Error) -> Self {
        Self::internal(error)
    }
}

impl From<&field::Error> for Cause {
    fn from(error: &field::Error) -> Self {
        Self { reason: error.kind.reason().to_owned(), message: error.body(), field: error.field.clone() }
    }
}

fn invalid_message(group: &str, kind: &str, name: &str, causes: &[Cause]) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    let head = format!("{kind}{dot}{group} {name:?} is invalid");
    if causes.is_empty() {
        return head;
    }
    let text = |cause: &Cause| match &cause.field {
        field if field.is_empty() => cause.message.clone(),
        field => format!("{field}: {}", cause.message),
    };
    format!("{head}: {}", field::aggregate_texts(causes.iter().map(text)))
}

fn forbidden_message(resource: Option<&GroupResource>, name: &str, detail: &str) -> String {
    match resource {
        None => format!("forbidden: {detail}"),
        Some(r) if name.is_empty() => format!("{r} is forbidden: {detail}"),
        Some(r) => format!("{r} {name:?} is forbidden: {detail}"),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<&Cause> for StatusCause {
    fn from(cause: &Cause) -> Self {
        Self { field: non_empty(&cause.field), message: non_empty(&cause.message), reason: non_empty(&cause.reason) }
    }
}

fn details_of(resource: &GroupResource, name: &str) -> StatusDetails {
    StatusDetails {
        group: non_empty(&resource.group),
        kind: non_empty(&resource.resource),
        name: non_empty(name),
        ..<_>::default()
    }
}

fn retry_after(seconds: i32) -> StatusDetails {
    StatusDetails { retry_after_seconds: Some(seconds), ..<_>::default() }
}

fn causes_of(causes: &[Cause]) -> Option<Vec<StatusCause>> {
    (!causes.is_empty()).then(|| causes.iter().map(StatusCause::from).collect())
}

impl ApiError {
    /// Code, reason and details; the message is `Display`.
    fn parts(&self) -> (u16, &'static str, Option<StatusDetails>) {
        match self {
            Self::NotFound { resource, name } => (404, "NotFound", Some(details_of(resource, name))),
            Self::UnknownPath => (404, "NotFound", Some(StatusDetails::default())),
            Self::AlreadyExists { resource, name } => (409, "AlreadyExists", Some(details_of(resource, name))),
            Self::GenerateNameConflict { resource, name } => {
                let details = StatusDetails { retry_after_seconds: Some(1), ..details_of(resource, name) };
                (409, "AlreadyExists", Some(details))
            }
            Self::Conflict { resource, name, .. } => (409, "Conflict", Some(details_of(resource, name))),
            Self::Invalid { group, kind, name, causes } => {
                let details = details_of(&GroupResource::new(group, kind), name);
                (422, "Invalid", Some(StatusDetails { causes: causes_of(causes), ..details }))
            }
            Self::BadRequest(_) => (400, "BadRequest", None),
            Self::Unprocessable => (422, "Invalid", Some(StatusDetails::default())),
            Self::Unauthorized => (401, "Unauthorized", None),
            Self::Forbidden { resource, name, .. } => {
                let details = resource.as_ref().map(|r| details_of(r, name));
                (403, "Forbidden", Some(details.unwrap_or_default()))
            }
            Self::MethodNotSupported { resource, .. } => (405, "MethodNotAllowed", Some(details_of(resource, ""))),
            Self::MethodNotAllowed => (405, "MethodNotAllowed", Some(StatusDetails::default())),
            Self::NotAcceptable(_) => (406, "NotAcceptable", None),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType", None),
            Self::Gone(_) => (410, "Gone", None),
            Self::Expired { .. } => (410, "Expired", None),
            Self::TooLargeResourceVersion { .. } => (504, "Timeout", Some(too_large_details())),
            Self::Timeout(_) => (504, "Timeout", Some(StatusDetails::default())),
            Self::ServerTimeout { resource, operation, retry_after } => {
                let details = details_of(resource, operation);
                (500, "ServerTimeout", Some(StatusDetails { retry_after_seconds: Some(*retry_after), ..details }))
            }
            Self::TooManyRequests { retry_after: seconds, causes, .. } => {
                (429, "TooManyRequests", Some(StatusDetails { causes: causes_of(causes), ..retry_after(*seconds) }))
            }
            Self::RequestEntityTooLarge(_) => (413, "RequestEntityTooLarge", None),
            Self::ServiceUnavailable(_) => (503, "ServiceUnavailable", None),
            Self::Internal(message) => {
                let cause = StatusCause { message: Some(message.clone()), ..<_>::default() };
                (500, "InternalError", Some(StatusDetails { causes: Some(vec![cause]), ..<_>::default() }))
            }
            Self::Unknown(_) => (500, "", None),
            Self::Status(status) => {
                (u16::try_from(status.code.unwrap_or(500)).unwrap_or(500), "", status.details.clone())
            }
        }
    }
}

fn too_large_details() -> StatusDetails {
    let cause = StatusCause {
        reason: Some("ResourceVersionTooLarge".into()),
        message: Some("Too large resource version".into()),
        field: None,
    };
    StatusDetails { causes: Some(vec![cause]), ..retry_after(1) }
}

impl From<&ApiError> for Status {
    fn from(error: &ApiError) -> Self {
        if let ApiError::Status(status) = error {
            return (**status).clone();
        }
        let (code, reason, details) = error.parts();
        let mut metadata = ListMeta::default();
        if let ApiError::Expired { continue_token, .. } = error {
            metadata.continue_.clone_from(continue_token);
        }
        Self {
            code: Some(i32::from(code)),
            details,
            message: Some(error.to_string()),
            metadata,
            reason: non_empty(reason),
            status: Some("Failure".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: &ApiError, code: i32, reason: &str, message: &str) {
        let status = Status::from(error);
        assert_eq!(
            (status.code, status.reason.as_deref().unwrap_or(""), status.message.as_deref().unwrap_or("")),
            (Some(code), reason, message)
        );
    }

    #[test]
    fn texts_are_upstreams() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        check(&ApiError::not_found(&deployments, "x"), 404, "NotFound", "deployments.apps \"x\" not found");
        check(
            &ApiError::modified(&pods, "x"),
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to \
             the latest version and try again",
        );
        check(&ApiError::forbidden(&pods, "", "no"), 403, "Forbidden", "pods is forbidden: no");
        check(&ApiError::internal("x"), 500, "InternalError", "Internal error occurred: x");
        check(
            &ApiError::TooLargeResourceVersion { requested: 9, current: 3 },
            504,
            "Timeout",
            "Timeout: Too large resource version: 9, current: 3",
        );
    }

    #[test]
    fn several_causes_stand_in_brackets_once_each() {
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired".into(),
            message: "Required value".into(),
            field: field.into(),
        };
        let invalid = |causes| ApiError::Invalid { group: String::new(), kind: "Pod".into(), name: "x".into(), causes };
        check(&invalid(vec![cause("a")]), 422, "Invalid", "Pod \"x\" is invalid: a: Required value");
        check(
            &invalid(vec![cause("a"), cause("b"), cause("a")]),
            422,
            "Invalid",
            "Pod \"x\" is invalid: [a: Required value, b: Required value]",
        );
        let status = Status::from(&invalid(vec![cause("a")]));
        assert_eq!(status.details.and_then(|d| d.causes).map(|c| c.len()), Some(1));
    }
}
