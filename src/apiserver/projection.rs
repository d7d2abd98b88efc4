//! What changed among the objects of one kind since the last look.
//!
//! The compiled policy and the address book of services are small structures made from objects. They
//! are kept current by pulling: whoever is about to use one takes in the changes first, so that it
//! shows every write that was acknowledged before. A look without changes costs one comparison.

use std::collections::HashMap;

use api::object::{GroupResource, Object, ObjectKey};

use crate::registry::Registry;

/// One difference to the last look.
#[derive(Debug)]
pub(crate) enum Change {
    Set(Object),
    Gone(ObjectKey),
}

impl Change {
    pub(crate) fn key(&self) -> &ObjectKey {
        match self {
            Self::Set(object) => &object.index.key,
            Self::Gone(key) => key,
        }
    }
}

/// The revisions of the objects that were seen last.
#[derive(Debug)]
pub(crate) struct Projection {
    resource: GroupResource,
    revision: Option<u64>,
    seen: HashMap<ObjectKey, u64>,
}

impl Projection {
    pub(crate) fn new(group: &str, resource: &str) -> Self {
        Self { resource: GroupResource::new(group, resource), revision: None, seen: HashMap::new() }
    }

    /// Whether a look could find changes.
    pub(crate) fn is_stale(&self, registry: &Registry) -> bool {
        self.revision != Some(registry.revision(&self.resource))
    }

    /// The changes since the last call.
    pub(crate) fn changes(&mut self, registry: &Registry) -> Vec<Change> {
        // Read before the list: a write between the two is found again at the next look, never lost.
        let revision = registry.revision(&self.resource);
        if self.revision == Some(revision) {
            return Vec::new();
        }
        let objects = registry.list(&self.resource, None);
        self.revision = Some(revision);
        self.compare(&objects)
    }

    fn compare(&mut self, objects: &[Object]) -> Vec<Change> {
        let mut gone = std::mem::take(&mut self.seen);
        let mut changes = Vec::new();
        for object in objects {
            let revision = object.index.resource_version;
            if gone.remove(&object.index.key) != Some(revision) {
                changes.push(Change::Set(object.clone()));
            }
            self.seen.insert(object.index.key.clone(), revision);
        }
        changes.extend(gone.into_keys().map(Change::Gone));
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::object::ObjectIndex;

    use super::*;

    fn object(name: &str, revision: u64) -> Object {
        let index = ObjectIndex { key: ObjectKey::new("", name), resource_version: revision, ..ObjectIndex::default() };
        Object { json: bytes::Bytes::new(), index: Arc::new(index) }
    }

    #[track_caller]
    fn check(projection: &mut Projection, objects: &[Object], expected: &[&str]) {
        let mut got: Vec<String> = projection
            .compare(objects)
            .iter()
            .map(|c| {
                let verb = if matches!(c, Change::Set(_)) { "set" } else { "gone" };
                format!("{verb} {}", c.key())
            })
            .collect();
        got.sort();
        assert_eq!(got, expected);
    }

    #[test]
    fn only_differences_are_reported() {
        let mut p = Projection::new("", "services");
        check(&mut p, &[object("a", 1), object("b", 2)], &["set a", "set b"]);
        check(&mut p, &[object("a", 1), object("b", 2)], &[]);
        check(&mut p, &[object("a", 5), object("c", 4)], &["gone b", "set a", "set c"]);
        check(&mut p, &[], &["gone a", "gone c"]);
    }
}
