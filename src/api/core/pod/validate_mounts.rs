//! How containers use the pod's volumes, and what their paths may look like.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};

use crate::field::{self, ErrorList, Path};

type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

pub(super) fn validate_volume_mounts(ctr: &Container, volumes: &Volumes<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    let devices = ctr.volume_devices.as_deref().unwrap_or_default();
    let device_names: BTreeSet<&str> = devices.iter().map(|d| d.name.as_str()).collect();
    let device_paths: BTreeSet<&str> = devices.iter().map(|d| d.device_path.as_str()).collect();
    let mut points = BTreeSet::new();
    for (i, mount) in ctr.volume_mounts.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let (name_at, path_at) = (at.child("name"), at.child("mountPath"));
        if mount.name.is_empty() {
            errs.push(field::required(&name_at, ""));
        }
        if !volumes.contains_key(mount.name.as_str()) {
            errs.push(field::not_found(&name_at, &mount.name));
        }
        if mount.mount_path.is_empty() {
            errs.push(field::required(&path_at, ""));
        }
        if !points.insert(&mount.mount_path) {
            errs.push(field::invalid(&path_at, &mount.mount_path, "must be unique"));
        }
        if device_names.contains(mount.name.as_str()) {
            errs.push(field::invalid(&name_at, &mount.name, "must not already exist in volumeDevices"));
        }
        if device_paths.contains(mount.mount_path.as_str()) {
            let why = "must not already exist as a path in volumeDevices";
            errs.push(field::invalid(&path_at, &mount.mount_path, why));
        }
        validate_sub_paths(mount, &at, path, errs);
        validate_propagation(mount, ctr, path, errs);
        validate_recursive_read_only(mount, &path.child("recursiveReadOnly"), errs);
    }
}

/// Upstream reports these at the list rather than at the mount.
fn validate_sub_paths(mount: &VolumeMount, at: &Path<'_>, list: &Path<'_>, errs: &mut ErrorList) {
    let sub_path = mount.sub_path.as_deref().unwrap_or("");
    let expression = mount.sub_path_expr.as_deref().unwrap_or("");
    if !sub_path.is_empty() {
        validate_descending(sub_path, &list.child("subPath"), errs);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errs.push(field::invalid(&at.child("subPathExpr"), expression, why));
        }
        validate_descending(expression, &list.child("subPathExpr"), errs);
    }
}

fn validate_propagation(mount: &VolumeMount, ctr: &Container, list: &Path<'_>, errs: &mut ErrorList) {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = mount.mount_propagation.as_deref() else { return };
    let at = list.child("mountPropagation");
    if !MODES.contains(&mode) {
        errs.push(field::not_supported(&at, mode, MODES));
    }
    let privileged = ctr.security_context.as_ref().is_some_and(|s| s.privileged == Some(true));
    if mode == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errs.push(field::forbidden(&at, why));
    }
}

fn validate_recursive_read_only(mount: &VolumeMount, path: &Path<'_>, errs: &mut ErrorList) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errs.push(field::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errs.push(field::forbidden(path, why));
            }
        }
        Some(other) => errs.push(field::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

pub(super) fn validate_volume_devices(ctr: &Container, volumes: &Volumes<'_>, path: &Path<'_>, errs: &mut ErrorList) {
    let mounts = ctr.volume_mounts.as_deref().unwrap_or_default();
    let mount_names: BTreeSet<&str> = mounts.iter().map(|m| m.name.as_str()).collect();
    let mount_paths: BTreeSet<&str> = mounts.iter().map(|m| m.mount_path.as_str()).collect();
    let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in ctr.volume_devices.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let (name_at, path_at) = (at.child("name"), at.child("devicePath"));
        if device.name.is_empty() {
            errs.push(field::required(&name_at, ""));
        } else if !names.insert(&device.name) {
            errs.push(field::invalid(&name_at, &device.name, "must be unique"));
        }
        match volumes.get(device.name.as_str()) {
            None => errs.push(field::not_found(&name_at, &device.name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errs.push(field::invalid(&name_at, &device.name, why));
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errs.push(field::required(&path_at, ""));
        }
        if paths.contains(&device.device_path) {
            errs.push(field::invalid(&path_at, &device.device_path, "must be unique"));
        }
        if has_backstep(&device.device_path) {
            errs.push(field::invalid(&path_at, &device.device_path, "can not contain backsteps ('..')"));
        } else {
            paths.insert(&device.device_path);
        }
        if mount_names.contains(device.name.as_str()) {
            errs.push(field::invalid(&name_at, &device.name, "must not already exist in volumeMounts"));
        }
        if mount_paths.contains(device.device_path.as_str()) {
            let why = "must not already exist as a path in volumeMounts";
            errs.push(field::invalid(&path_at, &device.device_path, why));
        }
    }
}

fn has_backstep(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

pub(crate) fn validate_no_backsteps(target: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if has_backstep(target) {
        errs.push(field::invalid(path, target, "must not contain '..'"));
    }
}

/// A path that stays below where it starts.
pub(crate) fn validate_descending(target: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if target.starts_with('/') {
        errs.push(field::invalid(path, target, "must be a relative path"));
    }
    validate_no_backsteps(target, path, errs);
}

/// As [`validate_descending`]; names that start with two dots belong to the kubelet.
pub(super) fn validate_non_reserved(target: &str, path: &Path<'_>, errs: &mut ErrorList) {
    validate_descending(target, path, errs);
    if target.starts_with("..") && !target.starts_with("../") {
        errs.push(field::invalid(path, target, "must not start with '..'"));
    }
}
