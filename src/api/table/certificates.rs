//! Certificate signing requests.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{NONE, or, plain};
use crate::meta::duration::human_duration;

impl Printed for CertificateSigningRequest {
    const COLUMNS: &'static [Column] = &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is asked to sign."),
        Column::text("Requestor", "Who asked."),
        Column::text("RequestedDuration", "How long the certificate should be valid."),
        Column::text("Condition", "Whether it was approved and signed."),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let seconds = spec.expiration_seconds.map(i64::from);
        row![
            self.name(),
            self.age(now),
            or(Some(&spec.signer_name), NONE),
            plain(spec.username.as_ref()),
            seconds.map_or_else(|| NONE.to_owned(), human_duration),
            self.status.as_ref().map_or_else(|| "Pending".to_owned(), state),
        ]
    }
}

fn state(status: &CertificateSigningRequestStatus) -> String {
    let has = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    let decision = ["Denied", "Approved"].into_iter().find(|decision| has(decision));
    let mut state = vec![decision.unwrap_or("Pending")];
    if has("Failed") {
        state.push("Failed");
    }
    if status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty()) {
        state.push("Issued");
    }
    state.join(",")
}
