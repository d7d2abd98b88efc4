//! The row types in which the bootstrap policy is written down.
//!
//! A field holds its values separated by blanks; `core` stands for the API group without a name.

/// One policy rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) verbs: &'static str,
    pub(super) groups: &'static str,
    pub(super) resources: &'static str,
    pub(super) names: &'static str,
    pub(super) urls: &'static str,
}

/// A role and its rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) rows: &'static [Row],
}

/// A binding of a role. Accounts are service accounts of kube-system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) name: &'static str,
    pub(super) role: &'static str,
    pub(super) users: &'static str,
    pub(super) groups: &'static str,
    pub(super) accounts: &'static str,
}

pub(super) const READ: &str = "get list watch";
pub(super) const WRITE: &str = "create delete deletecollection patch update";
pub(super) const READ_WRITE: &str = "create delete deletecollection get list patch update watch";

/// Every controller may write events.
pub(super) const EVENTS: Row = on("create patch update", "core events.k8s.io", "events");

pub(super) const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> Row {
    Row { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Row {
    Row { verbs, groups, resources, names, urls: "" }
}

pub(super) const fn urls(verbs: &'static str, urls: &'static str) -> Row {
    Row { verbs, groups: "", resources: "", names: "", urls }
}

pub(super) const fn role(name: &'static str, rows: &'static [Row]) -> Named {
    Named { name, rows }
}
