//! Where the server is and who we are, from the current context of a kubeconfig file.
//!
//! HTTPS with the certificate authority that the file gives; client certificate or token.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

/// A server and how to be let in.
#[derive(Clone)]
pub(crate) struct Server {
    pub host: String,
    pub port: u16,
    /// Comes before every path; usually empty.
    pub prefix: String,
    pub token: Option<String>,
    pub name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
}

impl Server {
    /// # Errors
    /// When the file cannot be read, or lacks what is needed.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("."))).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, directory: &Path) -> Result<Self> {
        let file: File = serde_yaml_ng::from_str(text)?;
        let context = file.contexts.into_iter().find(|c| c.name == file.current_context);
        let context = context.context("the current context is missing")?.context;
        let cluster = file.clusters.into_iter().find(|c| c.name == context.cluster);
        let cluster = cluster.context("the context's cluster is missing")?.cluster;
        let user = file.users.into_iter().find(|u| u.name == context.user);
        let user = user.context("the context's user is missing")?.user;

        let (host, port, prefix) = split(&cluster.server)?;
        let name = cluster.tls_server_name.clone().unwrap_or_else(|| host.clone());
        Ok(Self {
            host,
            port,
            prefix,
            name: ServerName::try_from(name)?,
            tls: Arc::new(tls(&cluster, &user, directory)?),
            token: user.token,
        })
    }
}

/// Host, port and path prefix of a server's URL.
fn split(url: &str) -> Result<(String, u16, String)> {
    let rest = url.strip_prefix("https://").with_context(|| format!("{url} is not https"))?;
    let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().context("the server's port")?),
        _ => (authority, 443),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok((host, port, path.trim_end_matches('/').to_owned()))
}

fn tls(cluster: &ClusterEntry, user: &UserEntry, directory: &Path) -> Result<ClientConfig> {
    let blob = |data: &Option<String>, file: &Option<String>| -> Result<Option<Vec<u8>>> {
        match (data, file) {
            (Some(data), _) => Ok(Some(STANDARD.decode(data)?)),
            (None, Some(file)) => Ok(Some(std::fs::read(directory.join(file)).with_context(|| file.clone())?)),
            (None, None) => Ok(None),
        }
    };
    let authority = blob(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority.context("no certificate authority")?) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let certificate = blob(&user.client_certificate_data, &user.client_certificate)?;
    let key = blob(&user.client_key_data, &user.client_key)?;
    let mut config = match certificate.zip(key) {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let rows = [
            ("https://127.0.0.1:6443", ("127.0.0.1", 6443, "")),
            ("https://[::1]:6443/", ("::1", 6443, "")),
            ("https://[::1]", ("::1", 443, "")),
            ("https://host/clusters/a/", ("host", 443, "/clusters/a")),
        ];
        for (url, (host, port, prefix)) in rows {
            assert_eq!(split(url).unwrap(), (host.to_owned(), port, prefix.to_owned()), "{url}");
        }
        assert!(split("http://host").is_err());
    }
}
