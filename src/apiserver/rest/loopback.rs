//! Requests of the server to itself: through the whole router, as `system:apiserver`.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;
use tower::ServiceExt;

use crate::auth::User;
use crate::auth::user::act_as;
use crate::error::ApiError;
use crate::receiving::read_bounded;
use crate::server::ApiServer;

/// Sends an object (or `null` for none) and returns the answer's object.
pub(crate) async fn send(
    server: &Arc<ApiServer>,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<Value, ApiError> {
    let body = if object.is_null() { Body::empty() } else { Body::from(object.to_string()) };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(ApiError::internal)?;
    act_as(request.extensions_mut(), Arc::new(User::loopback()));
    let response = match server.router().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let success = response.status().is_success();
    let broken = |why| ApiError::internal(format!("an answer of this server to itself: {why:?}"));
    let bytes = read_bounded(response.into_body(), usize::MAX).await.map_err(broken)?;
    if success {
        return serde_json::from_slice(&bytes).map_err(ApiError::internal);
    }
    let status: Status = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    Err(ApiError::Status(Box::new(status)))
}
