//! Registry credentials from pull secrets, and which of them fit an image.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::RegistryAuth;
use serde::Deserialize;

use super::reference::registry_and_path;

/// `~/.docker/config.json`, as far as pulls need it.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

impl Entry {
    fn into_auth(self) -> RegistryAuth {
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        let (username, password) = match decoded.as_deref().and_then(|d| d.split_once(':')) {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None => (self.username, self.password),
        };
        let identity_token = self.identity_token.filter(|t| !t.is_empty());
        RegistryAuth { username, password, identity_token }
    }
}

/// Credentials by where they are valid.
#[derive(Default)]
pub(super) struct Keyring(Vec<(String, RegistryAuth)>);

impl Keyring {
    /// Adds what a secret holds; one that is not of Docker's form adds nothing.
    pub(super) fn add(&mut self, secret: &Secret) {
        let Some(data) = &secret.data else { return };
        let auths = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => data
                .get(".dockerconfigjson")
                .and_then(|d| serde_json::from_slice::<DockerConfig>(&d.0).ok())
                .map(|c| c.auths),
            Some("kubernetes.io/dockercfg") => {
                data.get(".dockercfg").and_then(|d| serde_json::from_slice::<BTreeMap<String, Entry>>(&d.0).ok())
            }
            _ => None,
        };
        for (place, entry) in auths.into_iter().flatten() {
            self.0.push((normalize(&place), entry.into_auth()));
        }
    }

    /// The credentials for an image, the most specific first.
    pub(super) fn matching(&self, image: &str) -> Vec<RegistryAuth> {
        let (registry, path) = registry_and_path(image);
        let mut found: Vec<_> = self.0.iter().filter(|(place, _)| fits(place, registry, path)).collect();
        found.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
        found.into_iter().map(|(_, auth)| auth.clone()).collect()
    }
}

/// Without scheme and API version; Docker Hub under its one name.
fn normalize(place: &str) -> String {
    let bare = place.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn fits(place: &str, registry: &str, path: &str) -> bool {
    let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
    let host_parts: Vec<&str> = host.split('.').collect();
    let registry_parts: Vec<&str> = registry.split('.').collect();
    let host_fits = host_parts.len() == registry_parts.len()
        && host_parts.iter().zip(&registry_parts).all(|(pattern, part)| glob(pattern, part));
    host_fits && path.starts_with(prefix)
}

/// `*` stands for any part of one label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|n| rest.is_char_boundary(n) && glob(after, &rest[n..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keyring() -> Keyring {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:secret")},
            "ghcr.io": {"username": "gh", "password": "p"},
            "ghcr.io/org": {"username": "org", "password": "p"},
            "*.example.com": {"username": "wild", "password": "p"}}});
        let secret: Secret = serde_json::from_value(json!({
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}}))
        .unwrap();
        let mut out = Keyring::default();
        out.add(&secret);
        out
    }

    #[test]
    fn credentials_fit_by_registry_and_path() {
        for (image, users) in [
            ("nginx:1", vec!["hub"]),
            ("docker.io/library/nginx:1", vec!["hub"]),
            ("ghcr.io/other/x:1", vec!["gh"]),
            ("ghcr.io/org/x:1", vec!["org", "gh"]),
            ("r.example.com/x", vec!["wild"]),
            ("a.r.example.com/x", vec![]),
            ("quay.io/x", vec![]),
        ] {
            let got: Vec<_> = keyring().matching(image).into_iter().map(|a| a.username).collect();
            assert_eq!(got, users, "{image}");
        }
    }
}
