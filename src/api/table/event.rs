//! Events, in the core form they are stored in or as `events.k8s.io` has them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSeries};
use k8s_openapi::api::events::v1 as events;
use serde::Deserialize;
use serde_json::Value;

use super::Column;
use super::column::NAME;
use super::kind::{Printed, row};
use super::text::{or, plain};
use crate::meta::duration::age;

impl Printed for Event {
    const COLUMNS: &'static [Column] = &[
        Column::text("Last Seen", "Time since this happened last."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "Why the event was sent, in a word."),
        Column::text("Object", "What the event is about."),
        Column::text("Subobject", "The part of the object that it is about.").wide(),
        Column::text("Source", "Who sent the event.").wide(),
        Column::text("Message", "What happened, for people to read."),
        Column::text("First Seen", "Time since this happened first.").wide(),
        Column::text("Count", "How often this happened.").wide(),
        NAME.wide(),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let event_time = self.event_time.as_ref().map(|time| time.0);
        let first = self.first_timestamp.as_ref().map(|time| time.0).or(event_time);
        let mut last = self.last_timestamp.as_ref().map(|time| time.0).or(first);
        // An event that happened once, sent through the newer API, has no count.
        let mut count = self.count.filter(|&count| count != 0).unwrap_or(1);
        if let Some(series) = &self.series {
            last = series.last_observed_time.as_ref().map(|time| time.0);
            count = series.count.unwrap_or_default();
        }
        row![
            age(last, now),
            plain(self.type_.as_ref()),
            plain(self.reason.as_ref()),
            object(self),
            plain(self.involved_object.field_path.as_ref()),
            source(self),
            plain(self.message.as_ref()).trim(),
            age(first, now),
            count,
            self.name(),
        ]
    }

    fn read(obj: &Value) -> Result<Self, serde_json::Error> {
        if obj.get("apiVersion").and_then(Value::as_str) == Some("events.k8s.io/v1") {
            return events::Event::deserialize(obj).map(in_core_form);
        }
        Self::deserialize(obj)
    }
}

fn object(event: &Event) -> String {
    let kind = plain(event.involved_object.kind.as_ref()).to_lowercase();
    match plain(event.involved_object.name.as_ref()) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Event) -> String {
    let source = event.source.as_ref();
    let component = source.and_then(|source| source.component.as_deref());
    let host = source.and_then(|source| source.host.as_deref());
    let component = or(component, plain(event.reporting_component.as_ref()));
    match or(host, plain(event.reporting_instance.as_ref())) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

fn in_core_form(event: events::Event) -> Event {
    let series = event
        .series
        .map(|series| EventSeries { count: Some(series.count), last_observed_time: Some(series.last_observed_time) });
    Event {
        metadata: event.metadata,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        reason: event.reason,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series,
        source: event.deprecated_source,
        type_: event.type_,
        ..Event::default()
    }
}
