//! The way of every request: who asks, whether they may, and who answers.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{CONTENT_LENGTH, WARNING};
use http::request::Parts;
use http::{HeaderValue, Method};
use tokio::time::Instant;

use crate::answer::error_response;
use crate::auth::{Attributes, User};
use crate::deadline;
use crate::error::ApiError;
use crate::handlers::{self, Context};
use crate::negotiate::{Offer, Output};
use crate::paths;
use crate::registry::{Resource, Served};
use crate::request::RequestInfo;
use crate::rest;
use crate::server::ApiServer;
use crate::unread;

impl ApiServer {
    /// The router, for in-process callers: they say who they are by a [`User`] extension.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        let entry = |State(server): State<Arc<Self>>, request: Request| async move { server.dispatch(request).await };
        axum::Router::new().fallback(entry).with_state(Arc::clone(self))
    }

    pub(crate) async fn dispatch(self: Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        let uri = request.uri();
        let info = RequestInfo::parse(request.method(), uri.path(), uri.query());
        let allotted = deadline::allotted(&info, uri.query());
        let _running = self.metrics.begin(&info);
        let head = request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let (body, rest) = unread::lend(body);
        let answer = self.answer(&info, Request::from_parts(parts, body));
        let answered = match allotted {
            Ok(allotted) => deadline::within(allotted, answer).await,
            Err(refused) => Err(refused),
        };
        let response = match answered {
            Ok(response) => response,
            Err(error) => {
                if matches!(error, ApiError::Internal(_)) {
                    tracing::warn!(verb = %info.verb, path = %info.path, %error, "request failed");
                }
                rest.forget().await;
                error_response(&error)
            }
        };
        self.metrics.observe(&info, self.registry.resources(), response.status(), started.elapsed());
        if head { without_body(response) } else { response }
    }

    async fn answer(self: &Arc<Self>, info: &RequestInfo, request: Request) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let user = self.auth.authenticate(&self.registry, &parts)?;
        self.auth.require(&self.registry, &Attributes::of(&user, info))?;
        if !info.is_resource {
            return paths::answer(self, &parts);
        }
        let (resource, served) = self.find(info)?;
        if let Some(handler) = rest::lookup(&info.group, &info.resource, &info.subresource) {
            let request = Request::from_parts(parts, body);
            return handler.handle(self, rest::Call { info: info.clone(), user, request }).await;
        }
        self.answer_stored(resource, served, info, &user, &parts, body).await
    }

    async fn answer_stored(
        self: &Arc<Self>,
        resource: &Resource,
        served: &Served,
        info: &RequestInfo,
        user: &User,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ApiError> {
        let query = parts.uri.query().unwrap_or("");
        let protobuf = served.ty.is_some_and(api::protobuf::supports);
        let output = Output::negotiate(&parts.headers, query, Offer::of_resource(&info.verb, query, protobuf))?;
        let body = match &*info.verb {
            "get" | "list" | "watch" => axum::body::Bytes::new(),
            _ => handlers::read_body(body).await?,
        };
        let cx = Context { server: self, resource, served, info, user, headers: &parts.headers, query, output };
        let mut response = handlers::handle(&cx, body).await?;
        if let Some(warning) = resource.row.deprecation() {
            response.headers_mut().append(WARNING, HeaderValue::from_static(warning));
        }
        Ok(response)
    }

    /// The resource that a request is about, if somebody answers this request for it.
    fn find(&self, info: &RequestInfo) -> Result<(&Resource, &Served), ApiError> {
        let resource = self.registry.resources().get(&info.group, &info.resource).ok_or(ApiError::UnknownPath)?;
        let served = resource.served(&info.version).ok_or(ApiError::UnknownPath)?;
        let row = resource.row;
        let in_namespace = !info.namespace.is_empty();
        let of_namespaces = &*resource.collection == "core/namespaces";
        let across_namespaces = row.namespaced && !in_namespace;
        let misplaced = if row.namespaced {
            across_namespaces && !(info.name.is_empty() && row.verbs.contains(&"list"))
        } else {
            in_namespace && !of_namespaces
        };
        if misplaced {
            return Err(ApiError::UnknownPath);
        }
        let verbs = match info.subresource.as_str() {
            "" => row.verbs,
            name => row.subresources.iter().find(|s| s.name == name).ok_or(ApiError::UnknownPath)?.verbs,
        };
        // Across namespaces there is nothing but reading.
        if across_namespaces && !matches!(&*info.verb, "list" | "watch") {
            return Err(ApiError::MethodNotAllowed);
        }
        // What a proxied server makes of the methods that are no verbs is its own affair.
        if info.subresource == "proxy" || verbs.contains(&&*info.verb) {
            Ok((resource, served))
        } else {
            Err(ApiError::MethodNotAllowed)
        }
    }
}

/// The answer to HEAD: hyper leaves the body out in HTTP/1.1 only, and clients of HTTP/2 hang up on it.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}
