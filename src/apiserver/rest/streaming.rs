//! `pods/exec`, `pods/attach` and `pods/portforward`: sessions with a container, tunnelled to the
//! kubelet, which speaks their protocols.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use super::kubelet::path_uri;
use super::log::{ERROR_LIMIT, pod_of};
use super::tunnel::is_upgrade;
use super::{Call, SpecialHandler, container};
use crate::error::ApiError;
use crate::receiving::read_bounded;
use crate::request::{encode_query, parse_bool, query_pairs};
use crate::server::ApiServer;

pub(super) enum Handler {
    Exec,
    Attach,
    PortForward,
}

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let pod = pod_of(server, &call)?;
        let query = call.request.uri().query().unwrap_or("").to_owned();
        let target = match self {
            Self::Exec | Self::Attach => {
                let named = query_pairs(&query).find(|(k, _)| k == "container").map(|(_, v)| v);
                Some(container::choose(&pod, &named.unwrap_or_default())?)
            }
            Self::PortForward => None,
        };
        let name = &call.info.name;
        let node = pod.spec.node_name;
        if node.is_empty() {
            return Err(ApiError::BadRequest(format!("pod {name} does not have a host assigned")));
        }
        if !is_upgrade(call.request.headers()) {
            return Err(ApiError::BadRequest("Upgrade request required".to_owned()));
        }
        let base = format!("{}/{}/{name}", self.path(), call.info.namespace);
        let path = target.map_or_else(|| base.clone(), |container| format!("{base}/{container}"));
        let mut request = call.request;
        *request.uri_mut() = path_uri(&path, &encode_query(&self.parameters(&query)?))?;
        let response = server.kubelets.send(server, &node, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS { Ok(response) } else { refused(response).await }
    }
}

/// The kubelet's refusal, in its own words as upstream passes it on.
///
/// Clients look for an object in the text before they print it, and take `a: b` for one in YAML that says
/// nothing: such words go into a status.
async fn refused(response: Response) -> Result<Response, ApiError> {
    let (mut parts, body) = response.into_parts();
    let read = read_bounded(body, ERROR_LIMIT).await;
    let text = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    if parts.status.is_success() || !is_taken_for_object(&text) {
        parts.headers.remove(CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, Body::from(text)));
    }
    let reason = match parts.status {
        StatusCode::BAD_REQUEST => Some("BadRequest"),
        StatusCode::UNAUTHORIZED => Some("Unauthorized"),
        StatusCode::FORBIDDEN => Some("Forbidden"),
        StatusCode::NOT_FOUND => Some("NotFound"),
        StatusCode::INTERNAL_SERVER_ERROR => Some("InternalError"),
        _ => None,
    };
    Err(ApiError::Status(Box::new(Status {
        status: Some("Failure".to_owned()),
        message: Some(format!("unable to upgrade connection: {}", text.trim_end())),
        reason: reason.map(str::to_owned),
        code: Some(i32::from(parts.status.as_u16())),
        ..Status::default()
    })))
}

fn is_taken_for_object(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.contains(": ") || text.contains(":\n") || text.ends_with(':') || text.starts_with('{')
}

impl Handler {
    fn path(&self) -> &'static str {
        match self {
            Self::Exec => "/exec",
            Self::Attach => "/attach",
            Self::PortForward => "/portForward",
        }
    }

    /// The kubelet's names for what the client asks.
    fn parameters(&self, query: &str) -> Result<Vec<(String, String)>, ApiError> {
        let mut parameters = Vec::new();
        let mut streams = 0;
        for (key, value) in query_pairs(query) {
            let renamed = match (self, key.as_str()) {
                (Self::Exec | Self::Attach, "stdin") => "input",
                (Self::Exec | Self::Attach, "stdout") => "output",
                (Self::Exec | Self::Attach, "stderr") => "error",
                (Self::Exec | Self::Attach, "tty") => "tty",
                (Self::Exec, "command") => {
                    parameters.push((key, value));
                    continue;
                }
                (Self::PortForward, "ports") => {
                    parameters.push(("port".to_owned(), value));
                    continue;
                }
                _ => continue,
            };
            if parse_bool(&value) {
                streams += usize::from(renamed != "tty");
                parameters.push((renamed.to_owned(), "1".to_owned()));
            }
        }
        let has_command = parameters.iter().any(|(k, _)| k == "command");
        if matches!(self, Self::Exec) && !has_command {
            return Err(ApiError::BadRequest("you must specify at least one command for the container".to_owned()));
        }
        if !matches!(self, Self::PortForward) && streams == 0 {
            return Err(ApiError::BadRequest("you must specify at least one of stdin, stdout, stderr".to_owned()));
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[track_caller]
    fn check(handler: &Handler, query: &str, expected: Result<&str, &str>) {
        let got = handler.parameters(query).map(|p| encode_query(&p)).map_err(|e| e.to_string());
        assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{query}");
    }

    #[tokio::test]
    async fn a_refusal_reaches_the_client_as_text() {
        let check = async |code: u16, text: &'static str, expected: Result<&str, &str>| {
            let response = http::Response::builder().status(code).body(Body::from(text)).unwrap();
            let got = match refused(response).await {
                Ok(response) => {
                    assert_eq!(response.status().as_u16(), code);
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    Ok(String::from_utf8(body.to_vec()).unwrap())
                }
                Err(error) => {
                    let status = Status::from(&error);
                    assert_eq!(status.code, Some(i32::from(code)));
                    Err(status.message.unwrap_or_default())
                }
            };
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        };
        check(500, "container not found (\"web\")", Ok("container not found (\"web\")")).await;
        check(
            501,
            "SPDY is not served: use a WebSocket",
            Err("unable to upgrade connection: SPDY is not served: use a WebSocket"),
        )
        .await;
        check(403, "", Err("unable to upgrade connection: ")).await;
        check(404, "{\"a\": 1}\n", Err("unable to upgrade connection: {\"a\": 1}")).await;
    }

    #[test]
    fn parameters_get_the_kubelets_names() {
        check(
            &Handler::Exec,
            "command=sh&command=-c&container=c&stdin=true&stdout=true&stderr=false&tty=true",
            Ok("command=sh&command=-c&input=1&output=1&tty=1"),
        );
        check(&Handler::Attach, "stdout=true&command=x", Ok("output=1"));
        check(&Handler::PortForward, "ports=80,81", Ok("port=80%2C81"));
        check(&Handler::Exec, "stdout=true", Err("you must specify at least one command for the container"));
        check(&Handler::Exec, "command=ls", Err("you must specify at least one of stdin, stdout, stderr"));
    }
}
