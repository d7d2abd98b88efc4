//! ConfigMaps: valid keys, at most 1 MiB, and no change once marked immutable.

use k8s_openapi::api::core::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

/// Keys are not counted, values are.
pub(super) const SIZE_MAX: usize = 1024 * 1024;
pub(super) const FROZEN: &str = "field is immutable when `immutable` is set";

pub(crate) struct ConfigMap;

impl Kind for ConfigMap {
    type Object = api::ConfigMap;

    fn validate(&self, obj: &api::ConfigMap, errs: &mut ErrorList) {
        let (data_at, binary_at) = (Path::new("data"), Path::new("binaryData"));
        let mut size = 0;
        for (key, value) in obj.data.iter().flatten() {
            if errs.is_full() {
                return;
            }
            field::invalid_each(&data_at.key(key), key, format::config_map_key(key), errs);
            if obj.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
                errs.push(field::invalid(&data_at.key(key), key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in obj.binary_data.iter().flatten() {
            if errs.is_full() {
                return;
            }
            field::invalid_each(&binary_at.key(key), key, format::config_map_key(key), errs);
            size += value.0.len();
        }
        if size > SIZE_MAX {
            errs.push(field::too_long(&Path::new(""), SIZE_MAX));
        }
    }

    fn validate_update(&self, new: &api::ConfigMap, old: &api::ConfigMap, errs: &mut ErrorList) {
        if old.immutable == Some(true) {
            let rows = [
                ("immutable", new.immutable != Some(true)),
                ("data", new.data != old.data),
                ("binaryData", new.binary_data != old.binary_data),
            ];
            errs.extend(
                rows.iter().filter(|(_, changed)| *changed).map(|(n, _)| field::forbidden(&Path::new(n), FROZEN)),
            );
        }
        self.validate(new, errs);
    }
}
