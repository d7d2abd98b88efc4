//! The cluster's certificates and keys: made at the first start, kept in `<data-dir>/server/tls`,
//! renewed before they end.
//!
//! One CA signs servers and clients, as kubeadm's does. Leaf certificates last a year and are made
//! anew when less than ninety days are left, and when they are damaged, another authority's, or have a
//! key that is not theirs: the plug may be pulled between the two files. What cannot be made again, the
//! authority's key, is only made by a first start ([`datadir::begin`]). A board's clock may be wrong either way, so
//! everything is valid from the build's own date on, and what is issued in 1970 lasts as if it were then.

mod authority;
mod leaf;
mod pem;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use statefile::Durability;
use tracing::warn;

pub(crate) use authority::Authority;
pub(crate) use leaf::{KeyPair, Leaf};

use crate::datadir::{self, Start};

const AUTHORITY_CERTIFICATE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const SERVER: &str = "kube-apiserver";
const KUBELET: &str = "kubelet";
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
const ADMIN: &str = "admin";
const LEAVES: [&str; 4] = [SERVER, KUBELET, KUBELET_CLIENT, ADMIN];
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
    /// made for other names; a first start makes the authority, too.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else than its name says and is not to be
    /// had again.
    pub(crate) fn open(
        dir: &Path,
        subjects: &Subjects<'_>,
        start: Start,
        now: jiff::Timestamp,
    ) -> anyhow::Result<Self> {
        datadir::make_private(dir)?;
        let authority = Authority::open(dir, start, now)?;
        let leaf = |name: &str, leaf: Leaf| authority.leaf(dir, name, &leaf, now);
        Ok(Self {
            server: leaf(SERVER, Leaf::api_server(subjects))?,
            kubelet: leaf(KUBELET, Leaf::kubelet(subjects))?,
            kubelet_client: leaf(KUBELET_CLIENT, Leaf::client(apiserver::auth::user::KUBELET_CLIENT, None))?,
            admin: leaf(ADMIN, Leaf::client("kubernetes-admin", Some("system:masters")))?,
            service_account_key_pem: service_account_key(dir, start)?,
            authority,
        })
    }
}

/// Says what is wrong with each of the certificates and keys in a directory. Changes nothing. After a first start
/// that was cut short nothing is wrong with what is missing.
pub(crate) fn check(dir: &Path, start: Start) -> Vec<anyhow::Error> {
    let (authority, mut problems) = match Authority::check(dir) {
        Ok(authority) => (Some(authority), Vec::new()),
        Err(e) => (None, vec![e]),
    };
    problems.extend(LEAVES.iter().filter_map(|name| check_leaf(dir, name, authority.as_ref(), start).err()));
    let key = dir.join(SERVICE_ACCOUNT_KEY);
    let found = read_if_present(&key).and_then(|file| match file {
        Some(pem) => check_service_account_key(dir, &pem).map(drop),
        None if start == Start::First => Ok(()),
        None => bail!("{} is missing; the next start makes a new one", key.display()),
    });
    problems.extend(found.err());
    problems
}

fn check_leaf(dir: &Path, name: &str, authority: Option<&Authority>, start: Start) -> anyhow::Result<()> {
    let (certificate, key) = KeyPair::paths(dir, name);
    let (Some(certificate_file), Some(key_file)) = (read_if_present(&certificate)?, read_if_present(&key)?) else {
        ensure!(
            start == Start::First,
            "{} or {} is missing; the next start makes both anew",
            certificate.display(),
            key.display()
        );
        return Ok(());
    };
    let pair = KeyPair::read(&certificate_file, &key_file);
    let pair = pair.map_err(|part| {
        let damaged = dir.join(format!("{name}.{part}"));
        anyhow!("{} is damaged; the next start makes it anew", damaged.display())
    })?;
    ensure!(
        pair.belongs_together(),
        "{} is not the key of {}; the next start makes both anew",
        key.display(),
        certificate.display()
    );
    ensure!(
        authority.is_none_or(|authority| authority.has_signed(&pair.certificate_pem)),
        "{} is another authority's; the next start makes it anew",
        certificate.display()
    );
    Ok(())
}

/// What is there of an authority, so that a start knows that there was one.
pub(crate) struct Remains {
    pub key: bool,
    /// One of the files that are only made once there is a key.
    pub other: Option<PathBuf>,
}

/// Looks which of the files are there, and not at what they hold.
///
/// # Errors
/// When the file system does not say.
pub(crate) fn remains(dir: &Path) -> anyhow::Result<Remains> {
    let pairs = LEAVES.iter().flat_map(|name| <[PathBuf; 2]>::from(KeyPair::paths(dir, name)));
    let others = [AUTHORITY_CERTIFICATE, SERVICE_ACCOUNT_KEY].map(|name| dir.join(name));
    let mut other = None;
    for path in others.into_iter().chain(pairs) {
        if datadir::is_there(&path)? {
            other = Some(path);
            break;
        }
    }
    Ok(Remains { key: datadir::is_there(&dir.join(AUTHORITY_KEY))?, other })
}

fn check_service_account_key(dir: &Path, file: &[u8]) -> anyhow::Result<String> {
    pem::key(file).map(|key| key.serialize_pem()).with_context(|| {
        let path = dir.join(SERVICE_ACCOUNT_KEY);
        format!(
            "{} is damaged: it does not hold a key. Put a copy of it back, or remove it: tokens of service accounts are \
             then issued anew",
            path.display()
        )
    })
}

/// The key that signs tokens. A lost one is made anew: tokens are short-lived and pods ask for others.
fn service_account_key(dir: &Path, start: Start) -> anyhow::Result<String> {
    let path = dir.join(SERVICE_ACCOUNT_KEY);
    if let Some(file) = read_if_present(&path)? {
        return check_service_account_key(dir, &file);
    }
    if start == Start::Later {
        warn!(key = %path.display(), "missing: made anew; the tokens of service accounts that were issued are worth nothing");
    }
    let pem = rcgen::KeyPair::generate().context("generating a key")?.serialize_pem();
    write_private(&path, pem.as_bytes())?;
    Ok(pem)
}

fn read_if_present(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    statefile::read_optional(path).with_context(|| format!("reading {}", path.display()))
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
