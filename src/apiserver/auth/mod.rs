//! Who asks (authentication) and whether they may (authorization).
//!
//! Credentials are, in this order: an identity that this process itself put on the request, a client
//! certificate, a bearer token. Without any, only the public paths may be read. Authorization asks
//! `system:masters`, then the node authorizer, then RBAC; whoever none of them allows is refused.

pub mod attributes;
pub mod bootstrap;
pub mod certificate;
pub mod decision;
mod impersonate;
pub mod jwt;
mod node;
mod node_references;
pub(crate) mod pod_references;
pub mod rbac;
pub mod service_account;
pub mod user;

use std::sync::Arc;

use api::object::{GroupResource, ObjectKey};
use jiff::Timestamp;

pub use attributes::Attributes;
pub use certificate::PeerCertificate;
pub use decision::{Decision, forbidden};
pub use user::User;

use crate::error::ApiError;
use crate::registry::Registry;
use certificate::Certificates;
use node::NodeAuthorizer;
use rbac::Policy;
use service_account::Tokens;

/// The name under which tokens are issued and accepted.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Read without credentials; `system:public-info-viewer` grants them to everybody.
const PUBLIC_PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// A browser cannot set headers on a WebSocket: it sends its token among the subprotocols.
const PROTOCOL_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// What authentication and authorization are configured with.
#[derive(Clone, Default)]
pub struct Config {
    /// PEM bundle of the CAs whose client certificates are accepted; none without it.
    pub client_ca: Option<String>,
    /// PKCS#8 PEM of the P-256 key that signs service account tokens; without it, tokens hold until
    /// the server restarts.
    pub service_account_key: Option<String>,
}

impl std::fmt::Debug for Config {
    /// Keys never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("client certificates: {0}")]
    Certificates(#[from] certificate::CertificateError),
    #[error("service account key: {0}")]
    Key(#[from] jwt::KeyError),
    #[error("service account key: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Authenticators and authorizers with their caches.
#[derive(Debug)]
pub struct Auth {
    certificates: Option<Certificates>,
    pub tokens: Tokens,
    policy: Policy,
    nodes: NodeAuthorizer,
}

impl Auth {
    /// Reads keys and certificates.
    ///
    /// # Errors
    /// When one of them is damaged.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let key = match &config.service_account_key {
            Some(pem) => jwt::SigningKey::from_pem(pem)?,
            None => jwt::SigningKey::from_pem(&rcgen::KeyPair::generate()?.serialize_pem())?,
        };
        Ok(Self {
            certificates: config.client_ca.as_deref().map(Certificates::new).transpose()?,
            tokens: Tokens::new(key, DEFAULT_ISSUER),
            policy: Policy::default(),
            nodes: NodeAuthorizer::default(),
        })
    }

    /// Finds out who sent a request, and as whom they act; `certificate` is their connection's.
    ///
    /// # Errors
    /// `Unauthorized` without valid credentials; `Forbidden` when the user may not impersonate another.
    pub fn authenticate(
        &self,
        registry: &Registry,
        parts: &http::request::Parts,
        certificate: Option<&PeerCertificate>,
    ) -> Result<Arc<User>, ApiError> {
        if let Some(user) = user::named(&parts.extensions) {
            return Ok(Arc::clone(user));
        }
        let user = self.real_user(registry, parts, certificate)?;
        match impersonate::Request::read(&parts.headers)? {
            None => Ok(user),
            Some(request) => request.take_on(&user, |asked| self.decide(registry, asked)).map(Arc::new),
        }
    }

    fn real_user(
        &self,
        registry: &Registry,
        parts: &http::request::Parts,
        certificate: Option<&PeerCertificate>,
    ) -> Result<Arc<User>, ApiError> {
        let now = Timestamp::now();
        let mut presented = false;
        if let (Some(certificates), Some(peer)) = (&self.certificates, certificate) {
            match certificates.authenticate(peer, now) {
                Ok(user) => return Ok(user),
                Err(error) => tracing::debug!(%error, "a client certificate was refused"),
            }
            presented = true;
        }
        if let Some(token) = bearer_token(&parts.headers) {
            match self.token_user(registry, &token, &self.tokens.audiences, now) {
                Ok((user, _)) => return Ok(Arc::new(user)),
                Err(error) => tracing::debug!(%error, "a bearer token was refused"),
            }
            presented = true;
        }
        if !presented && PUBLIC_PATHS.contains(&parts.uri.path()) {
            return Ok(Arc::new(User::anonymous()));
        }
        Err(ApiError::Unauthorized)
    }

    /// The user of a bearer token for one of `audiences`.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn token_user(
        &self,
        registry: &Registry,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), service_account::Refused> {
        let find = |resource: &GroupResource, key: &ObjectKey| registry.get(resource, key);
        self.tokens.authenticate(token, audiences, now, &find)
    }

    /// Refuses what `user` may not do, in upstream's words.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn require(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.decide(registry, attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::NoOpinion { reason } => Err(forbidden(attributes, &reason)),
        }
    }

    /// Answers one question.
    #[must_use]
    pub fn decide(&self, registry: &Registry, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(user::MASTERS) {
            return Decision::allow();
        }
        let node = self.nodes.authorize(registry, attributes);
        if node.is_allowed() {
            return node;
        }
        let rbac = self.policy.authorize(registry, attributes);
        if rbac.is_allowed() {
            return rbac;
        }
        let reasons: Vec<&str> = [&node, &rbac].into_iter().map(Decision::reason).filter(|r| !r.is_empty()).collect();
        Decision::none(reasons.join("\n"))
    }

    /// The compiled roles and bindings.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

fn bearer_token(headers: &http::HeaderMap) -> Option<String> {
    let header = headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|h| h.trim().split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
        && !token.trim().is_empty()
    {
        return Some(token.trim().to_owned());
    }
    protocol_token(headers)
}

fn protocol_token(headers: &http::HeaderMap) -> Option<String> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    headers
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .find_map(|p| p.trim().strip_prefix(PROTOCOL_TOKEN_PREFIX))
        .and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_a_header_or_among_the_subprotocols() {
        #[track_caller]
        fn check(name: &'static str, value: &'static str, expected: Option<&str>) {
            let mut headers = http::HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_static(value));
            assert_eq!(bearer_token(&headers).as_deref(), expected, "{value}");
        }
        check("authorization", "Bearer abc", Some("abc"));
        check("authorization", "bearer  abc ", Some("abc"));
        check("authorization", "Basic abc", None);
        check("authorization", "Bearer ", None);
        check("sec-websocket-protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj", Some("abc"));
    }
}
