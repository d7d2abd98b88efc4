//! Who may ask what of the kubelet's API: a client is known by its certificate or its token, and the
//! API server says what it may do to `nodes/...` of this node.

use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tracing::debug;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::respond::{Reply, text};
use super::reviews::{Reviews, User};

/// What a client showed in its TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    Nothing,
    /// The API server's certificate, or one of `system:masters`: no question needs to be asked.
    Trusted(String),
    Certificate(User),
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unauthorized,
    Forbidden { user: String, verb: &'static str, subresources: Vec<&'static str> },
    Unanswered { user: String, verb: &'static str, subresource: &'static str },
}

impl Refusal {
    /// The answer is the connection's last one: a stranger keeps none.
    pub(super) fn reply(&self) -> Reply {
        let mut reply = match self {
            Self::Unauthorized => text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden { user, verb, subresources } => {
                let subresources = subresources.join(" ");
                let why =
                    format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n");
                text(StatusCode::FORBIDDEN, &why)
            }
            Self::Unanswered { user, verb, subresource } => {
                let why = format!(
                    "Authorization error (user={user}, verb={verb}, resource=nodes, subresource={subresource})"
                );
                text(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
        };
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        reply
    }
}

pub(super) struct Gate {
    /// The common name of the API server's certificate.
    client_name: String,
    reviews: Reviews,
}

impl Gate {
    pub(super) fn new(client_name: String, reviews: Reviews) -> Self {
        Self { client_name, reviews }
    }

    /// What a certificate that the TLS layer verified is worth; one without a name is worth nothing.
    pub(super) fn credential(&self, der: &[u8]) -> Credential {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Credential::Nothing };
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
        if name.is_empty() {
            return Credential::Nothing;
        }
        let groups: Vec<String> =
            subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        if name == self.client_name || groups.iter().any(|group| group == "system:masters") {
            return Credential::Trusted(name.to_owned());
        }
        Credential::Certificate(User { name: name.to_owned(), groups, ..User::default() })
    }

    /// The user's name, if the request may be answered.
    pub(super) async fn admit(
        &self,
        credential: &Credential,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<String, Refusal> {
        let user = match credential {
            Credential::Trusted(name) => return Ok(name.clone()),
            Credential::Certificate(user) => user.clone(),
            Credential::Nothing => self.user_of(headers).await?,
        };
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in &subresources {
            match self.reviews.allows(&user, verb, subresource).await {
                Ok(true) => return Ok(user.name),
                Ok(false) => {}
                Err(e) => {
                    debug!(user = user.name, "kubelet API: cannot ask for a user's rights: {e}");
                    return Err(Refusal::Unanswered { user: user.name, verb, subresource });
                }
            }
        }
        Err(Refusal::Forbidden { user: user.name, verb, subresources })
    }

    async fn user_of(&self, headers: &HeaderMap) -> Result<User, Refusal> {
        let token = bearer_token(headers).ok_or(Refusal::Unauthorized)?;
        match self.reviews.user_of(token).await {
            Ok(user) => user.ok_or(Refusal::Unauthorized),
            Err(e) => {
                debug!("kubelet API: cannot ask whose a token is: {e}");
                Err(Refusal::Unauthorized)
            }
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut words = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split(' ');
    let scheme = words.next()?;
    words.next().filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The subresources of the node that a path belongs to; the right to any of them is enough.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let fine = [
        ("/pods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/statusz", "statusz"),
        ("/runningpods", "pods"),
    ];
    let coarse = [("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log"), ("/checkpoint", "checkpoint")];
    let find = |table: &[(&str, &'static str)]| table.iter().find(|(root, _)| below(root)).map(|(_, name)| *name);
    find(&fine).into_iter().chain([find(&coarse).unwrap_or("proxy")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_subresources_of_the_node() {
        for (path, expected) in [
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics"),
            ("/metricsx", "proxy"),
            ("//metrics", "proxy"),
            ("/stats/summary", "stats"),
            ("/logs/", "log"),
            ("/checkpoint/ns/p/c", "checkpoint"),
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/statusz", "statusz proxy"),
            ("/containerLogs/ns/p/c", "proxy"),
            ("/exec/ns/p/c", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), expected, "{path}");
        }
    }

    #[test]
    fn methods_are_verbs() {
        for (method, expected) in [("GET", "get"), ("POST", "create"), ("DELETE", "delete"), ("HEAD", "")] {
            assert_eq!(verb(&method.parse().unwrap()), expected);
        }
    }

    #[test]
    fn tokens_stand_behind_the_word_bearer() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("Bearer abc def", Some("abc")),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(header))]);
            assert_eq!(bearer_token(&headers), expected, "{header}");
        }
    }
}
