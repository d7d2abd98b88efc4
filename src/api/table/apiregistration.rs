//! API services.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::plain;

impl Printed for APIService {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Service", "The service that serves this API, or Local."),
        Column::text("Available", "Whether the API can be reached."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let service = self.spec.as_ref().and_then(|spec| spec.service.as_ref()).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", plain(service.namespace.as_ref()), plain(service.name.as_ref())),
        );
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let available = conditions.iter().find(|condition| condition.type_ == "Available");
        row![self.name(), service, available.map_or_else(|| "Unknown".to_owned(), availability), self.age(now)]
    }
}

fn availability(condition: &APIServiceCondition) -> String {
    match plain(condition.reason.as_ref()) {
        reason if condition.status != "True" && !reason.is_empty() => format!("{} ({reason})", condition.status),
        _ => condition.status.clone(),
    }
}
