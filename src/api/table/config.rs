//! Config maps, secrets and service accounts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::plain;

impl Printed for ConfigMap {
    const COLUMNS: &'static [Column] = &[NAME, Column::text("Data", "How many entries it has."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let texts = self.data.as_ref().map_or(0, |data| data.len());
        let binaries = self.binary_data.as_ref().map_or(0, |data| data.len());
        row![self.name(), texts + binaries, self.age(now)]
    }
}

impl Printed for Secret {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("Type", "What the secret is for."), Column::text("Data", "How many entries it has."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.as_ref().map_or(0, |data| data.len());
        row![self.name(), plain(self.type_.as_ref()), entries, self.age(now)]
    }
}

impl Printed for ServiceAccount {
    const COLUMNS: &'static [Column] = &[NAME, AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.age(now)]
    }
}
