//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve or sign
//! for a signer, and what nobody may ask of one.

use api::field::{self, Path};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;
use x509_parser::prelude::FromDer;

use super::review::{Operation, Review};
use crate::auth::attributes::ResourceTarget;
use crate::auth::{Attributes, Auth, user};
use crate::error::ApiError;
use crate::registry::Registry;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn validate(auth: &Auth, registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    if *review.resource.group != *GROUP || *review.resource.resource != *"certificatesigningrequests" {
        return Ok(());
    }
    match (review.operation, review.subresource) {
        (Operation::Create, "") => restrict_subject(review),
        (Operation::Update, "approval") => {
            let request: CertificateSigningRequest = review.typed_old()?;
            if may(auth, registry, review, "approve", &request.spec.signer_name) {
                return Ok(());
            }
            let signer = &request.spec.signer_name;
            Err(review.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
        }
        (Operation::Update, "status") => {
            let (old, new): (CertificateSigningRequest, CertificateSigningRequest) =
                (review.typed_old()?, review.typed()?);
            let signer = &old.spec.signer_name;
            let certificate = |r: &CertificateSigningRequest| r.status.as_ref().and_then(|s| s.certificate.clone());
            if certificate(&old) == certificate(&new) || may(auth, registry, review, "sign", signer) {
                return Ok(());
            }
            Err(review.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
        }
        _ => Ok(()),
    }
}

/// The verb is asked for the signer itself, then for all signers of its domain.
fn may(auth: &Auth, registry: &Registry, review: &Review<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or_else(|| signer.to_owned(), |(domain, _)| format!("{domain}/*"));
    [signer, &domain].into_iter().any(|name| {
        let target = ResourceTarget { group: GROUP, resource: "signers", name, ..ResourceTarget::default() };
        auth.decide(registry, &Attributes::resource(review.user, verb, target)).is_allowed()
    })
}

/// A request can be read, whoever is to sign it; and nobody becomes a member of `system:masters` by a
/// certificate from the API.
fn restrict_subject(review: &Review<'_>) -> Result<(), ApiError> {
    let request: CertificateSigningRequest = review.typed()?;
    let der = CertificateSigningRequestDer::from_pem_slice(&request.spec.request.0).map_err(|e| e.to_string());
    let parsed = der.and_then(|der| organizations(&der)).map_err(|why| {
        let path = Path::new("spec");
        let error = field::invalid(&path.child("request"), &request.spec.request, why);
        ApiError::invalid(GROUP, "CertificateSigningRequest", review.name, &[error])
    })?;
    if request.spec.signer_name != CLIENT_SIGNER {
        return Ok(());
    }
    let Some(organizations) = parsed else {
        return Err(review.forbidden(format!("{CLIENT_SIGNER} signer cannot read all strings of the subject")));
    };
    if organizations.iter().any(|o| o == user::MASTERS) {
        return Err(
            review.forbidden(format!("use of {CLIENT_SIGNER} signer with {} group is not allowed", user::MASTERS))
        );
    }
    Ok(())
}

/// The organisations that a request names in its subject; `None` when the subject has a string of a type
/// that is not understood here, but may be by whoever reads the certificate.
///
/// # Errors
/// Why this is no request.
fn organizations(der: &[u8]) -> Result<Option<Vec<String>>, String> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|e| format!("asn1: {e}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    let subject = &request.certification_request_info.subject;
    let texts: Option<Vec<(bool, String)>> = subject
        .iter_attributes()
        .map(|attribute| {
            let is_organization = *attribute.attr_type() == OID_X509_ORGANIZATION_NAME;
            Some((is_organization, text_of(attribute.attr_value())?))
        })
        .collect();
    Ok(texts.map(|texts| texts.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect()))
}

/// A string of one of the types that Go's decoder knows.
fn text_of(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::T61String => {
            Some(String::from_utf8_lossy(value.data).into_owned())
        }
        Tag::BmpString => {
            let (pairs, rest) = value.data.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::string::{BmpString, TeletexString, UniversalString};
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;
    use crate::admission::tests::review;

    fn request(organization: impl Into<DnValue>, signer: &str) -> serde_json::Value {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        serde_json::json!({"metadata": {}, "spec": {"request": STANDARD.encode(pem), "signerName": signer}})
    }

    #[test]
    fn no_certificate_makes_a_master() {
        #[track_caller]
        fn check(organization: impl Into<DnValue>, signer: &str, expected: Result<(), &str>) {
            let mut object = Some(request(organization, signer));
            let got = restrict_subject(&review(Operation::Create, "certificatesigningrequests", "/r", &mut object));
            assert_eq!(got.map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{signer}");
        }
        check("devs", CLIENT_SIGNER, Ok(()));
        check("system:masters", "example.com/own", Ok(()));
        let message = "certificatesigningrequests \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client \
                       signer with system:masters group is not allowed";
        check("system:masters", CLIENT_SIGNER, Err(message));
        let bmp = || DnValue::BmpString(BmpString::try_from("system:masters").unwrap());
        check(bmp(), CLIENT_SIGNER, Err(message));
        check(bmp(), "example.com/own", Ok(()));
        let teletex = TeletexString::try_from("system:masters").unwrap();
        check(DnValue::TeletexString(teletex), CLIENT_SIGNER, Err(message));
        let unknown = UniversalString::try_from("devs").unwrap();
        let message = "certificatesigningrequests \"r\" is forbidden: kubernetes.io/kube-apiserver-client signer \
                       cannot read all strings of the subject";
        check(DnValue::UniversalString(unknown), CLIENT_SIGNER, Err(message));
    }

    #[test]
    fn what_is_no_request_is_invalid_for_every_signer() {
        for signer in [CLIENT_SIGNER, "example.com/own"] {
            let pem = "-----BEGIN CERTIFICATE REQUEST-----\naGVsbG8=\n-----END CERTIFICATE REQUEST-----\n";
            let spec = serde_json::json!({"request": STANDARD.encode(pem), "signerName": signer});
            let mut object = Some(serde_json::json!({"metadata": {}, "spec": spec}));
            let got = restrict_subject(&review(Operation::Create, "certificatesigningrequests", "/r", &mut object));
            let status = k8s_openapi::apimachinery::pkg::apis::meta::v1::Status::from(&got.unwrap_err());
            assert_eq!((status.code, status.reason.as_deref()), (Some(422), Some("Invalid")), "{status:?}");
        }
    }
}
