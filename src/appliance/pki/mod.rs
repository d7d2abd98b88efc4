//! The cluster's certificates and keys: made at the first start, kept in `<data-dir>/server/tls`,
//! renewed before they end.
//!
//! One CA signs servers and clients, as kubeadm's does. Leaf certificates last a year and are made
//! anew at a start that finds less than ninety days left, or a key that is not the certificate's: the
//! plug may be pulled between the two files. A board's clock may be wrong either way, so everything
//! is valid from the build's own date on, and what is issued in 1970 lasts as if it were then.

mod authority;
mod leaf;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub(crate) use authority::Authority;
pub(crate) use leaf::{KeyPair, Leaf};

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
    /// Loads what is in `dir` and makes what is missing, about to end, or made for other names.
    ///
    /// # Errors
    /// When a file cannot be read or written, or does not hold what its name says.
    pub(crate) fn open(dir: &Path, subjects: &Subjects<'_>, now: jiff::Timestamp) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
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
            service_account_key_pem: key_file(&dir.join("service-account.key"))?,
            authority,
        })
    }
}

fn key_file(path: &Path) -> anyhow::Result<String> {
    if let Some(pem) = read_if_present(path)? {
        return Ok(pem);
    }
    let pem = rcgen::KeyPair::generate().context("generating a key")?.serialize_pem();
    write_private(path, pem.as_bytes())?;
    Ok(pem)
}

fn read_if_present(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
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
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(&dir)?.sync_all()
    };
    write()
        .inspect_err(|_| {
            // Half a file on a full disk holds room that somebody needs.
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests;
