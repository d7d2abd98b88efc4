//! A `metav1.Status` as text, its members in upstream's order: people read it, and some clients print
//! it as it came.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ordered<'s> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'s ListMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'s str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<i32>,
}

#[derive(Serialize)]
struct Cause<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'s str>,
}

impl<'s> Ordered<'s> {
    fn of(status: &'s Status) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: &status.metadata,
            status: status.status.as_deref(),
            message: status.message.as_deref(),
            reason: status.reason.as_deref(),
            details: status.details.as_ref().map(Details::of),
            code: status.code,
        }
    }
}

impl<'s> Details<'s> {
    fn of(details: &'s StatusDetails) -> Self {
        Self {
            name: details.name.as_deref(),
            group: details.group.as_deref(),
            kind: details.kind.as_deref(),
            uid: details.uid.as_deref(),
            causes: details.causes.iter().flatten().map(Cause::of).collect(),
            retry_after_seconds: details.retry_after_seconds,
        }
    }
}

impl<'s> Cause<'s> {
    fn of(cause: &'s StatusCause) -> Self {
        Self { reason: cause.reason.as_deref(), message: cause.message.as_deref(), field: cause.field.as_deref() }
    }
}

/// The status that a value is, if it is one.
pub(crate) fn of_value(value: &Value) -> Option<Status> {
    if value["kind"] == "Status" && value["apiVersion"] == "v1" { Status::deserialize(value).ok() } else { None }
}

/// The status as JSON.
pub(crate) fn json(status: &Status) -> Vec<u8> {
    serde_json::to_vec(&Ordered::of(status)).expect("invariant: a status serializes")
}

/// The status as JSON for people.
pub(crate) fn pretty(status: &Status) -> Vec<u8> {
    serde_json::to_vec_pretty(&Ordered::of(status)).expect("invariant: a status serializes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    #[test]
    fn members_stand_in_upstreams_order() {
        let pods = api::object::GroupResource::new("apps", "deployments");
        let text = |error: &ApiError| String::from_utf8(json(&Status::from(error))).unwrap();
        assert_eq!(
            text(&ApiError::not_found(&pods, "x")),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
             \"message\":\"deployments.apps \\\"x\\\" not found\",\"reason\":\"NotFound\",\
             \"details\":{\"name\":\"x\",\"group\":\"apps\",\"kind\":\"deployments\"},\"code\":404}"
        );
        let cause = crate::error::Cause { reason: "R".into(), message: "m".into(), field: "f".into() };
        let full = ApiError::TooManyRequests { message: "t".into(), retry_after: 1, causes: vec![cause] };
        assert_eq!(
            text(&full),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"t\",\
             \"reason\":\"TooManyRequests\",\"details\":{\"causes\":[{\"reason\":\"R\",\"message\":\"m\",\
             \"field\":\"f\"}],\"retryAfterSeconds\":1},\"code\":429}"
        );
        assert_eq!(
            text(&ApiError::UnknownPath),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"the server \
             could not find the requested resource\",\"reason\":\"NotFound\",\"details\":{},\"code\":404}"
        );
    }
}
