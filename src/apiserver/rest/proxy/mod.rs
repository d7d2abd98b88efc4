//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP and WebSockets through the API server.
//!
//! Whatever the method, the request goes to the server behind the object and its answer comes back;
//! only links that would lead around the proxy are put right. [`target`] chooses the server, [`dial`]
//! reaches it, [`answer`] and [`links`] mend what it says.

mod answer;
mod links;
mod pages;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::dial::{self, Guard, Peer};
use super::kubelet::path_uri;
use super::{Call, SpecialHandler, tunnel};
use crate::error::ApiError;
use crate::listener::ClientAddress;
use crate::room;
use crate::server::ApiServer;
use answer::Mender;
use links::Links;
pub(crate) use pages::Pages;
use target::{Address, Requested, Scheme, Target};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub(super) enum Handler {
    Node,
    Pod,
    Service,
}

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let Call { info, user, mut request } = call;
        let requested = Requested::parse(&info.name)
            .ok_or_else(|| ApiError::BadRequest(format!("invalid {} request {:?}", self.kind(), info.name)))?;
        let target = match self {
            Self::Node => target::of_node(&server.registry, &requested)?,
            Self::Pod => target::of_pod(&server.registry, &info.namespace, &requested)?,
            Self::Service => target::of_service(&server.registry, &info.namespace, &requested)?,
        };
        let addresses = match &target {
            Target::Kubelet { .. } => Vec::new(),
            Target::Address(to) => Guard(&server.config).resolve(Peer::Any, &to.host, to.port).await?,
        };
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or("").to_owned();
        let upgrade = tunnel::is_upgrade(request.headers());
        let (prefix, rest) = split_path(&path, matches!(self, Self::Node));
        if rest.is_empty() && !upgrade && matches!(*request.method(), Method::GET | Method::HEAD) {
            // Relative links in what is proxied need the slash.
            let location = format!("{path}/{}", if query.is_empty() { String::new() } else { format!("?{query}") });
            return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response());
        }
        let links = Links { prefix: prefix.to_owned(), backend: target.authority(), asked: asked_host(&request) };
        let links = Arc::new(links);
        announce(&mut request, &path, &links)?;
        *request.uri_mut() = path_uri(if rest.is_empty() { "/" } else { rest }, &query)?;
        let response = match target {
            Target::Kubelet { node, .. } => server.kubelets.send(server, &node, request).await?,
            Target::Address(target) => send(server, &target, &addresses, request).await?,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            Ok(response)
        } else {
            let mender = Mender { room: &server.room, pages: &server.pages, turn: room::turn(&user) };
            answer::mend(&mender, response, &links).await
        }
    }
}

impl Handler {
    fn kind(&self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
        }
    }
}

async fn send(
    server: &ApiServer,
    target: &Address,
    addresses: &[SocketAddr],
    request: Request,
) -> Result<Response, ApiError> {
    let failed =
        |error: &dyn std::fmt::Display| ApiError::ServiceUnavailable(format!("error trying to reach service: {error}"));
    let stream = dial::tcp(addresses).await.map_err(|e| failed(&e))?;
    match target.scheme {
        Scheme::Http => tunnel::forward(stream, request, &server.tunnels).await.map_err(|e| failed(&e)),
        Scheme::Https => {
            let stream = dial::tls(stream, &target.host).await.map_err(|e| failed(&e))?;
            tunnel::forward(stream, request, &server.tunnels).await.map_err(|e| failed(&e))
        }
    }
}

/// The path up to and with `/proxy`, and what follows; both keep their escapes.
fn split_path(path: &str, cluster_scoped: bool) -> (&str, &str) {
    // /api/v1/nodes/{name}/proxy or /api/v1/namespaces/{namespace}/pods/{name}/proxy.
    let segments = if cluster_scoped { 5 } else { 7 };
    let end = path.match_indices('/').map(|(i, _)| i).nth(segments).unwrap_or(path.len());
    path.split_at(end)
}

/// The host by which the client knows this server.
fn asked_host(request: &Request) -> String {
    let header = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
    header.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default()
}

/// Tells the server behind the proxy who asked for what. Like upstream, it sees the host that the
/// client named.
fn announce(request: &mut Request, path: &str, links: &Links) -> Result<(), ApiError> {
    let value = |text: &str| text.parse::<HeaderValue>().map_err(ApiError::internal);
    let client = request.extensions().get::<ClientAddress>().map(|a| a.0.to_string());
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(FORWARDED_URI, value(path)?);
    if !links.asked.is_empty() {
        headers.insert(header::HOST, value(&links.asked)?);
    }
    if let Some(client) = client {
        let before = headers.get_all(&FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
        let chain: Vec<&str> = before.chain([client.as_str()]).collect();
        let chain = value(&chain.join(", "))?;
        headers.insert(FORWARDED_FOR, chain);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
