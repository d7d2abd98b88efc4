//! What is asked of one registry: manifests and blobs, with the credentials and the tokens that it wants.
//!
//! Whoever may make a pod names the registry, so it may be anybody's. All that is read into memory has a bound,
//! blobs are handed on in pieces, and the caller bounds the time. Credentials go to the registry itself and to
//! the token server that it names, as with other runtimes, but never where a redirect leads: not the header, which the
//! HTTP client drops, and not by a challenge, which is taken from the registry alone.

mod challenge;
mod error;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use self::challenge::Challenge;
pub(super) use self::error::{Refusal, RegistryError};
use super::manifest::MEDIA_TYPES;

/// What registries take of a manifest and other runtimes accept.
const MANIFEST_MAX: usize = 4 << 20;
/// Configurations are a few KiB.
const CONFIG_MAX: usize = 8 << 20;
/// Tokens are a few KiB.
const TOKEN_ANSWER_MAX: usize = 1 << 20;
/// More than servers take of a request's head.
const TOKEN_MAX: usize = 64 << 10;
/// Of the body of an error, which has a sentence or two.
const ERROR_MAX: usize = 64 << 10;
/// The status says enough; the sentence is not waited for any longer.
const ERROR_PATIENCE: Duration = Duration::from_secs(10);
/// Repositories whose tokens are kept: those that are being pulled from.
const TOKENS_KEPT: usize = 8;
/// For connecting, and for redirects, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const DIGEST_HEADER: &str = "docker-content-digest";

/// What proves to a registry who asks.
#[derive(Clone, PartialEq)]
pub(super) enum Credentials {
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// Token servers give tokens for it; the registry itself does not see it.
    Identity(String),
}

/// Clones share connections and tokens.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// For token servers.
    tokens: reqwest::Client,
    /// Scheme and host.
    base: String,
    credentials: Credentials,
    /// What each repository was last asked with; the one asked last stands first.
    kept: Mutex<VecDeque<(String, HeaderValue)>>,
}

/// A blob as it arrives; its digest is the reader's to check.
pub(super) struct Blob(Response);

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    /// The same by its name in OAuth.
    access_token: Option<String>,
}

impl Client {
    pub(super) fn new(
        http: reqwest::Client,
        tokens: reqwest::Client,
        plain_http: bool,
        registry: &str,
        credentials: Credentials,
    ) -> Self {
        let scheme = if plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{registry}");
        Self(Arc::new(Inner { http, tokens, base, credentials, kept: Mutex::default() }))
    }

    /// A manifest or an index, and the digest that the registry says it has.
    pub(super) async fn manifest(&self, at: &Reference) -> Result<(Vec<u8>, Option<String>), RegistryError> {
        let version = at.digest().or(at.tag()).unwrap_or("latest");
        let accept = MEDIA_TYPES.join(", ");
        let mut response = self.get(at.repository(), &format!("manifests/{version}"), &accept).await?;
        let digest = response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
        let digest = digest.filter(|digest| !digest.is_empty()).map(str::to_owned);
        let manifest = document(&mut response, "manifest", MANIFEST_MAX).await?;
        Ok((manifest, digest))
    }

    /// The blob of an image's configuration.
    pub(super) async fn config(&self, at: &Reference, digest: &str) -> Result<Vec<u8>, RegistryError> {
        let Blob(mut response) = self.blob(at, digest).await?;
        document(&mut response, "image configuration", CONFIG_MAX).await
    }

    pub(super) async fn blob(&self, at: &Reference, digest: &str) -> Result<Blob, RegistryError> {
        self.get(at.repository(), &format!("blobs/{digest}"), "*/*").await.map(Blob)
    }

    /// Asks with what the repository was asked with last; if that is not enough, once more with what the
    /// registry wants.
    async fn get(&self, repository: &str, path: &str, accept: &str) -> Result<Response, RegistryError> {
        let url = parse(&format!("{}/v2/{repository}/{path}", self.0.base))?;
        let known = self.known(repository);
        let response = self.send(&url, accept, known).await?;
        let is_own = response.url().origin() == url.origin();
        let challenge = Challenge::of(response.headers()).filter(|_| is_own);
        let authorization = match (accepted(response).await, challenge) {
            (Err(RegistryError::Refused(refusal)), Some(challenge)) if refusal.status == StatusCode::UNAUTHORIZED => {
                match self.authorize(&challenge, repository).await? {
                    Some(authorization) => authorization,
                    None => return Err(RegistryError::Refused(refusal)),
                }
            }
            (answer, _) => return answer,
        };
        self.keep(repository, &authorization);
        accepted(self.send(&url, accept, Some(authorization)).await?).await
    }

    async fn send(
        &self,
        url: &Url,
        accept: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut request = self.0.http.get(url.clone()).header(ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        answer(request).await
    }

    fn known(&self, repository: &str) -> Option<HeaderValue> {
        let kept = self.0.kept.lock();
        kept.iter().find(|(of, _)| of == repository).map(|(_, authorization)| authorization.clone())
    }

    fn keep(&self, repository: &str, authorization: &HeaderValue) {
        let mut kept = self.0.kept.lock();
        kept.retain(|(of, _)| of != repository);
        kept.push_front((repository.to_owned(), authorization.clone()));
        kept.truncate(TOKENS_KEPT);
    }

    /// What answers a challenge; `None` when there is nothing to answer with.
    async fn authorize(&self, challenge: &Challenge, repository: &str) -> Result<Option<HeaderValue>, RegistryError> {
        match (challenge, &self.0.credentials) {
            (Challenge::Other, Credentials::Anonymous | Credentials::Identity(_)) => Ok(None),
            (Challenge::Other, Credentials::Basic { username, password }) => basic(username, password).map(Some),
            (Challenge::Bearer { realm, service }, credentials) => {
                let kind = if *credentials == Credentials::Anonymous { "anonymous" } else { "oauth" };
                let token = self.token(realm, service.as_deref(), repository).await;
                let token = token.map_err(|cause| RegistryError::Token { kind, cause: Box::new(cause) })?;
                bearer(&token).map(Some)
            }
        }
    }

    /// A token for reading one repository, from the server that the registry named.
    async fn token(&self, realm: &str, service: Option<&str>, repository: &str) -> Result<String, RegistryError> {
        let mut url = parse(realm)?;
        let scope = format!("repository:{repository}:pull");
        let mut parameters = vec![("scope", scope.as_str())];
        parameters.extend(service.map(|service| ("service", service)));
        if let Credentials::Identity(token) = &self.0.credentials {
            // OAuth: the token that was given is one to get others with.
            if token.len() > TOKEN_MAX {
                return Err(RegistryError::TooLarge { what: "token", limit: TOKEN_MAX });
            }
            parameters.extend([("client_id", "coracle"), ("grant_type", "refresh_token"), ("refresh_token", token)]);
            let mut form = Url::parse("form:").map_err(|error| RegistryError::Malformed(error.to_string()))?;
            form.query_pairs_mut().extend_pairs(parameters);
            let body = form.query().unwrap_or_default().to_owned();
            let request = self.0.tokens.post(url).header(CONTENT_TYPE, FORM).body(body);
            return self.token_answer(request).await;
        }
        url.query_pairs_mut().extend_pairs(parameters);
        let mut request = self.0.tokens.get(url);
        if let Credentials::Basic { username, password } = &self.0.credentials {
            request = request.header(AUTHORIZATION, basic(username, password)?);
        }
        self.token_answer(request).await
    }

    async fn token_answer(&self, request: RequestBuilder) -> Result<String, RegistryError> {
        let mut response = accepted(answer(request).await?).await?;
        let json = document(&mut response, "token answer", TOKEN_ANSWER_MAX).await?;
        let Token { token, access_token } = serde_json::from_slice(&json)
            .map_err(|error| RegistryError::Malformed(format!("unable to decode token response: {error}")))?;
        let token = [token, access_token].into_iter().flatten().find(|token| !token.is_empty());
        token.ok_or_else(|| {
            RegistryError::Malformed("authorization server did not include a token in the response".to_owned())
        })
    }
}

impl Blob {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.0.chunk().await?)
    }
}

/// The answer's head, in bounded time: what comes before it (interim answers) has no end of its own.
async fn answer(request: RequestBuilder) -> Result<Response, RegistryError> {
    match tokio::time::timeout(HEAD_TIMEOUT, request.send()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RegistryError::Slow),
    }
}

/// The text is not told: it may hold a password.
fn parse(url: &str) -> Result<Url, RegistryError> {
    Url::parse(url).map_err(|error| RegistryError::Malformed(format!("invalid URL: {error}")))
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {pair}"))
}

fn bearer(token: &str) -> Result<HeaderValue, RegistryError> {
    if token.len() > TOKEN_MAX {
        return Err(RegistryError::TooLarge { what: "token", limit: TOKEN_MAX });
    }
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Result<HeaderValue, RegistryError> {
    let value = HeaderValue::from_str(text);
    let mut value =
        value.map_err(|_| RegistryError::Malformed("the token has characters that no header has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer if it is one, and the reason if not.
async fn accepted(mut response: Response) -> Result<Response, RegistryError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let mut body = Vec::new();
    // What does not arrive is no loss. A body that was read to its end leaves the connection to the next request.
    let _ = tokio::time::timeout(ERROR_PATIENCE, fill(&mut body, &mut response, ERROR_MAX)).await;
    Err(RegistryError::Refused(Box::new(Refusal::new(status, response.url(), &body))))
}

async fn document(response: &mut Response, what: &'static str, limit: usize) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let declared = response.content_length().is_some_and(|length| length > limit as u64);
    if declared || !fill(&mut bytes, response, limit).await? {
        return Err(RegistryError::TooLarge { what, limit });
    }
    Ok(bytes)
}

/// Reads until the end or the limit; `false` when there is more.
async fn fill(bytes: &mut Vec<u8>, response: &mut Response, limit: usize) -> Result<bool, RegistryError> {
    while let Some(chunk) = response.chunk().await? {
        let room = limit - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(false);
        }
    }
    Ok(true)
}
