//! Reaching the kubelets: the node's address, and a TLS connection under the API server's own
//! certificate.
//!
//! A node's status is written by the node, so the address in it proves nothing: the server there must
//! show a certificate of the cluster's CA that was made for this very node.

use std::net::IpAddr;
use std::sync::Arc;

use api::object::{GroupResource, ObjectKey};
use axum::body::Body;
use axum::response::Response;
use http::{Request, Uri};
use k8s_openapi::api::core::v1::Node;
use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::dial::{self, Guard, Peer};
use super::tunnel;
use crate::auth::user;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::ApiServer;

const DEFAULT_PORT: u16 = 10250;
/// Upstream's preference, for clusters in which host names need not resolve.
const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// What the special handlers are configured with.
#[derive(Clone, Default)]
pub struct Config {
    /// Whom the API server is to the kubelets; without it, it reaches none.
    pub kubelet: Option<KubeletIdentity>,
}

/// The client certificate that kubelets know the API server by, and whose servers it trusts.
#[derive(Clone)]
pub struct KubeletIdentity {
    /// PEM, of the common name `kube-apiserver-kubelet-client`.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// PEM bundle of the CAs that sign the kubelets' serving certificates.
    pub ca: String,
}

impl std::fmt::Debug for Config {
    /// Keys never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("kubelet", &self.kubelet.is_some()).finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KubeletConfigError {
    #[error("the kubelet client's certificates or key: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("the kubelet client: {0}")]
    Tls(#[from] rustls::Error),
}

/// The way to all kubelets.
#[derive(Debug, Default)]
pub struct Kubelets {
    /// Exchanged when the client's certificate is renewed; connections that are there keep theirs.
    tls: RwLock<Option<Arc<ClientConfig>>>,
}

/// Where a kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Kubelets {
    /// Reads the client's certificate and key.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn new(config: &Config) -> Result<Self, KubeletConfigError> {
        let tls = config.kubelet.as_ref().map(client_config).transpose()?;
        Ok(Self { tls: RwLock::new(tls.map(Arc::new)) })
    }

    /// Shows another certificate from the next connection on.
    pub(crate) fn renew(&self, identity: &KubeletIdentity) -> Result<(), KubeletConfigError> {
        *self.tls.write() = Some(Arc::new(client_config(identity)?));
        Ok(())
    }

    /// Sends a request, whose URI is a path, to a node's kubelet.
    pub(super) async fn send(
        &self,
        server: &ApiServer,
        node: &str,
        mut request: Request<Body>,
    ) -> Result<Response, ApiError> {
        let endpoint = locate(&server.registry, node)?;
        let addresses = Guard(&server.config).resolve(Peer::Kubelet, &endpoint.host, endpoint.port).await?;
        let url = format!("https://{}{}", authority(&endpoint.host, endpoint.port), request.uri());
        let method = go_method(request.method());
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(format!("{method} {url:?}: {error}"));
        let tls =
            self.tls.read().clone().ok_or_else(|| {
                ApiError::ServiceUnavailable("the API server has no identity for kubelets".to_owned())
            })?;
        let stream = dial::tcp(&addresses).await.map_err(|e| failed(&e))?;
        let stream = dial::handshake(tls, &endpoint.host, stream).await.map_err(|e| failed(&e))?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        proves_node(leaf, node).map_err(|e| failed(&e))?;
        let host = authority(&endpoint.host, endpoint.port)
            .parse()
            .map_err(|e: http::header::InvalidHeaderValue| failed(&e))?;
        request.headers_mut().insert(http::header::HOST, host);
        tunnel::forward(stream, request, &server.tunnels).await.map_err(|e| failed(&e))
    }
}

/// Host and port as a URL names them.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A path with a query, as a request's URI.
pub(super) fn path_uri(path: &str, query: &str) -> Result<Uri, ApiError> {
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    text.parse().map_err(|e: http::uri::InvalidUri| ApiError::BadRequest(e.to_string()))
}

fn client_config(identity: &KubeletIdentity) -> Result<ClientConfig, KubeletConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain?, key)?)
}

pub(super) fn locate(registry: &Registry, node: &str) -> Result<Endpoint, ApiError> {
    let nodes = GroupResource::new("", "nodes");
    let object = registry.get(&nodes, &ObjectKey::new("", node)).ok_or_else(|| ApiError::not_found(&nodes, node))?;
    endpoint_of(&object.decode().map_err(ApiError::internal)?)
}

fn endpoint_of(node: &Node) -> Result<Endpoint, ApiError> {
    let status = node.status.clone().unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let address = ADDRESS_TYPES.iter().find_map(|kind| addresses.iter().find(|a| a.type_ == *kind));
    let known: Vec<&str> = addresses.iter().map(|a| a.address.as_str()).collect();
    let address = address.ok_or_else(|| {
        ApiError::internal(format!("no preferred addresses found; known addresses: [{}]", known.join(" ")))
    })?;
    let port = status.daemon_endpoints.and_then(|d| d.kubelet_endpoint).map(|e| e.port);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT);
    let host =
        address.address.parse().map_or_else(|_| address.address.clone(), |ip: IpAddr| ip.to_canonical().to_string());
    Ok(Endpoint { host, port })
}

/// Whether a certificate that the TLS layer verified is the serving certificate of a node.
fn proves_node(leaf: Option<&CertificateDer<'_>>, node: &str) -> Result<(), String> {
    let damaged = || "tls: failed to verify certificate: x509: malformed certificate".to_owned();
    let (_, certificate) = X509Certificate::from_der(leaf.ok_or_else(damaged)?).map_err(|_| damaged())?;
    let subject = certificate.subject();
    let wanted = format!("{}{node}", user::NODE_PREFIX);
    let name = subject.iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default();
    if name == wanted && subject.iter_organization().any(|o| o.as_str() == Ok(user::NODES)) {
        return Ok(());
    }
    Err(format!("tls: failed to verify certificate: x509: certificate is valid for {name}, not {wanted}"))
}

/// As upstream's HTTP client names the operation.
fn go_method(method: &http::Method) -> String {
    let text = method.as_str().to_ascii_lowercase();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(status: &Value, expected: Result<(&str, u16), &str>) {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap();
        let got = endpoint_of(&node).map(|e| (e.host, e.port)).map_err(|e| e.to_string());
        assert_eq!(got, expected.map(|(h, p)| (h.to_owned(), p)).map_err(str::to_owned), "{status}");
    }

    #[test]
    fn the_internal_address_is_preferred() {
        let both = json!([{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}]);
        check(&json!({"addresses": both}), Ok(("10.0.0.1", 10250)));
        check(
            &json!({"addresses": both, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}}}),
            Ok(("10.0.0.1", 10350)),
        );
        check(
            &json!({"addresses": [{"type": "InternalDNS", "address": "n1.local"}]}),
            Err("Internal error occurred: no preferred addresses found; known addresses: [n1.local]"),
        );
    }
}
