//! `fileKeyRef`: which volumes variables may be read from.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{EnvVar, PodSpec, Volume};

use crate::field::{self, ErrorList, Path};

/// The volumes are the pod's own emptyDirs.
pub(super) fn validate_file_keys(spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let named = |v: &'_ Volume| (v.name.clone(), v.empty_dir.is_some());
    let volumes: HashMap<String, bool> = spec.volumes.iter().flatten().map(named).collect();
    let mut check = |env: Option<&Vec<EnvVar>>, at: &Path<'_>| {
        for (i, var) in env.into_iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let Some(reference) = var.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else { continue };
            let env_at = at.child("env");
            let var_at = env_at.index(i);
            let name_at = var_at.child("valueFrom.fileKeyRef.volumeName");
            match volumes.get(&reference.volume_name) {
                Some(true) => {}
                Some(false) => {
                    let why = "referenced volume must be of type emptyDir";
                    errs.push(field::invalid(&name_at, &reference.volume_name, why));
                }
                // That it is missing is said where the field is.
                None if reference.volume_name.is_empty() => {}
                None => errs.push(field::not_found(&name_at, &reference.volume_name)),
            }
        }
    };
    for (name, list) in [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
    ] {
        let list_at = path.child(name);
        for (i, c) in list.iter().enumerate() {
            check(c.env.as_ref(), &list_at.index(i));
        }
    }
    let list_at = path.child("ephemeralContainers");
    for (i, c) in spec.ephemeral_containers.iter().flatten().enumerate() {
        check(c.env.as_ref(), &list_at.index(i));
    }
}
