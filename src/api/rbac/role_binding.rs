//! RoleBindings, and the references that ClusterRoleBindings share with them.

use k8s_openapi::api::rbac::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format::{self, NameRule};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) struct RoleBinding;

/// Where a binding grants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Namespace,
    Cluster,
}

impl Reach {
    fn role_kinds(self) -> &'static [&'static str] {
        match self {
            Self::Namespace => &["Role", "ClusterRole"],
            Self::Cluster => &["ClusterRole"],
        }
    }
}

impl Kind for RoleBinding {
    type Object = api::RoleBinding;

    fn default(&self, obj: &mut api::RoleBinding) {
        default_references(&mut obj.role_ref, obj.subjects.as_deref_mut());
    }

    fn validate(&self, obj: &api::RoleBinding, errs: &mut ErrorList) {
        validate_references(&obj.role_ref, obj.subjects.as_deref(), Reach::Namespace, errs);
    }

    fn validate_update(&self, new: &api::RoleBinding, old: &api::RoleBinding, errs: &mut ErrorList) {
        self.validate(new, errs);
        validate_same_role(&new.role_ref, &old.role_ref, errs);
    }
}

pub(super) fn default_references(role: &mut api::RoleRef, subjects: Option<&mut [api::Subject]>) {
    if role.api_group.as_deref().unwrap_or("").is_empty() {
        role.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.into_iter().flatten().filter(|s| s.api_group.as_deref().unwrap_or("").is_empty()) {
        if ["User", "Group"].contains(&subject.kind.as_str()) {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

pub(super) fn validate_references(
    role: &api::RoleRef,
    subjects: Option<&[api::Subject]>,
    reach: Reach,
    errs: &mut ErrorList,
) {
    let path = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or("");
    if group != GROUP {
        errs.push(field::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    if !reach.role_kinds().contains(&role.kind.as_str()) {
        errs.push(field::not_supported(&path.child("kind"), &role.kind, reach.role_kinds()));
    }
    let at = path.child("name");
    if role.name.is_empty() {
        errs.push(field::required(&at, ""));
    } else {
        field::invalid_each(&at, &role.name, NameRule::PathSegment.check(&role.name, false), errs);
    }
    let path = Path::new("subjects");
    for (i, subject) in subjects.unwrap_or_default().iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_subject(subject, reach, &path.index(i), errs);
    }
}

fn validate_subject(subject: &api::Subject, reach: Reach, path: &Path<'_>, errs: &mut ErrorList) {
    let group = subject.api_group.as_deref().unwrap_or("");
    if subject.name.is_empty() {
        errs.push(field::required(&path.child("name"), ""));
    }
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                field::invalid_each(&path.child("name"), &subject.name, format::dns1123_subdomain(&subject.name), errs);
            }
            if !group.is_empty() {
                errs.push(field::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            // A RoleBinding's own namespace stands in for one that is left out.
            if reach == Reach::Cluster && subject.namespace.as_deref().unwrap_or("").is_empty() {
                errs.push(field::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errs.push(field::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => errs.push(field::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"])),
    }
}

pub(super) fn validate_same_role(new: &api::RoleRef, old: &api::RoleRef, errs: &mut ErrorList) {
    if new != old {
        errs.push(field::invalid(&Path::new("roleRef"), new, "cannot change roleRef"));
    }
}
