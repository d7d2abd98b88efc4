//! What `kubectl get` shows: the columns of each resource and the cells of one object.
//!
//! The API server renders tables; clients only lay them out. `now` is an argument, so that ages can be
//! tested.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta::duration;

/// One column of a table; priority 1 shows with `-o wide` only.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub r#type: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    pub priority: i32,
}

const GENERIC: &[Column] = &[
    Column {
        name: "Name",
        r#type: "string",
        format: "name",
        description: "Name of the object, unique in its namespace.",
        priority: 0,
    },
    Column {
        name: "Created At",
        r#type: "date",
        format: "",
        description: "When the server made the object.",
        priority: 0,
    },
];

/// The columns of a resource.
#[must_use]
pub fn columns(_group: &str, _resource: &str) -> &'static [Column] {
    GENERIC
}

/// One row: as many cells as there are columns.
#[must_use]
pub fn cells(_group: &str, _resource: &str, obj: &Value, now: Timestamp) -> Vec<Value> {
    let _ = duration::age(None, now);
    vec![json!(obj.pointer("/metadata/name")), json!(obj.pointer("/metadata/creationTimestamp"))]
}
