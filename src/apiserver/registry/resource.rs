//! A row with everything that is looked up once: names as shared strings, the types of its versions,
//! the rules of its kind.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use api::kinds::KindRules;
use api::object::GroupResource;
use api::schema::TypeId;

use super::row::Row;
use super::rows::ROWS;

/// One version of a resource that clients can ask for.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) version: &'static str,
    /// `v1` or `apps/v1`.
    pub(crate) api_version: String,
    pub(crate) ty: Option<TypeId>,
    /// How the JSON of every object of this version begins, up to its metadata.
    pub(crate) type_prefix: Arc<str>,
}

/// A served resource.
pub(crate) struct Resource {
    pub(crate) row: &'static Row,
    pub(crate) name: GroupResource,
    pub(crate) served: Vec<Served>,
    /// The form in which its objects are stored.
    pub(crate) stored: Served,
    /// The group of the stored form.
    pub(crate) stored_group: &'static str,
    /// The part of a storage key that its objects share.
    pub(crate) collection: String,
    pub(crate) rules: &'static dyn KindRules,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({})", self.name)
    }
}

impl Resource {
    fn new(row: &'static Row) -> Self {
        let stored_group = row.stored_in.unwrap_or(row.group);
        let directory = if stored_group.is_empty() { "core" } else { stored_group };
        Self {
            row,
            name: GroupResource::new(row.group, row.resource),
            served: row.versions.iter().map(|v| Served::new(row.group, v, row.kind)).collect(),
            stored: Served::new(stored_group, row.stored_version, row.kind),
            stored_group,
            collection: format!("{directory}/{}", row.resource),
            rules: api::kinds::rules(stored_group, row.kind),
        }
    }

    pub(crate) fn served(&self, version: &str) -> Option<&Served> {
        self.served.iter().find(|s| s.version == version)
    }

    /// Whether the stored bytes are those that a client of this version expects.
    pub(crate) fn is_stored_as(&self, served: &Served) -> bool {
        served.api_version == self.stored.api_version
    }

    /// The part of the storage key after the collection.
    pub(crate) fn item(&self, namespace: &str, name: &str) -> String {
        if self.row.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }
}

impl Served {
    fn new(group: &str, version: &'static str, kind: &str) -> Self {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let type_prefix = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",").into();
        Self { version, ty: api::schema::type_of(group, version, kind), api_version, type_prefix }
    }
}

/// All served resources.
#[derive(Debug)]
pub(crate) struct Resources {
    all: Vec<Resource>,
    by_name: HashMap<(&'static str, &'static str), usize>,
    by_collection: HashMap<String, usize>,
}

impl Resources {
    pub(crate) fn built_in() -> Self {
        let all: Vec<_> = ROWS.iter().map(Resource::new).collect();
        let by_name = all.iter().enumerate().map(|(i, r)| ((r.row.group, r.row.resource), i)).collect();
        let owners = all.iter().enumerate().filter(|(_, r)| r.row.stored && r.row.stored_in.is_none());
        let by_collection = owners.map(|(i, r)| (r.collection.clone(), i)).collect();
        Self { all, by_name, by_collection }
    }

    pub(crate) fn all(&self) -> &[Resource] {
        &self.all
    }

    pub(crate) fn get(&self, group: &str, resource: &str) -> Option<&Resource> {
        self.by_name.get(&(group, resource)).map(|i| &self.all[*i])
    }

    pub(crate) fn of_collection(&self, collection: &str) -> Option<&Resource> {
        self.by_collection.get(collection).map(|i| &self.all[*i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_version_has_a_type_in_the_schema() {
        for resource in Resources::built_in().all() {
            for served in &resource.served {
                assert!(served.ty.is_some(), "{} {}", resource.name, served.api_version);
            }
            assert!(resource.stored.ty.is_some(), "{}", resource.name);
        }
    }

    #[test]
    fn names_are_unique_and_collections_have_one_owner() {
        let resources = Resources::built_in();
        assert_eq!(resources.by_name.len(), resources.all().len());
        assert_eq!(resources.get("events.k8s.io", "events").map(|r| &*r.collection), Some("core/events"));
        assert_eq!(resources.of_collection("core/events").map(|r| &*r.name.group), Some(""));
    }
}
