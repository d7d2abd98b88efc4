//! `registries.yaml` in k3s's format: mirrors, credentials and TLS settings of registries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci_spec::distribution::Reference;
use serde::Deserialize;

use crate::error::{Error, IoContext, Result};
use crate::types::RegistryAuth;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    /// By registry name; `*` is for all that have no entry.
    #[serde(default)]
    mirrors: BTreeMap<String, Mirror>,
    /// By host, with its port where the endpoint has one.
    #[serde(default)]
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    /// Tried in this order before the registry itself.
    #[serde(default)]
    endpoint: Vec<String>,
    /// Regular expressions on the repository and their replacements (`$1`).
    #[serde(default)]
    rewrite: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostConfig {
    auth: Option<HostAuth>,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    /// base64 of `username:password`, as in docker's configuration.
    auth: Option<String>,
    identity_token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// One place to ask for an image.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The image as it is called there.
    pub reference: Reference,
    pub plain_http: bool,
    pub auth: Option<RegistryAuth>,
    pub ca: Option<Vec<u8>>,
    pub insecure: bool,
}

impl Registries {
    /// Reads the file; without one there are no mirrors.
    pub fn load(path: &Path) -> Result<Self> {
        if statefile::length(path).at("read", path)?.is_none() {
            return Ok(Self::default());
        }
        let text = statefile::read_text(path).at("read", path)?;
        let registries = serde_yaml_ng::from_str::<Self>(&text);
        let registries = registries.map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
        registries.check().map_err(|reason| Error::Invalid(format!("{}: {reason}", path.display())))?;
        Ok(registries)
    }

    fn check(&self) -> Result<(), String> {
        for mirror in self.mirrors.values() {
            for pattern in mirror.rewrite.keys() {
                regex::Regex::new(pattern).map_err(|error| format!("rewrite {pattern:?}: {error}"))?;
            }
            for endpoint in &mirror.endpoint {
                Address::parse(endpoint).ok_or_else(|| format!("endpoint {endpoint:?} is not a URL"))?;
            }
        }
        Ok(())
    }

    /// Where to ask for an image, in order; the registry itself comes last.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let mirror = self.mirrors.get(reference.registry()).or_else(|| self.mirrors.get("*"));
        let mut endpoints = Vec::new();
        for url in mirror.iter().flat_map(|mirror| &mirror.endpoint) {
            let Some(address) = Address::parse(url) else { continue };
            let repository = rewrite(mirror, reference.repository());
            let repository = match address.path {
                "" => repository,
                path => format!("{path}/{repository}"),
            };
            let there = relocated(reference, address.host, repository);
            endpoints.push(self.endpoint(there, address.plain_http)?);
        }
        let plain_http = is_loopback(reference.registry());
        endpoints.push(self.endpoint(reference.clone(), plain_http)?);
        Ok(endpoints)
    }

    fn endpoint(&self, reference: Reference, plain_http: bool) -> Result<Endpoint> {
        let config = self.configs.get(reference.registry());
        let tls = config.and_then(|config| config.tls.clone()).unwrap_or_default();
        let ca = tls.ca_file.map(|path| statefile::read(&path).at("read", &path)).transpose()?;
        let auth = config.and_then(|config| config.auth.as_ref()).map(HostAuth::resolve);
        Ok(Endpoint { reference, plain_http, auth, ca, insecure: tls.insecure_skip_verify })
    }
}

impl HostAuth {
    fn resolve(&self) -> RegistryAuth {
        use base64::Engine;
        let decoded = self.auth.as_ref().and_then(|auth| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            text.split_once(':').map(|(name, word)| (name.to_owned(), word.to_owned()))
        });
        let (username, password) = decoded.unwrap_or_else(|| (self.username.clone(), self.password.clone()));
        RegistryAuth { username, password, identity_token: self.identity_token.clone() }
    }
}

/// A mirror's URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    plain_http: bool,
    host: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (plain_http, rest) = match url.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return None,
            None => (false, url),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        // The protocol's own prefix may be written out.
        let path = if path == "v2" { "" } else { path.strip_prefix("v2/").unwrap_or(path) };
        (!host.is_empty()).then_some(Self { plain_http, host, path })
    }
}

fn rewrite(mirror: Option<&Mirror>, repository: &str) -> String {
    for (pattern, replacement) in mirror.iter().flat_map(|mirror| &mirror.rewrite) {
        let Ok(pattern) = regex::Regex::new(pattern) else { continue };
        if pattern.is_match(repository) {
            return pattern.replace_all(repository, replacement).into_owned();
        }
    }
    repository.to_owned()
}

fn relocated(reference: &Reference, host: &str, repository: String) -> Reference {
    match reference.digest() {
        Some(digest) => Reference::with_digest(host.to_owned(), repository, digest.to_owned()),
        None => Reference::with_tag(host.to_owned(), repository, reference.tag().unwrap_or("latest").to_owned()),
    }
}

/// Registries on this machine are asked without TLS, as other runtimes do, and not through a proxy.
pub(super) fn is_loopback(registry: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(&format!("http://{registry}/")) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["http://127.0.0.1:5000", "https://mirror.example/v2/hub"]
    rewrite:
      "^library/(.*)": "base/$1"
  "*":
    endpoint: ["https://any.example"]
configs:
  mirror.example:
    auth: {username: me, password: secret}
    tls: {insecure_skip_verify: true}
  any.example:
    auth: {auth: "eW91OndvcmQ="}
"#;

    #[track_caller]
    fn check(name: &str, expected: &[&str]) {
        let registries = serde_yaml_ng::from_str::<Registries>(FILE).unwrap();
        let endpoints = registries.endpoints(&super::super::reference::parse(name).unwrap()).unwrap();
        let found = endpoints.iter().map(|endpoint| {
            let scheme = if endpoint.plain_http { "http" } else { "https" };
            let user = endpoint.auth.as_ref().map_or("", |auth| auth.username.as_str());
            let insecure = if endpoint.insecure { " insecure" } else { "" };
            format!("{scheme} {} {user}{insecure}", endpoint.reference)
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn mirrors_come_first_with_their_own_settings() {
        check(
            "nginx:1",
            &[
                "http 127.0.0.1:5000/base/nginx:1 ",
                "https mirror.example/hub/base/nginx:1 me insecure",
                "https docker.io/library/nginx:1 ",
            ],
        );
        check("quay.io/a/b:2", &["https any.example/a/b:2 you", "https quay.io/a/b:2 "]);
        check("localhost:5000/x:3", &["https any.example/x:3 you", "http localhost:5000/x:3 "]);
    }

    #[test]
    fn registries_on_this_machine_are_known() {
        for ours in ["localhost", "localhost:5000", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in ["docker.io", "localhost.example", "128.0.0.1:1", "[::2]:1", "a@b@c", "", "[::1"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.yaml");
        for (text, expected) in [
            ("mirrors: {a: {endpoints: []}}", "unknown field `endpoints`"),
            ("mirrors: {a: {endpoint: ['ftp://x']}}", "endpoint \"ftp://x\" is not a URL"),
            ("mirrors: {a: {rewrite: {'(': x}}}", "rewrite \"(\""),
            ("configs: {a: {tls: {cert_file: /x}}}", "unknown field `cert_file`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Registries::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Registries::load(&dir.path().join("absent")).is_ok());
    }
}
