//! CSI drivers: what a driver needs of the cluster.

use k8s_openapi::api::storage::v1 as api;

use crate::core::pod::validate_csi_driver_name;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];

pub(crate) struct CsiDriver;

impl Kind for CsiDriver {
    type Object = api::CSIDriver;

    fn default(&self, obj: &mut api::CSIDriver) {
        let spec = &mut obj.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn validate(&self, obj: &api::CSIDriver, errs: &mut ErrorList) {
        let name = obj.metadata.name.as_deref().unwrap_or("");
        validate_csi_driver_name(name, &Path::new("metadata.name"), errs);
        let path = Path::new("spec");
        if let Some(policy) = obj.spec.fs_group_policy.as_deref().filter(|p| !FS_GROUP_POLICIES.contains(p)) {
            errs.push(field::not_supported(&path.child("fsGroupPolicy"), policy, FS_GROUP_POLICIES));
        }
        let at = path.child("volumeLifecycleModes");
        for mode in obj.spec.volume_lifecycle_modes.iter().flatten() {
            if errs.is_full() {
                break;
            }
            if !["Ephemeral", "Persistent"].contains(&mode.as_str()) {
                errs.push(field::not_supported(&at, mode, &["Ephemeral", "Persistent"]));
            }
        }
    }

    fn validate_update(&self, new: &api::CSIDriver, old: &api::CSIDriver, errs: &mut ErrorList) {
        self.validate(new, errs);
        let path = Path::new("spec");
        let (now, then) = (&new.spec, &old.spec);
        field::immutable(&path.child("attachedRequired"), &now.attach_required, &then.attach_required, errs);
        let at = path.child("volumeLifecycleModes");
        field::immutable(&at, &now.volume_lifecycle_modes, &then.volume_lifecycle_modes, errs);
    }
}
