//! ClusterRoleBindings.

use k8s_openapi::api::rbac::v1 as api;

use super::role_binding::{Reach, default_references, validate_references, validate_same_role};
use crate::field::ErrorList;
use crate::kinds::Kind;

pub(crate) struct ClusterRoleBinding;

impl Kind for ClusterRoleBinding {
    type Object = api::ClusterRoleBinding;

    fn default(&self, obj: &mut api::ClusterRoleBinding) {
        default_references(&mut obj.role_ref, obj.subjects.as_deref_mut());
    }

    fn validate(&self, obj: &api::ClusterRoleBinding, errs: &mut ErrorList) {
        validate_references(&obj.role_ref, obj.subjects.as_deref(), Reach::Cluster, errs);
    }

    fn validate_update(&self, new: &api::ClusterRoleBinding, old: &api::ClusterRoleBinding, errs: &mut ErrorList) {
        self.validate(new, errs);
        validate_same_role(&new.role_ref, &old.role_ref, errs);
    }
}
