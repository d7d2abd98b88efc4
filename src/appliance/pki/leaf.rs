//! A leaf certificate: whom it is for, and whether one on disk still serves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData as _, SanType};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Subjects;

/// A certificate and its PKCS#8 key, both PEM.
#[derive(Clone)]
pub(crate) struct KeyPair {
    pub certificate_pem: String,
    pub key_pem: String,
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
        const DAMAGED: Option<&str> = Some("it is damaged");
        let Ok(pem) = pem_bytes(&pair.certificate_pem) else { return DAMAGED };
        let Ok((_, certificate)) = X509Certificate::from_der(&pem) else { return DAMAGED };
        let Ok(key) = rcgen::KeyPair::from_pem(&pair.key_pem) else { return Some("its key is damaged") };
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Some("its key is another's");
        }
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

pub(super) fn pem_bytes(pem: &str) -> anyhow::Result<Vec<u8>> {
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).context("not PEM")?;
    Ok(parsed.contents)
}
