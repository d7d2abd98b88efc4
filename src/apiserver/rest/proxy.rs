//! `nodes/proxy`, `pods/proxy` and `services/proxy`: plain HTTP through the API server.

use std::sync::Arc;

use api::object::{GroupResource, ObjectKey};
use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::Rng;
use tokio::net::TcpStream;

use super::kubelet::path_uri;
use super::{Call, SpecialHandler, tunnel};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::ApiServer;

pub(super) enum Handler {
    Node,
    Pod,
    Service,
}

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let path = call.request.uri().path();
        let query = call.request.uri().query().unwrap_or("").to_owned();
        let Some(rest) = after_proxy(path, matches!(self, Self::Node)) else {
            // Relative links in what is proxied need the slash.
            let location = format!("{path}/{}", if query.is_empty() { String::new() } else { format!("?{query}") });
            return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response());
        };
        let uri = path_uri(rest, &query)?;
        let (scheme, name, port) = split_name(&call.info.name)?;
        let mut request = call.request;
        *request.uri_mut() = uri;
        let registry = &server.registry;
        let (host, port) = match self {
            Self::Node => return server.kubelets.send(server, name, request).await,
            Self::Pod => pod_address(registry, &call.info.namespace, name, port)?,
            Self::Service => service_address(registry, &call.info.namespace, name, port)?,
        };
        if scheme == "https" {
            return Err(ApiError::ServiceUnavailable("proxying to https backends is not supported".to_owned()));
        }
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::ServiceUnavailable(format!("error trying to reach service: dial tcp {host}:{port}: {error}"))
        };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(&e))?;
        let authority = format!("{host}:{port}").parse::<http::HeaderValue>().map_err(ApiError::internal)?;
        request.headers_mut().insert(header::HOST, authority);
        tunnel::forward(stream, request, &server.tunnels).await.map_err(|e| failed(&e))
    }
}

/// What follows `/proxy` in the path, which keeps its escapes; `None` when not even a slash does.
fn after_proxy(path: &str, cluster_scoped: bool) -> Option<&str> {
    // /api/v1/nodes/{name}/proxy or /api/v1/namespaces/{namespace}/pods/{name}/proxy.
    let segments = if cluster_scoped { 5 } else { 7 };
    let mut slashes = path.match_indices('/').map(|(i, _)| i);
    slashes.nth(segments).map(|i| &path[i..])
}

/// `name`, `name:port` or `scheme:name:port`.
fn split_name(text: &str) -> Result<(&str, &str, &str), ApiError> {
    let parts: Vec<&str> = text.split(':').collect();
    let split = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => ("", "", ""),
    };
    if split.1.is_empty() || !matches!(split.0, "" | "http" | "https") {
        return Err(ApiError::BadRequest(format!("invalid proxy request {text:?}")));
    }
    Ok(split)
}

fn pod_address(registry: &Registry, namespace: &str, name: &str, port: &str) -> Result<(String, u16), ApiError> {
    let pods = GroupResource::new("", "pods");
    let pod = registry.get(&pods, &ObjectKey::new(namespace, name)).ok_or_else(|| ApiError::not_found(&pods, name))?;
    pod_endpoint(&pod.decode().map_err(ApiError::internal)?, port)
}

fn pod_endpoint(pod: &Pod, port: &str) -> Result<(String, u16), ApiError> {
    let first = || {
        let containers = pod.spec.iter().flat_map(|s| &s.containers);
        containers.flat_map(|c| c.ports.iter().flatten()).map(|p| p.container_port).next()
    };
    let number = if port.is_empty() { first().unwrap_or(80) } else { port.parse().unwrap_or(0) };
    let number = u16::try_from(number).ok().filter(|p| *p != 0);
    let number = number.ok_or_else(|| ApiError::BadRequest(format!("invalid port {port:?}")))?;
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default();
    let usable = address.parse::<std::net::IpAddr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified());
    if usable { Ok((address, number)) } else { Err(ApiError::BadRequest("address not allowed".to_owned())) }
}

fn service_address(registry: &Registry, namespace: &str, name: &str, port: &str) -> Result<(String, u16), ApiError> {
    let services = GroupResource::new("", "services");
    let service = registry
        .get(&services, &ObjectKey::new(namespace, name))
        .ok_or_else(|| ApiError::not_found(&services, name))?;
    let service: Service = service.decode().map_err(ApiError::internal)?;
    let port_name = port_name(&service, name, port)?;
    let slices: Vec<EndpointSlice> = registry
        .list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(namespace))
        .iter()
        .filter(|s| s.index.labels.get("kubernetes.io/service-name").is_some_and(|n| **n == *name))
        .filter_map(|s| s.decode().ok())
        .collect();
    let ready = ready_endpoints(&slices, &port_name);
    if ready.is_empty() {
        return Err(ApiError::ServiceUnavailable(format!("no endpoints available for service {name:?}")));
    }
    Ok(ready[rand::rng().random_range(0..ready.len())].clone())
}

/// The name of the service's port that was named or numbered; of its only one otherwise.
fn port_name(service: &Service, name: &str, port: &str) -> Result<String, ApiError> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let found = match port {
        "" if ports.len() == 1 => ports.first(),
        _ => ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port || p.port.to_string() == port),
    };
    found
        .map(|p| p.name.clone().unwrap_or_default())
        .ok_or_else(|| ApiError::ServiceUnavailable(format!("no service port {port:?} found for service {name:?}")))
}

fn ready_endpoints(slices: &[EndpointSlice], port_name: &str) -> Vec<(String, u16)> {
    let mut ready = Vec::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let is_ready = endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
            if is_ready {
                ready.extend(endpoint.addresses.iter().map(|a| (a.clone(), port)));
            }
        }
    }
    ready
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rest_of_the_path_is_kept_as_it_is() {
        #[track_caller]
        fn check(path: &str, cluster_scoped: bool, expected: Option<&str>) {
            assert_eq!(after_proxy(path, cluster_scoped), expected, "{path}");
        }
        check("/api/v1/nodes/n/proxy/logs/a%20b/", true, Some("/logs/a%20b/"));
        check("/api/v1/nodes/n/proxy", true, None);
        check("/api/v1/namespaces/a/pods/p:80/proxy/", false, Some("/"));
        check("/api/v1/namespaces/a/services/s/proxy/x", false, Some("/x"));
    }

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split_name("web").unwrap(), ("", "web", ""));
        assert_eq!(split_name("web:80").unwrap(), ("", "web", "80"));
        assert_eq!(split_name("https:web:").unwrap(), ("https", "web", ""));
        assert_eq!(split_name("ftp:web:1").unwrap_err().to_string(), "invalid proxy request \"ftp:web:1\"");
    }

    #[test]
    fn a_service_leads_to_its_ready_endpoints() {
        let service: Service = serde_json::from_value(
            json!({"metadata": {}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}]}}),
        )
        .unwrap();
        assert_eq!(port_name(&service, "s", "80").unwrap(), "http");
        assert_eq!(port_name(&service, "s", "dns").unwrap(), "dns");
        let error = port_name(&service, "s", "").unwrap_err();
        assert_eq!(error.to_string(), "no service port \"\" found for service \"s\"");
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {}, "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]}))
        .unwrap();
        assert_eq!(ready_endpoints(std::slice::from_ref(&slice), "http"), [("10.0.0.1".to_owned(), 8080)]);
        assert!(ready_endpoints(&[slice], "dns").is_empty());
    }
}
