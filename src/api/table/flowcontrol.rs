//! Flow schemas and priority levels.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::NONE;

impl Printed for FlowSchema {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("PriorityLevel", "The level that matching requests go to."),
        Column::text("MatchingPrecedence", "The order in which schemas are tried, lowest first."),
        Column::text("DistinguisherMethod", "What tells one flow from another."),
        AGE,
        Column::text("MissingPL", "Whether the priority level does not exist."),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let dangling = conditions.iter().find(|condition| condition.type_.as_deref() == Some("Dangling"));
        row![
            self.name(),
            spec.map_or("", |spec| spec.priority_level_configuration.name.as_str()),
            spec.and_then(|spec| spec.matching_precedence).unwrap_or_default(),
            spec.and_then(|spec| spec.distinguisher_method.as_ref()).map_or(NONE, |method| method.type_.as_str()),
            self.age(now),
            dangling.map_or("?", |condition| condition.status.as_deref().unwrap_or_default()),
        ]
    }
}

impl Printed for PriorityLevelConfiguration {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Type", "Whether the level is limited."),
        Column::text("NominalConcurrencyShares", "The level's share of the requests that run at a time."),
        Column::text("Queues", "How many queues the level has."),
        Column::text("HandSize", "How many queues one flow is spread over."),
        Column::text("QueueLengthLimit", "How many requests may wait in a queue."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let limited = self.spec.as_ref().and_then(|spec| spec.limited.as_ref());
        let queuing = limited.and_then(|limited| limited.limit_response.as_ref()?.queuing.as_ref());
        let number = |number: Option<Option<i32>>| {
            number.map_or_else(|| Value::from(NONE), |number| Value::from(number.unwrap_or_default()))
        };
        row![
            self.name(),
            self.spec.as_ref().map_or("", |spec| spec.type_.as_str()),
            number(limited.map(|limited| limited.nominal_concurrency_shares)),
            number(queuing.map(|queuing| queuing.queues)),
            number(queuing.map(|queuing| queuing.hand_size)),
            number(queuing.map(|queuing| queuing.queue_length_limit)),
            self.age(now),
        ]
    }
}
