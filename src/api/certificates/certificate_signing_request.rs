//! Certificate signing requests. Who asks is written by the server; the spec never changes.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

const USAGES: &[&str] = &[
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];
/// Ten minutes: clocks differ.
const EXPIRATION_MIN: i32 = 600;

pub(crate) struct CertificateSigningRequest;

impl Kind for CertificateSigningRequest {
    type Object = api::CertificateSigningRequest;

    /// The requester's identity and the request itself are fixed at creation.
    fn prepare_update(&self, new: &mut api::CertificateSigningRequest, old: &api::CertificateSigningRequest) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, obj: &api::CertificateSigningRequest, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let spec = &obj.spec;
        let text = String::from_utf8_lossy(&spec.request.0);
        if !text.contains("-----BEGIN CERTIFICATE REQUEST-----") {
            let why = "PEM block type must be CERTIFICATE REQUEST";
            errs.push(field::invalid(&path.child("request"), &spec.request, why));
        }
        let usages = spec.usages.as_deref().unwrap_or_default();
        let at = path.child("usages");
        if usages.is_empty() {
            errs.push(field::required(&at, ""));
        }
        let mut seen = BTreeSet::new();
        for (i, usage) in usages.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            if !USAGES.contains(&usage.as_str()) {
                errs.push(field::not_supported(&at.index(i), usage, USAGES));
            }
            if !seen.insert(usage) {
                errs.push(field::duplicate(&at.index(i), usage));
            }
        }
        validate_signer_name(&spec.signer_name, &path.child("signerName"), errs);
        if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < EXPIRATION_MIN) {
            let why = format!("may not specify a duration less than {EXPIRATION_MIN} seconds (10 minutes)");
            errs.push(field::invalid(&path.child("expirationSeconds"), &seconds, why));
        }
    }

    fn validate_update(
        &self,
        _new: &api::CertificateSigningRequest,
        _old: &api::CertificateSigningRequest,
        _errs: &mut ErrorList,
    ) {
    }
}

/// `example.com/path`.
fn validate_signer_name(name: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if name.is_empty() {
        errs.push(field::required(path, ""));
        return;
    }
    let mut parts = name.split('/');
    let (Some(domain), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errs.push(field::invalid(path, name, why));
        return;
    };
    for part in [domain, rest] {
        let why = crate::meta::format::dns1123_subdomain(part);
        for why in why {
            errs.push(field::invalid(path, part, format!("validating label {}: {why}", field::quote(part))));
        }
    }
    if domain.split('.').count() < 2 {
        errs.push(field::invalid(path, domain, "should be a domain with at least two segments separated by dots"));
    }
}
