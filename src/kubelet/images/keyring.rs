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
}

impl Entry {
    fn into_auth(self) -> RegistryAuth {
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        let (username, password) = match decoded.as_deref().and_then(|d| d.split_once(':')) {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None => (self.username, self.password),
        };
        RegistryAuth { username, password, identity_token: None }
    }
}

/// Credentials by where they are valid.
#[derive(Default)]
pub(super) struct Keyring(Vec<(String, RegistryAuth)>);

impl Keyring {
    /// Adds what a secret holds; one of another type, or without content, adds nothing.
    ///
    /// # Errors
    /// With the text of the failed pull, when the secret cannot be read.
    pub(super) fn add(&mut self, secret: &Secret) -> Result<(), String> {
        let key = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => ".dockerconfigjson",
            Some("kubernetes.io/dockercfg") => ".dockercfg",
            _ => return Ok(()),
        };
        let content = secret.data.as_ref().and_then(|data| data.get(key)).filter(|content| !content.0.is_empty());
        let Some(content) = content else { return Ok(()) };
        let auths = match key {
            ".dockercfg" => serde_json::from_slice::<BTreeMap<String, Entry>>(&content.0),
            _ => serde_json::from_slice::<DockerConfig>(&content.0).map(|config| config.auths),
        };
        // What serde says may quote a password.
        let auths = auths.map_err(|e| {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            format!(
                "image pull secret {name:?}: {key} is no valid docker config (line {}, column {})",
                e.line(),
                e.column()
            )
        })?;
        for (place, entry) in auths {
            self.0.push((normalize(&place), entry.into_auth()));
        }
        Ok(())
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
        out.add(&secret).unwrap();
        out
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_an_error_that_keeps_it_secret() {
        for (kind, key, content, expected) in [
            (
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                r#"{"auths": "hunter2"}"#,
                Some("line 1, column 19"),
            ),
            ("kubernetes.io/dockercfg", ".dockercfg", "hunter2", Some("line 1, column 1")),
            ("kubernetes.io/dockercfg", ".dockercfg", "", None),
            ("Opaque", ".dockercfg", "hunter2", None),
        ] {
            let data = json!({key: STANDARD.encode(content)});
            let secret = json!({"metadata": {"name": "pull"}, "type": kind, "data": data});
            let added = Keyring::default().add(&serde_json::from_value(secret).unwrap());
            let wanted = |place| format!("image pull secret \"pull\": {key} is no valid docker config ({place})");
            assert_eq!(added.err(), expected.map(wanted), "{kind} {content}");
        }
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
