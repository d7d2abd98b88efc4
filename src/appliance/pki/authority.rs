//! The cluster's certificate authority.
//!
//! Whatever was signed by it, in kubeconfigs and on other machines, is worth nothing without it: it is
//! made once. A certificate that is lost or damaged is made again from the key; a key that is lost is
//! an error, and nothing takes its place.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as RcgenKey, KeyUsagePurpose, PublicKeyData as _,
};
use rustls_pki_types::CertificateDer;
use tracing::{info, warn};

use super::leaf::{KeyPair, Leaf};
use super::pem::{self, Certificate};
use super::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY, read_if_present, write_private};
use crate::datadir::Start;

/// Every certificate starts here, whatever the clock says: one issued while the clock was ahead would
/// else not be valid once it is right, and none would serve on a board that boots in 1970.
pub(super) const CLOCK_FLOOR: &str = "2026-01-01T00:00:00Z";
const YEARS: i64 = 25;

/// Signs the cluster's certificates.
pub(crate) struct Authority {
    pub certificate_pem: String,
    key_pem: String,
}

/// What the two files of an authority are to each other.
enum Files {
    Absent,
    Whole(Authority),
    /// The key is there, and its certificate is not, or is damaged.
    KeyAlone(Box<RcgenKey>),
}

impl Authority {
    pub(super) fn open(dir: &Path, start: Start, now: Timestamp) -> anyhow::Result<Self> {
        let (certificate, key) = paths(dir);
        let made = match files(dir)? {
            Files::Whole(authority) => return Ok(authority),
            Files::KeyAlone(key) => {
                put_aside(&certificate)?;
                warn!(certificate = %certificate.display(), "missing or damaged: made again from its key");
                Self::make(&key, now)?
            }
            Files::Absent => {
                ensure!(
                    start == Start::First,
                    "{} is missing, without which no certificate can be issued",
                    key.display()
                );
                put_aside(&certificate)?;
                let made = Self::make(&RcgenKey::generate().context("generating the CA's key")?, now)?;
                // The key first: it is what the certificate can be made again from, and what says that there is an
                // authority.
                write_private(&key, made.key_pem.as_bytes())?;
                made
            }
        };
        write_private(&certificate, made.certificate_pem.as_bytes())?;
        Ok(made)
    }

    /// Says what is wrong with the files of an authority that is there.
    pub(super) fn check(dir: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = paths(dir);
        match files(dir)? {
            Files::Whole(authority) => Ok(authority),
            Files::KeyAlone(_) => bail!(
                "{} is missing or damaged; the next start makes it again from {AUTHORITY_KEY}",
                certificate.display()
            ),
            Files::Absent => bail!("{} is missing, without which no certificate can be issued", key.display()),
        }
    }

    fn make(key: &RcgenKey, now: Timestamp) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "coracle-ca");
        let (from, until) = validity(now, YEARS * 365)?;
        params.not_before = from;
        params.not_after = until;
        let certificate = params.self_signed(key).context("signing the CA's certificate")?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Loads a certificate and its key, or makes them when they are missing, damaged, stale, for others, or not of
    /// this authority.
    pub(super) fn leaf(&self, dir: &Path, name: &str, leaf: &Leaf, now: Timestamp) -> anyhow::Result<KeyPair> {
        let (certificate, key) = KeyPair::paths(dir, name);
        if let (Some(certificate_file), Some(key_file)) = (read_if_present(&certificate)?, read_if_present(&key)?) {
            match KeyPair::read(&certificate_file, &key_file) {
                Ok(pair) => match self.problem(leaf, &pair, now) {
                    None => return Ok(pair),
                    Some(problem) => info!(name, problem, "certificate issued anew"),
                },
                Err(part) => {
                    let damaged = dir.join(format!("{name}.{part}"));
                    warn!(file = %damaged.display(), "damaged: certificate and key are issued anew");
                }
            }
        }
        let pair = self.issue(leaf, now).with_context(|| format!("issuing the certificate {name}"))?;
        write_private(&key, pair.key_pem.as_bytes())?;
        write_private(&certificate, pair.certificate_pem.as_bytes())?;
        Ok(pair)
    }

    fn problem(&self, leaf: &Leaf, pair: &KeyPair, now: Timestamp) -> Option<&'static str> {
        let problem = leaf.problem(pair, now);
        problem.or_else(|| (!self.has_signed(&pair.certificate_pem)).then_some("it is not of this cluster's authority"))
    }

    /// Whether a certificate is whole and bears this authority's signature.
    pub(super) fn has_signed(&self, certificate_pem: &str) -> bool {
        let read = |pem: &str| Certificate::read(pem.as_bytes());
        let (Some(authority), Some(leaf)) = (read(&self.certificate_pem), read(certificate_pem)) else {
            return false;
        };
        leaf.parsed().verify_signature(Some(authority.parsed().public_key())).is_ok()
    }

    fn issue(&self, leaf: &Leaf, now: Timestamp) -> anyhow::Result<KeyPair> {
        let ca_key = RcgenKey::from_pem(&self.key_pem).context("reading the CA's key")?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, ca_key).context("reading the CA's certificate")?;
        let key = RcgenKey::generate().context("generating a key")?;
        let mut params = leaf.params()?;
        let (from, until) = validity(now, Leaf::DAYS)?;
        params.not_before = from;
        params.not_after = until;
        let certificate = params.signed_by(&key, &issuer).context("signing")?;
        Ok(KeyPair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY))
}

/// Keeps a certificate that another one takes the place of.
fn put_aside(certificate: &Path) -> anyhow::Result<()> {
    let mut aside = certificate.as_os_str().to_owned();
    aside.push(".damaged");
    match std::fs::rename(certificate, &aside) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.with_context(|| format!("keeping the damaged {}", certificate.display())),
    }
}

/// Reads both files and tells what can go on with them.
fn files(dir: &Path) -> anyhow::Result<Files> {
    let (certificate_path, key_path) = paths(dir);
    let (certificate, key) = (read_if_present(&certificate_path)?, read_if_present(&key_path)?);
    let Some(key) = key else { return Ok(Files::Absent) };
    let key = pem::key(&key);
    let key = key
        .with_context(|| format!("{} is damaged: it does not hold a key; put a copy of it back", key_path.display()))?;
    let Some(certificate) = certificate.as_deref().and_then(whole) else { return Ok(Files::KeyAlone(key.into())) };
    ensure!(
        certificate.parsed().public_key().raw == key.subject_public_key_info(),
        "{} is not the certificate of {}: put the pair that belongs together back",
        certificate_path.display(),
        key_path.display()
    );
    if Issuer::from_ca_cert_der(&CertificateDer::from(certificate.der()), &key).is_err() {
        return Ok(Files::KeyAlone(key.into()));
    }
    Ok(Files::Whole(Authority { certificate_pem: certificate.pem, key_pem: key.serialize_pem() }))
}

/// An authority's certificate, which its owner has signed; `None` when it is damaged.
pub(super) fn whole(file: &[u8]) -> Option<Certificate> {
    let certificate = Certificate::read(file)?;
    certificate.parsed().verify_signature(None).ok()?;
    rustls::RootCertStore::empty().add(CertificateDer::from(certificate.der()).into_owned()).ok()?;
    Some(certificate)
}

fn validity(now: Timestamp, days: i64) -> anyhow::Result<(time::OffsetDateTime, time::OffsetDateTime)> {
    let floor: Timestamp = CLOCK_FLOOR.parse().context("the clock floor")?;
    let until = now.max(floor).checked_add((days * 24).hours()).context("the end of a certificate")?;
    let convert =
        |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.as_second()).context("a certificate's date");
    Ok((convert(floor)?, convert(until)?))
}
