//! The cluster's certificate authority.

use std::path::Path;

use anyhow::Context;
use jiff::{Timestamp, ToSpan};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as RcgenKey, KeyUsagePurpose};

use super::leaf::{KeyPair, Leaf};
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

impl Authority {
    pub(super) fn open(dir: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if let (Some(certificate_pem), Some(key_pem)) = (read_if_present(&certificate)?, read_if_present(&key)?) {
            return Ok(Self { certificate_pem, key_pem });
        }
        let made = Self::make(now)?;
        // The key first: a certificate without its key could not be told from a damaged directory.
        write_private(&key, made.key_pem.as_bytes())?;
        write_private(&certificate, made.certificate_pem.as_bytes())?;
        Ok(made)
    }

    fn make(now: Timestamp) -> anyhow::Result<Self> {
        let key = RcgenKey::generate().context("generating the CA's key")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "coracle-ca");
        let (from, until) = validity(now, YEARS * 365)?;
        params.not_before = from;
        params.not_after = until;
        let certificate = params.self_signed(&key).context("signing the CA's certificate")?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Loads a certificate and its key, or makes them when they are missing, stale, or for others.
    pub(super) fn leaf(&self, dir: &Path, name: &str, leaf: &Leaf, now: Timestamp) -> anyhow::Result<KeyPair> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let (Some(certificate_pem), Some(key_pem)) = (read_if_present(&certificate)?, read_if_present(&key)?) {
            let pair = KeyPair { certificate_pem, key_pem };
            if leaf.is_served_by(&pair, now) {
                return Ok(pair);
            }
        }
        let pair = self.issue(leaf, now).with_context(|| format!("issuing the certificate {name}"))?;
        write_private(&key, pair.key_pem.as_bytes())?;
        write_private(&certificate, pair.certificate_pem.as_bytes())?;
        Ok(pair)
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

fn validity(now: Timestamp, days: i64) -> anyhow::Result<(time::OffsetDateTime, time::OffsetDateTime)> {
    let floor: Timestamp = CLOCK_FLOOR.parse().context("the clock floor")?;
    let until = now.max(floor).checked_add((days * 24).hours()).context("the end of a certificate")?;
    let convert =
        |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.as_second()).context("a certificate's date");
    Ok((convert(floor)?, convert(until)?))
}
