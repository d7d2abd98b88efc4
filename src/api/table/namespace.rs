//! Namespaces and their quotas.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{amount, plain};

impl Printed for Namespace {
    const COLUMNS: &'static [Column] = &[NAME, Column::text("Status", "Active or Terminating."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_ref());
        row![self.name(), plain(phase), self.age(now)]
    }
}

impl Printed for ResourceQuota {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Request", "Used and allowed requests and numbers of objects."),
        Column::text("Limit", "Used and allowed limits."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let used = status.and_then(|status| status.used.as_ref());
        let hard = status.and_then(|status| status.hard.as_ref());
        let (mut limits, mut requests) = (Vec::new(), Vec::new());
        for resource in hard.into_iter().flat_map(|hard| hard.keys()) {
            let side = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
            side.push(format!("{resource}: {}/{}", amount(used, resource), amount(hard, resource)));
        }
        row![self.name(), requests.join(", "), limits.join(", "), self.age(now)]
    }
}
