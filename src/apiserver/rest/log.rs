//! `pods/log`: what a container wrote, as it is written when it is followed; over HTTP, or over a
//! WebSocket, which is tunnelled to the kubelet.

use std::sync::Arc;

use api::field::{self, ErrorList, Path};
use api::object::{GroupResource, ObjectKey};
use async_trait::async_trait;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusDetails};

use super::kubelet::path_uri;
use super::tunnel::is_upgrade;
use super::{Call, SpecialHandler, container};
use crate::error::ApiError;
use crate::receiving::read_bounded;
use crate::request::{encode_query, parse_bool, query_pairs};
use crate::server::ApiServer;

/// Upstream reads no more of a kubelet's error.
pub(super) const ERROR_LIMIT: usize = 50_000;

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let pod = pod_of(server, &call)?;
        let options = Options::parse(call.request.uri().query().unwrap_or(""))?;
        let container = container::choose(&pod, &options.container)?;
        let node = pod.spec.node_name;
        if node.is_empty() {
            // A pod without a node has written nothing.
            return Ok(StatusCode::OK.into_response());
        }
        let path = format!("/containerLogs/{}/{}/{container}", call.info.namespace, call.info.name);
        let uri = path_uri(&path, &encode_query(&options.forwarded))?;
        let request = if is_upgrade(call.request.headers()) {
            let mut request = call.request;
            *request.uri_mut() = uri;
            request
        } else {
            Request::get(uri).body(Body::empty()).map_err(ApiError::internal)?
        };
        let response = server.kubelets.send(server, &node, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        if !response.status().is_success() {
            return Err(refused(response, &call.info.name).await);
        }
        let mut answer = response.into_body().into_response();
        answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        Ok(answer)
    }
}

/// The pod that a request is about.
pub(super) fn pod_of(server: &ApiServer, call: &Call) -> Result<container::Pod, ApiError> {
    let pods = GroupResource::new("", "pods");
    let key = ObjectKey::new(&call.info.namespace, &call.info.name);
    let pod = server.registry.get(&pods, &key).ok_or_else(|| ApiError::not_found(&pods, &call.info.name))?;
    pod.decode().map_err(ApiError::internal)
}

/// The kubelet's refusal, as upstream passes it on.
async fn refused(response: Response, name: &str) -> ApiError {
    let code = response.status();
    let body = read_bounded(response.into_body(), ERROR_LIMIT).await;
    let text = body.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    match code {
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        StatusCode::BAD_REQUEST => ApiError::BadRequest(text),
        _ => {
            let (reason, message) = match code {
                StatusCode::NOT_FOUND => ("NotFound", "the server could not find the requested resource".to_owned()),
                StatusCode::FORBIDDEN => ("Forbidden", text),
                StatusCode::UNAUTHORIZED => {
                    ("Unauthorized", "the server has asked for the client to provide credentials".to_owned())
                }
                _ => (
                    "",
                    format!(
                        "the server responded with the status code {} but did not return more information",
                        code.as_u16()
                    ),
                ),
            };
            ApiError::Status(Box::new(Status {
                code: Some(i32::from(code.as_u16())),
                message: Some(format!("{message} ( pods/log {name})")),
                reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
                status: Some("Failure".to_owned()),
                details: Some(StatusDetails {
                    kind: Some("pods/log".to_owned()),
                    name: Some(name.to_owned()),
                    ..StatusDetails::default()
                }),
                ..Status::default()
            }))
        }
    }
}

/// `PodLogOptions`, as far as they are ours; the rest goes to the kubelet.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    container: String,
    forwarded: Vec<(String, String)>,
}

impl Options {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut options = Self { container: String::new(), forwarded: Vec::new() };
        let mut errors = ErrorList::new();
        let mut since = Vec::new();
        for (key, value) in query_pairs(query) {
            match key.as_str() {
                "container" => options.container = value,
                "follow" | "previous" | "timestamps" if parse_bool(&value) => {
                    options.forwarded.push((key, "true".to_owned()));
                }
                "tailLines" | "sinceSeconds" | "limitBytes" => {
                    let number: i64 = value.parse().map_err(|_| {
                        ApiError::BadRequest(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
                    })?;
                    judge_number(&key, number, &mut errors);
                    if key == "sinceSeconds" {
                        since.push(key.clone());
                    }
                    options.forwarded.push((key, number.to_string()));
                }
                "sinceTime" => {
                    since.push(key.clone());
                    options.forwarded.push((key, value));
                }
                "stream" => {
                    if !matches!(value.as_str(), "All" | "Stdout" | "Stderr") {
                        let path = Path::new("stream");
                        errors.push(field::not_supported(&path, &value, &["All", "Stderr", "Stdout"]));
                    }
                    options.forwarded.push((key, value));
                }
                _ => {}
            }
        }
        if since.len() > 1 {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(field::forbidden(&Path::nil(), detail));
        }
        if errors.is_empty() { Ok(options) } else { Err(ApiError::invalid("", "PodLogOptions", "", &errors)) }
    }
}

fn judge_number(key: &str, number: i64, errors: &mut ErrorList) {
    let path = Path::new(key);
    match key {
        "tailLines" if number < 0 => {
            errors.push(field::invalid(&path, &number, "must be greater than or equal to 0"));
        }
        "sinceSeconds" | "limitBytes" if number < 1 => {
            errors.push(field::invalid(&path, &number, "must be greater than 0"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<(&str, &str), &str>) {
        let got = Options::parse(query).map(|o| (o.container, encode_query(&o.forwarded))).map_err(|e| e.to_string());
        let expected = expected.map(|(c, f)| (c.to_owned(), f.to_owned())).map_err(str::to_owned);
        assert_eq!(got, expected, "{query}");
    }

    #[test]
    fn options_are_checked_and_forwarded() {
        check("container=c&follow=true&timestamps=false", Ok(("c", "follow=true")));
        check("tailLines=10&sinceSeconds=5", Ok(("", "tailLines=10&sinceSeconds=5")));
        check(
            "tailLines=-1",
            Err("PodLogOptions \"\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"),
        );
        check("tailLines=x", Err("strconv.ParseInt: parsing \"x\": invalid syntax"));
    }
}
