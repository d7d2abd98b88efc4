//! A leaf certificate: whom it is for, and whether one on disk still serves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData as _, SanType};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::Subjects;
use super::pem::{self, Certificate};

/// A certificate and its PKCS#8 key, both PEM.
#[derive(Clone)]
pub(crate) struct KeyPair {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl KeyPair {
    /// Of the certificate and of the key.
    pub(super) fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
    }

    /// Takes what the two files hold; an error is the ending of the one that is damaged.
    pub(super) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, &'static str> {
        let certificate = Certificate::read(certificate).ok_or("crt")?;
        let key = pem::key(key).ok_or("key")?;
        Ok(Self { certificate_pem: certificate.pem, key_pem: key.serialize_pem() })
    }

    /// Whether the key is the certificate's.
    pub(super) fn belongs_together(&self) -> bool {
        let certificate = Certificate::read(self.certificate_pem.as_bytes());
        let key = pem::key(self.key_pem.as_bytes());
        let (Some(certificate), Some(key)) = (certificate, key) else { return false };
        certificate.parsed().public_key().raw == key.subject_public_key_info()
    }
}

/// What a certificate says.
pub(crate) struct Leaf {
    common_name: String,
    organization: Option<String>,
    usage: ExtendedKeyUsagePurpose,
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Leaf {
    pub(super) const DAYS: i64 = 365;
    /// Renewed with less left.
    const RENEW_DAYS: i64 = 90;

    pub(super) fn client(common_name: &str, organization: Option<&str>) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organization: organization.map(str::to_owned),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            names: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }

    pub(super) fn api_server(subjects: &Subjects<'_>) -> Self {
        let domain = subjects.cluster_domain;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .into_iter()
            .map(ToOwned::to_owned)
            .chain([format!("kubernetes.default.svc.{domain}"), subjects.node_name.to_owned()])
            .collect();
        let addresses =
            [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address"), subjects.node_ip, subjects.service_ip];
        let mut leaf = Self {
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            names,
            addresses: addresses.into(),
        };
        for extra in subjects.extra {
            match extra.parse() {
                Ok(ip) => leaf.addresses.insert(ip),
                Err(_) => leaf.names.insert(extra.clone()),
            };
        }
        leaf
    }

    pub(super) fn kubelet(subjects: &Subjects<'_>) -> Self {
        Self {
            common_name: format!("system:node:{}", subjects.node_name),
            organization: Some("system:nodes".to_owned()),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            names: BTreeSet::from([subjects.node_name.to_owned()]),
            addresses: BTreeSet::from([subjects.node_ip, IpAddr::from([127, 0, 0, 1])]),
        }
    }

    pub(super) fn params(&self) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        for name in &self.names {
            let name = name.as_str().try_into().with_context(|| format!("{name:?} is not a DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        Ok(params)
    }

    /// Why a pair does not serve: it must belong together, name these subjects and have enough of its
    /// time left.
    pub(super) fn problem(&self, pair: &KeyPair, now: Timestamp) -> Option<&'static str> {
        let Some(certificate) = Certificate::read(pair.certificate_pem.as_bytes()) else {
            return Some("it is damaged");
        };
        if !pair.belongs_together() {
            return Some("its key is another's");
        }
        let certificate = certificate.parsed();
        if !self.is_subject_of(&certificate) {
            return Some("it is another subject's");
        }
        if !self.is_named_in(&certificate) {
            return Some("its names are not those of now");
        }
        let left = certificate.validity().not_after.timestamp() - now.as_second();
        (left <= Self::RENEW_DAYS * 24 * 3600).then_some("it is about to end")
    }

    fn is_subject_of(&self, certificate: &X509Certificate<'_>) -> bool {
        let subject = certificate.subject();
        let names: Vec<_> = subject.iter_common_name().map(|n| n.as_str().ok()).collect();
        let organizations: Vec<_> = subject.iter_organization().map(|o| o.as_str().ok()).collect();
        let wanted: Vec<_> = self.organization.iter().map(|o| Some(o.as_str())).collect();
        names == [Some(self.common_name.as_str())] && organizations == wanted
    }

    fn is_named_in(&self, certificate: &X509Certificate<'_>) -> bool {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        if let Ok(Some(san)) = certificate.subject_alternative_name() {
            for name in &san.value.general_names {
                match name {
                    GeneralName::DNSName(n) => {
                        names.insert((*n).to_owned());
                    }
                    GeneralName::IPAddress(b) => {
                        addresses.extend(address(b));
                    }
                    _ => {}
                }
            }
        }
        names == self.names && addresses == self.addresses
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
