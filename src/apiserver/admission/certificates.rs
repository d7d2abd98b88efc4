//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve or sign
//! for a signer, and what nobody may ask of one.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
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

/// Nobody becomes a member of `system:masters` by a certificate from the API.
fn restrict_subject(review: &Review<'_>) -> Result<(), ApiError> {
    let request: CertificateSigningRequest = review.typed()?;
    if request.spec.signer_name != CLIENT_SIGNER {
        return Ok(());
    }
    let organizations = organizations(&request.spec.request.0).map_err(|e| review.forbidden(e))?;
    if organizations.iter().any(|o| o == user::MASTERS) {
        return Err(
            review.forbidden(format!("use of {CLIENT_SIGNER} signer with {} group is not allowed", user::MASTERS))
        );
    }
    Ok(())
}

/// The organisations that a PEM-encoded request names in its subject.
fn organizations(pem: &[u8]) -> Result<Vec<String>, &'static str> {
    const DAMAGED: &str = "could not parse the certificate signing request";
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| DAMAGED)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| DAMAGED)?;
    let subject = &request.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;
    use crate::admission::tests::review;

    fn request(organization: &str, signer: &str) -> serde_json::Value {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        serde_json::json!({"metadata": {}, "spec": {"request": STANDARD.encode(pem), "signerName": signer}})
    }

    #[test]
    fn no_certificate_makes_a_master() {
        #[track_caller]
        fn check(organization: &str, signer: &str, expected: Result<(), &str>) {
            let mut object = Some(request(organization, signer));
            let got = restrict_subject(&review(Operation::Create, "certificatesigningrequests", "/r", &mut object));
            assert_eq!(got.map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{organization} {signer}");
        }
        check("devs", CLIENT_SIGNER, Ok(()));
        check("system:masters", "example.com/own", Ok(()));
        let message = "certificatesigningrequests \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client \
                       signer with system:masters group is not allowed";
        check("system:masters", CLIENT_SIGNER, Err(message));
    }
}
