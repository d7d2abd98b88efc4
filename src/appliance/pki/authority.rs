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
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::leaf::{KeyPair, Leaf, pem_bytes};
use super::{read_if_present, write_private};

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
    Whole {
        certificate_pem: String,
        key_pem: String,
    },
    /// The key is there, and its certificate is not, or is damaged.
    KeyAlone {
        key_pem: String,
    },
}

impl Authority {
    pub(super) fn open(dir: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let (certificate, key) = paths(dir);
        let made = match files(dir)? {
            Files::Whole { certificate_pem, key_pem } => return Ok(Self { certificate_pem, key_pem }),
            Files::KeyAlone { key_pem } => {
                if certificate.exists() {
                    std::fs::rename(&certificate, dir.join("ca.crt.damaged")).context("keeping the damaged ca.crt")?;
                }
                warn!(certificate = %certificate.display(), "missing or damaged: made again from its key");
                Self::make(key_pem, now)?
            }
            Files::Absent => {
                let made = Self::make(RcgenKey::generate().context("generating the CA's key")?.serialize_pem(), now)?;
                // The key first: it is what the certificate can be made again from.
                write_private(&key, made.key_pem.as_bytes())?;
                made
            }
        };
        write_private(&certificate, made.certificate_pem.as_bytes())?;
        Ok(made)
    }

    /// Says what is wrong with the files of an authority that is there.
    pub(super) fn check(dir: &Path) -> anyhow::Result<Self> {
        match files(dir)? {
            Files::Whole { certificate_pem, key_pem } => Ok(Self { certificate_pem, key_pem }),
            Files::KeyAlone { .. } => bail!("ca.crt is missing or damaged; the next start makes it again from ca.key"),
            Files::Absent => bail!("there are none; the next start makes them"),
        }
    }

    fn make(key_pem: String, now: Timestamp) -> anyhow::Result<Self> {
        let key = RcgenKey::from_pem(&key_pem).context("reading the CA's key")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "coracle-ca");
        let (from, until) = validity(now, YEARS * 365)?;
        params.not_before = from;
        params.not_after = until;
        let certificate = params.self_signed(&key).context("signing the CA's certificate")?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem })
    }

    /// Loads a certificate and its key, or makes them when they are missing, stale, for others, or not of
    /// this authority.
    pub(super) fn leaf(&self, dir: &Path, name: &str, leaf: &Leaf, now: Timestamp) -> anyhow::Result<KeyPair> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let (Some(certificate_pem), Some(key_pem)) = (read_if_present(&certificate)?, read_if_present(&key)?) {
            let pair = KeyPair { certificate_pem, key_pem };
            match self.problem(leaf, &pair, now) {
                None => return Ok(pair),
                Some(problem) => info!(name, problem, "certificate issued anew"),
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

    /// Whether a certificate bears this authority's signature.
    pub(super) fn has_signed(&self, certificate_pem: &str) -> bool {
        let (Ok(authority), Ok(leaf)) = (pem_bytes(&self.certificate_pem), pem_bytes(certificate_pem)) else {
            return false;
        };
        let (Ok((_, authority)), Ok((_, leaf))) =
            (X509Certificate::from_der(&authority), X509Certificate::from_der(&leaf))
        else {
            return false;
        };
        leaf.verify_signature(Some(authority.public_key())).is_ok()
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
    (dir.join("ca.crt"), dir.join("ca.key"))
}

/// Reads both files and tells what can go on with them.
fn files(dir: &Path) -> anyhow::Result<Files> {
    let (certificate, key) = paths(dir);
    let (certificate_pem, key_pem) = (read_if_present(&certificate)?, read_if_present(&key)?);
    let Some(key_pem) = key_pem else {
        let signed = certificate_pem.is_some() || dir.join("kube-apiserver.crt").exists();
        ensure!(
            !signed,
            "{} is missing, without which no certificate can be issued. Put it and ca.crt back; a new authority, which \
             none of the kubeconfigs and certificates of this one know, is made once {} is removed",
            key.display(),
            dir.display()
        );
        return Ok(Files::Absent);
    };
    let parsed = RcgenKey::from_pem(&key_pem);
    let parsed = parsed
        .with_context(|| format!("{} is damaged: it does not hold a key; put a copy of it back", key.display()))?;
    let Some(certificate_pem) = certificate_pem else { return Ok(Files::KeyAlone { key_pem }) };
    let Some(owner) = owner(&certificate_pem) else { return Ok(Files::KeyAlone { key_pem }) };
    ensure!(
        owner == parsed.subject_public_key_info(),
        "{} is not the certificate of {}: put the pair that belongs together back",
        certificate.display(),
        key.display()
    );
    Ok(Files::Whole { certificate_pem, key_pem })
}

/// The public key of a certificate that its owner has signed; `None` when it is damaged.
fn owner(certificate_pem: &str) -> Option<Vec<u8>> {
    let der = pem_bytes(certificate_pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    certificate.verify_signature(None).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn validity(now: Timestamp, days: i64) -> anyhow::Result<(time::OffsetDateTime, time::OffsetDateTime)> {
    let floor: Timestamp = CLOCK_FLOOR.parse().context("the clock floor")?;
    let until = now.max(floor).checked_add((days * 24).hours()).context("the end of a certificate")?;
    let convert =
        |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.as_second()).context("a certificate's date");
    Ok((convert(floor)?, convert(until)?))
}
