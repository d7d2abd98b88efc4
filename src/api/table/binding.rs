//! Role bindings, of a namespace and of the cluster.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::plain;

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Role", "The role that is granted."),
    AGE,
    Column::text("Users", "Users that it is granted to.").wide(),
    Column::text("Groups", "Groups that it is granted to.").wide(),
    Column::text("ServiceAccounts", "Service accounts that it is granted to.").wide(),
];

impl Printed for RoleBinding {
    const COLUMNS: &'static [Column] = COLUMNS;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        cells(self, &self.role_ref, self.subjects.as_deref(), now)
    }
}

impl Printed for ClusterRoleBinding {
    const COLUMNS: &'static [Column] = COLUMNS;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        cells(self, &self.role_ref, self.subjects.as_deref(), now)
    }
}

fn cells(binding: &impl Printed, role: &RoleRef, subjects: Option<&[Subject]>, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str, text: fn(&Subject) -> String| {
        let subjects = subjects.unwrap_or_default().iter().filter(|subject| subject.kind == kind);
        subjects.map(text).collect::<Vec<_>>().join(", ")
    };
    row![
        binding.name(),
        format!("{}/{}", role.kind, role.name),
        binding.age(now),
        of("User", |user| user.name.clone()),
        of("Group", |group| group.name.clone()),
        of("ServiceAccount", |account| format!("{}/{}", plain(account.namespace.as_ref()), account.name)),
    ]
}
