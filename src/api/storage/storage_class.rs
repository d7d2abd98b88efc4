//! Storage classes: all but the mount options and expansion is fixed.

use k8s_openapi::api::storage::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

pub(crate) struct StorageClass;

impl Kind for StorageClass {
    type Object = api::StorageClass;

    fn default(&self, obj: &mut api::StorageClass) {
        obj.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
        obj.volume_binding_mode.get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self, obj: &api::StorageClass, errs: &mut ErrorList) {
        let path = Path::new("provisioner");
        let provisioner = obj.provisioner.as_str();
        if provisioner.is_empty() {
            errs.push(field::required(&path, ""));
        } else {
            let lower = provisioner.to_ascii_lowercase();
            field::invalid_each(&path, provisioner, format::qualified_name(&lower), errs);
        }
        let path = Path::new("parameters");
        let mut size = 0;
        for (key, value) in obj.parameters.iter().flatten() {
            if errs.is_full() {
                break;
            }
            if key.is_empty() {
                errs.push(field::invalid(&path, key, "field can not be empty."));
            }
            size += key.len() + value.len();
        }
        let count = obj.parameters.as_ref().map_or(0, std::collections::BTreeMap::len);
        if count > PARAMETERS_MAX {
            errs.push(field::too_long(&Path::new("Provisioner Parameters Length"), PARAMETERS_MAX));
        }
        if size > PARAMETERS_SIZE_MAX {
            errs.push(field::too_long(&path, PARAMETERS_SIZE_MAX));
        }
        if let Some(policy) = obj.reclaim_policy.as_deref().filter(|p| !["Delete", "Retain"].contains(p)) {
            errs.push(field::not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]));
        }
        let mode = obj.volume_binding_mode.as_deref().unwrap_or("");
        let path = Path::new("volumeBindingMode");
        crate::core::pod::validate_choice(Some(mode), BINDING_MODES, &path, errs);
    }

    fn validate_update(&self, new: &api::StorageClass, old: &api::StorageClass, errs: &mut ErrorList) {
        let changed = [
            ("parameters", new.parameters != old.parameters, "updates to parameters are forbidden."),
            ("provisioner", new.provisioner != old.provisioner, "updates to provisioner are forbidden."),
            ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy, "updates to reclaimPolicy are forbidden."),
        ];
        for (name, _, why) in changed.iter().filter(|(_, changed, _)| *changed) {
            errs.push(field::forbidden(&Path::new(name), *why));
        }
        let path = Path::new("volumeBindingMode");
        field::immutable(&path, &new.volume_binding_mode, &old.volume_binding_mode, errs);
    }
}
