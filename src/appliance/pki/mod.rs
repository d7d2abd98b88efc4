//! The cluster's certificates and keys: made at the first start, kept in `<data-dir>/server/tls`,
//! renewed before they end.
//!
//! One CA signs servers and clients, as kubeadm's does. Leaf certificates last a year and are made
//! anew when less than ninety days are left, and when they are damaged, another authority's, or have a
//! key that is not theirs: the plug may be pulled between the two files. What cannot be made again, the
//! authority's key, is never replaced while anything is there that it signed. A board's clock may be wrong either way, so everything
//! is valid from the build's own date on, and what is issued in 1970 lasts as if it were then.

mod authority;
mod leaf;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use statefile::Durability;
use tracing::warn;

pub(crate) use authority::Authority;
pub(crate) use leaf::{KeyPair, Leaf};

const SERVICE_ACCOUNT_KEY: &str = "service-account.key";

/// Everything that the server needs, loaded or made.
pub(crate) struct Pki {
    pub authority: Authority,
    /// The API server's own certificate.
    pub server: KeyPair,
    /// The kubelet's serving certificate.
    pub kubelet: KeyPair,
    /// What the API server shows to kubelets: a user who may do nothing but that, because a server that is
    /// not the kubelet may be made to look like one.
    pub kubelet_client: KeyPair,
    /// The administrator's client certificate, group `system:masters`.
    pub admin: KeyPair,
    /// PKCS#8 PEM of the key that signs service account tokens.
    pub service_account_key_pem: String,
}

/// The names and addresses that certificates are made for.
pub(crate) struct Subjects<'a> {
    pub node_name: &'a str,
    pub node_ip: std::net::IpAddr,
    /// The first address of the service network: the `kubernetes` service.
    pub service_ip: std::net::IpAddr,
    pub cluster_domain: &'a str,
    /// `--tls-san`.
    pub extra: &'a [String],
}

impl Pki {
    /// Loads what is in `dir` and makes what can be made of what is missing, damaged, about to end, or
    /// made for other names.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else than its name says and is not to be
    /// had again.
    pub(crate) fn open(dir: &Path, subjects: &Subjects<'_>, now: jiff::Timestamp) -> anyhow::Result<Self> {
        crate::datadir::make_private(dir)?;
        let is_first = !dir.join("ca.key").exists();
        let authority = Authority::open(dir, now)?;
        let leaf = |name: &str, leaf: Leaf| authority.leaf(dir, name, &leaf, now);
        Ok(Self {
            server: leaf("kube-apiserver", Leaf::api_server(subjects))?,
            kubelet: leaf("kubelet", Leaf::kubelet(subjects))?,
            kubelet_client: leaf(
                "kube-apiserver-kubelet-client",
                Leaf::client(apiserver::auth::user::KUBELET_CLIENT, None),
            )?,
            admin: leaf("admin", Leaf::client("kubernetes-admin", Some("system:masters")))?,
            service_account_key_pem: service_account_key(dir, !is_first)?,
            authority,
        })
    }
}

/// Says what is wrong with the certificates and keys in a directory. Changes nothing.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(dir: &Path) -> anyhow::Result<()> {
    let authority = Authority::check(dir)?;
    for name in ["kube-apiserver", "kubelet", "kube-apiserver-kubelet-client", "admin"] {
        if let Some(pem) = read_if_present(&dir.join(format!("{name}.crt")))? {
            ensure!(
                authority.has_signed(&pem),
                "{name}.crt is damaged, or another authority's; the next start makes it anew"
            );
        }
    }
    match read_if_present(&dir.join(SERVICE_ACCOUNT_KEY))? {
        Some(pem) => check_service_account_key(dir, &pem),
        None => bail!("{SERVICE_ACCOUNT_KEY} is missing; the next start makes a new one"),
    }
}

fn check_service_account_key(dir: &Path, pem: &str) -> anyhow::Result<()> {
    rcgen::KeyPair::from_pem(pem).map(drop).with_context(|| {
        let path = dir.join(SERVICE_ACCOUNT_KEY);
        format!(
            "{} is damaged: it does not hold a key. Put a copy of it back, or remove it: tokens of service accounts are \
             then issued anew",
            path.display()
        )
    })
}

/// The key that signs tokens. A lost one is made anew: tokens are short-lived and pods ask for others.
fn service_account_key(dir: &Path, is_expected: bool) -> anyhow::Result<String> {
    let path = dir.join(SERVICE_ACCOUNT_KEY);
    if let Some(pem) = read_if_present(&path)? {
        check_service_account_key(dir, &pem)?;
        return Ok(pem);
    }
    if is_expected {
        warn!(key = %path.display(), "missing: made anew; the tokens of service accounts that were issued are worth nothing");
    }
    let pem = rcgen::KeyPair::generate().context("generating a key")?.serialize_pem();
    write_private(&path, pem.as_bytes())?;
    Ok(pem)
}

fn read_if_present(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(path) {
        // A flipped bit may make it no text at all; then it is not what it should be either.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a file that only root may read, whole or not at all, also when the plug is pulled.
///
/// # Errors
/// When the directory or the file cannot be written.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    statefile::replace(path, bytes, Durability::Synced).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests;
