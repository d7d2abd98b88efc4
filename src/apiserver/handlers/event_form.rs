//! The two forms of an event: `v1`, which is stored, and `events.k8s.io/v1`, which names the same
//! fields differently.

use serde_json::Value;

/// Field of `events.k8s.io/v1`, field of `v1`; every other field has one name.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Turns an event of `events.k8s.io/v1` into one of `v1`.
pub(super) fn to_core(event: Value) -> Value {
    renamed(event, RENAMED.iter().copied())
}

/// Turns an event of `v1` into one of `events.k8s.io/v1`.
pub(super) fn to_events(event: Value) -> Value {
    renamed(event, RENAMED.iter().map(|(events, core)| (*core, *events)))
}

/// The field of `v1` that a selectable field of `events.k8s.io/v1` stands for.
pub(super) fn core_field(field: &str) -> String {
    let (head, rest) = field.split_once('.').map_or((field, ""), |(head, _)| (head, &field[head.len()..]));
    let renamed = RENAMED.iter().find(|(events, _)| *events == head).map_or(head, |(_, core)| core);
    format!("{renamed}{rest}")
}

fn renamed(mut event: Value, names: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for (from, to) in names {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_keeps_its_content_in_either_form() {
        let core = json!({
            "involvedObject": {"name": "p"}, "message": "m", "reportingComponent": "c", "reason": "R",
            "source": {"component": "c"}, "firstTimestamp": "t1", "lastTimestamp": "t2", "count": 2,
        });
        let events = json!({
            "regarding": {"name": "p"}, "note": "m", "reportingController": "c", "reason": "R",
            "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": "t1",
            "deprecatedLastTimestamp": "t2", "deprecatedCount": 2,
        });
        assert_eq!(to_events(core.clone()), events);
        assert_eq!(to_core(events), core);
    }

    #[test]
    fn selectable_fields_are_translated() {
        for (events, core) in [
            ("regarding.kind", "involvedObject.kind"),
            ("reportingController", "reportingComponent"),
            ("reason", "reason"),
            ("metadata.name", "metadata.name"),
        ] {
            assert_eq!(core_field(events), core);
        }
    }
}
