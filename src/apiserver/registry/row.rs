//! One row of the table of built-in resources: what is a fact about a resource rather than a rule.

/// A part of a resource with a path of its own.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// Group and version of its kind, where they differ from the resource's.
    pub group_version: Option<(&'static str, &'static str)>,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
    /// Answered by a handler of its own.
    pub special: bool,
}

/// A built-in resource.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub group: &'static str,
    /// All served versions; clients are told to prefer the first.
    pub versions: &'static [&'static str],
    /// Where its objects are stored, if that is under another group's resource of the same kind.
    pub stored_in: Option<&'static str>,
    /// The version in which its objects are stored.
    pub stored_version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Objects are kept; otherwise each request is answered by a special handler and forgotten.
    pub stored: bool,
    /// A PUT of an absent object creates it.
    pub create_on_update: bool,
    /// An update must name the revision that it is based on.
    pub conditional_update: bool,
    /// A delete without a propagation policy leaves the dependents alone.
    pub orphans_by_default: bool,
    /// A delete answers with the object rather than with a status.
    pub returns_deleted: bool,
    /// Deletion waits for a grace period.
    pub graceful: bool,
}

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

impl Row {
    /// The `Warning` header of every answer about a resource that upstream deprecates.
    pub(crate) fn deprecation(&self) -> Option<&'static str> {
        match (self.group, self.resource) {
            ("", "endpoints") => {
                Some("299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"")
            }
            _ => None,
        }
    }

    pub(super) const fn namespaced(
        group: &'static str,
        kind: &'static str,
        resource: &'static str,
        singular: &'static str,
    ) -> Self {
        Self {
            group,
            versions: &["v1"],
            stored_in: None,
            stored_version: "v1",
            kind,
            resource,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: &[],
            stored: true,
            create_on_update: false,
            conditional_update: false,
            orphans_by_default: false,
            returns_deleted: false,
            graceful: false,
        }
    }

    pub(super) const fn cluster(
        group: &'static str,
        kind: &'static str,
        resource: &'static str,
        singular: &'static str,
    ) -> Self {
        Self { namespaced: false, ..Self::namespaced(group, kind, resource, singular) }
    }

    /// A resource that only answers questions.
    pub(super) const fn review(
        group: &'static str,
        kind: &'static str,
        resource: &'static str,
        singular: &'static str,
    ) -> Self {
        Self { stored: false, verbs: CREATE, ..Self::cluster(group, kind, resource, singular) }
    }

    pub(super) const fn unstored(self) -> Self {
        Self { stored: false, ..self }
    }

    pub(super) const fn in_namespace(self) -> Self {
        Self { namespaced: true, ..self }
    }

    pub(super) const fn versions(self, versions: &'static [&'static str], stored: &'static str) -> Self {
        Self { versions, stored_version: stored, ..self }
    }

    pub(super) const fn stored_in(self, group: &'static str) -> Self {
        Self { stored_in: Some(group), ..self }
    }

    pub(super) const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    pub(super) const fn in_all(self) -> Self {
        Self { categories: &["all"], ..self }
    }

    pub(super) const fn verbs(self, verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..self }
    }

    pub(super) const fn subresources(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }

    pub(super) const fn create_on_update(self) -> Self {
        Self { create_on_update: true, ..self }
    }

    pub(super) const fn conditional_update(self) -> Self {
        Self { conditional_update: true, ..self }
    }

    pub(super) const fn orphans_by_default(self) -> Self {
        Self { orphans_by_default: true, ..self }
    }

    pub(super) const fn returns_deleted(self) -> Self {
        Self { returns_deleted: true, ..self }
    }

    pub(super) const fn graceful(self) -> Self {
        Self { graceful: true, ..self }
    }
}

impl Subresource {
    pub(super) const fn status(kind: &'static str) -> Self {
        Self { name: "status", group_version: None, kind, verbs: STATUS_VERBS, special: false }
    }

    pub(super) const SCALE: Self = Self {
        name: "scale",
        group_version: Some(("autoscaling", "v1")),
        kind: "Scale",
        verbs: STATUS_VERBS,
        special: false,
    };

    pub(super) const fn special(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Self {
        Self { name, group_version: None, kind, verbs, special: true }
    }

    pub(super) const fn generic(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Self {
        Self { name, group_version: None, kind, verbs, special: false }
    }

    pub(super) const fn of(self, group: &'static str, version: &'static str) -> Self {
        Self { group_version: Some((group, version)), ..self }
    }
}
