//! Pods: the rules of the kind that all workloads come down to.

mod defaults;
mod prepare;
mod qos;
mod resize;
mod update;
mod validate_containers;
mod validate_env;
mod validate_file_keys;
mod validate_mounts;
mod validate_probes;
mod validate_remote_volumes;
mod validate_resources;
mod validate_scheduling;
mod validate_security;
mod validate_spec;
mod validate_volumes;
mod warnings;

use k8s_openapi::api::core::v1 as api;

pub(crate) use defaults::{default_amounts, default_template};
pub use qos::{QosClass, qos_class};
pub use resize::validate_resize;
pub use update::validate_ephemeral_containers_update;
pub(crate) use validate_containers::validate_protocol;
pub(crate) use validate_mounts::validate_no_backsteps;
pub(crate) use validate_probes::validate_port;
pub(crate) use validate_remote_volumes::{validate_csi_driver_name, validate_nfs};
pub(crate) use validate_resources::{validate_amount, validate_container_resource_name, validate_resource_name};
pub(crate) use validate_scheduling::{TAINT_EFFECTS, validate_node_selector};
pub(crate) use validate_spec::{validate_choice, validate_template};
pub(crate) use validate_volumes::validate_host_path;
pub(crate) use warnings::pod_warnings;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta;
use crate::meta::format::NameRule;

pub(crate) struct Pod;

impl Kind for Pod {
    type Object = api::Pod;

    fn default(&self, obj: &mut api::Pod) {
        defaults::default_pod(obj);
    }

    fn prepare_create(&self, obj: &mut api::Pod) {
        prepare::prepare_create(obj);
    }

    fn validate(&self, obj: &api::Pod, errs: &mut ErrorList) {
        validate_spec::validate_pod(obj, errs);
        let path = Path::new("spec");
        let Some(spec) = obj.spec.as_ref() else { return };
        if spec.ephemeral_containers.as_ref().is_some_and(|e| !e.is_empty()) {
            errs.push(field::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        if gated && spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
            let why = "cannot be set until all schedulingGates have been cleared";
            errs.push(field::forbidden(&path.child("nodeName"), why));
        }
    }

    fn validate_update(&self, new: &api::Pod, old: &api::Pod, errs: &mut ErrorList) {
        meta::validate_metadata(&new.metadata, true, NameRule::Subdomain, &Path::new("metadata"), errs);
        validate_spec::validate_changed_pod(new, old, errs);
        update::validate_pod_update(new, old, errs);
    }

    fn validate_status_update(&self, new: &api::Pod, old: &api::Pod, errs: &mut ErrorList) {
        update::validate_pod_status_update(new, old, errs);
    }

    fn warnings_on_create(&self, obj: &api::Pod) -> Vec<String> {
        meta::name_warnings(&obj.metadata, "the Pod's hostname")
    }

    fn warnings(&self, obj: &api::Pod) -> Vec<String> {
        let spec = obj.spec.as_ref();
        spec.map(|s| pod_warnings(s, obj.metadata.annotations.as_ref(), "")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
