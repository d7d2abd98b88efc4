//! The query and path parameters of operations.

use serde_json::{Map, Value, json};

use super::dialect::Dialect;

pub(super) struct Parameter {
    name: &'static str,
    /// `query` or `path`.
    place: &'static str,
    kind: &'static str,
    description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: "query", kind, description }
}

const fn path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: "path", kind: "string", description }
}

pub(super) const PRETTY: Parameter = query("pretty", "string", "If 'true', the answer is indented.");
pub(super) const NAME: Parameter = path("name", "name of the object");
pub(super) const NAMESPACE: Parameter = path("namespace", "namespace of the object");
pub(super) const PATH: Parameter = path("path", "path that the request is handed on to");
const DRY_RUN: Parameter =
    query("dryRun", "string", "With the value All, every stage of the request is run but nothing is stored.");
const FIELD_MANAGER: Parameter =
    query("fieldManager", "string", "The name under which the changed fields are recorded.");
const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What unknown and duplicate fields lead to: Ignore, Warn (the default) or Strict.",
);
const FORCE: Parameter = query("force", "boolean", "An apply patch takes over fields that others manage.");
const LABEL_SELECTOR: Parameter = query("labelSelector", "string", "Restricts the objects by their labels.");
const FIELD_SELECTOR: Parameter = query("fieldSelector", "string", "Restricts the objects by their fields.");
const RESOURCE_VERSION: Parameter =
    query("resourceVersion", "string", "The revision that the answer must be at, or not be older than.");
const RESOURCE_VERSION_MATCH: Parameter =
    query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan.");
const TIMEOUT: Parameter = query("timeoutSeconds", "integer", "How long a list or watch may last.");
const LIMIT: Parameter = query("limit", "integer", "At most so many objects are answered at once.");
const CONTINUE: Parameter = query("continue", "string", "Goes on with a list where the last answer ended.");
const WATCH: Parameter = query("watch", "boolean", "Answers with a stream of changes.");
const BOOKMARKS: Parameter =
    query("allowWatchBookmarks", "boolean", "A watch may send events that only tell the revision reached.");
const INITIAL_EVENTS: Parameter =
    query("sendInitialEvents", "boolean", "A watch begins with events for the objects that exist.");
const GRACE: Parameter =
    query("gracePeriodSeconds", "integer", "Seconds before the object is deleted; zero deletes at once.");
const ORPHAN: Parameter = query("orphanDependents", "boolean", "Deprecated: use propagationPolicy.");
const PROPAGATION: Parameter =
    query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground.");

pub(super) const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
pub(super) const APPLY: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
pub(super) const DELETE: &[Parameter] = &[DRY_RUN, GRACE, ORPHAN, PROPAGATION];
pub(super) const LIST: &[Parameter] = &[
    BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    TIMEOUT,
];

impl Parameter {
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut form = Map::new();
        form.insert("name".to_owned(), self.name.into());
        form.insert("in".to_owned(), self.place.into());
        form.insert("description".to_owned(), self.description.into());
        if self.place == "path" {
            form.insert("required".to_owned(), true.into());
        }
        match dialect {
            Dialect::V2 => {
                form.insert("type".to_owned(), self.kind.into());
                form.insert("uniqueItems".to_owned(), true.into());
            }
            Dialect::V3 => {
                form.insert("schema".to_owned(), json!({"type": self.kind, "uniqueItems": true}));
            }
        }
        form.into()
    }
}
