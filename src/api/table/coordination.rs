//! Leases.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::plain;

impl Printed for Lease {
    const COLUMNS: &'static [Column] = &[NAME, Column::text("Holder", "Who holds the lease."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
        row![self.name(), plain(holder), self.age(now)]
    }
}
