//! Why a registry's answer is none.

use reqwest::{StatusCode, Url};
use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// No answer, or one that broke off.
    #[error(transparent)]
    Request(reqwest::Error),
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The head of an answer is not there in time.
    #[error("the registry does not answer in time")]
    Slow,
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("{0}")]
    Malformed(String),
    #[error("failed to authorize: failed to fetch {kind} token")]
    Token {
        kind: &'static str,
        #[source]
        cause: Box<Self>,
    },
}

/// A status other than success, in the words that users know from containerd.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    url: String,
    /// The registry's own reasons, if it gave some in the form that the protocol has for them.
    pub errors: Vec<ApiError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    pub code: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<ApiError>,
}

impl From<reqwest::Error> for RegistryError {
    fn from(mut error: reqwest::Error) -> Self {
        if let Some(url) = error.url_mut() {
            *url = nameable(url);
        }
        Self::Request(error)
    }
}

/// An address without what may be a secret: where a redirect leads to is often signed.
fn nameable(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Addresses that cannot have them have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, url: &Url, body: &[u8]) -> Self {
        // Servers in front of registries send pages instead.
        let errors = match serde_json::from_slice::<Envelope>(body) {
            Ok(envelope) if status.is_client_error() => envelope.errors,
            Ok(_) | Err(_) => Vec::new(),
        };
        Self { status, url: nameable(url).to_string(), errors }
    }

    pub(crate) fn has(&self, codes: &[&str]) -> bool {
        self.errors.iter().any(|error| codes.contains(&error.code.as_str()))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unexpected status from GET request to {}: {}", self.url, self.status)?;
        for ApiError { code, message } in &self.errors {
            write!(f, ": {}: {message}", code.to_lowercase().replace('_', " "))?;
        }
        Ok(())
    }
}

impl RegistryError {
    /// Whether a token server does not know who asks, or denies what is asked for.
    pub(crate) fn is_denied_token(&self) -> bool {
        let Self::Token { cause, .. } = self else { return false };
        matches!(&**cause, Self::Refused(refusal) if matches!(refusal.status.as_u16(), 401 | 403))
    }

    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Request(_) | Self::Slow => true,
            Self::Refused(refusal) => refusal.status.as_u16() >= 500 || refusal.status == StatusCode::TOO_MANY_REQUESTS,
            Self::Token { cause, .. } => cause.is_transient(),
            Self::TooLarge { .. } | Self::Malformed(_) => false,
        }
    }
}
