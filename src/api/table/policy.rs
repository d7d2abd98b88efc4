//! Pod disruption budgets and priority classes.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{int_or_string, plain};

impl Printed for PodDisruptionBudget {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Min Available", "How many pods must stay available."),
        Column::text("Max Unavailable", "How many pods may be unavailable."),
        Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let bound = |value: Option<&IntOrString>| value.map_or_else(|| "N/A".to_owned(), int_or_string);
        row![
            self.name(),
            bound(spec.and_then(|spec| spec.min_available.as_ref())),
            bound(spec.and_then(|spec| spec.max_unavailable.as_ref())),
            self.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or_default(),
            self.age(now),
        ]
    }
}

impl Printed for PriorityClass {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Value", "The priority that pods of this class get."),
        Column::boolean("Global-Default", "Whether pods without a class get this one."),
        AGE,
        Column::text("PreemptionPolicy", "Whether pods of this class may push out others."),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![
            self.name(),
            self.value,
            self.global_default.unwrap_or(false),
            self.age(now),
            plain(self.preemption_policy.as_ref()),
        ]
    }
}
