//! Persistent volumes: capacity, access modes and one source that never changes.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod::{
    default_amounts, validate_csi_driver_name, validate_host_path, validate_nfs, validate_no_backsteps,
    validate_node_selector,
};
use crate::difference::difference;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;
use crate::quantity::Quantity;

pub(crate) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

pub(crate) struct PersistentVolume;

/// The annotation that named the storage class before there was a field for it.
pub(super) fn storage_class_warnings(metadata: &ObjectMeta) -> Vec<String> {
    const BETA: &str = "volume.beta.kubernetes.io/storage-class";
    let set = metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BETA));
    let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    if set { vec![format!("metadata.annotations[{BETA}]: {why}")] } else { Vec::new() }
}

impl Kind for PersistentVolume {
    type Object = api::PersistentVolume;

    fn default(&self, obj: &mut api::PersistentVolume) {
        let phase = &mut obj.status.get_or_insert_default().phase;
        phase.get_or_insert_with(|| "Pending".to_owned());
        let spec = obj.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".to_owned());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        default_amounts(spec.capacity.as_mut());
        if let Some(path) = spec.host_path.as_mut() {
            path.type_.get_or_insert_default();
        }
    }

    fn prepare_create(&self, obj: &mut api::PersistentVolume) {
        obj.status = Some(api::PersistentVolumeStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    }

    fn warnings(&self, obj: &api::PersistentVolume) -> Vec<String> {
        let mut out = storage_class_warnings(&obj.metadata);
        let policy = obj.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
        if policy == Some("Recycle") {
            out.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        out
    }

    fn validate(&self, obj: &api::PersistentVolume, errs: &mut ErrorList) {
        let path = Path::new("spec");
        let empty = api::PersistentVolumeSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
        validate_access_modes(spec.access_modes.as_deref().unwrap_or_default(), "", &path, errs);
        validate_capacity(spec, &path.child("capacity"), errs);
        let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or("Retain");
        if !RECLAIM_POLICIES.contains(&policy) {
            let at = path.child("persistentVolumeReclaimPolicy");
            errs.push(field::not_supported(&at, policy, RECLAIM_POLICIES));
        }
        if let Some(affinity) = spec.node_affinity.as_ref() {
            let at = path.child("nodeAffinity.required");
            match affinity.required.as_ref() {
                Some(selector) => validate_node_selector(selector, &at, errs),
                None => errs.push(field::required(&at, "must specify required node constraints")),
            }
        }
        validate_source(spec, &path, errs);
        if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
            field::invalid_each(&path.child("storageClassName"), class, format::dns1123_subdomain(class), errs);
        }
        if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
            errs.push(field::not_supported(&path.child("volumeMode"), mode, VOLUME_MODES));
        }
    }

    fn validate_update(&self, new: &api::PersistentVolume, old: &api::PersistentVolume, errs: &mut ErrorList) {
        self.validate(new, errs);
        let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
        let (new_source, old_source) = (source_only(new), source_only(old));
        if new_source != old_source {
            let diff = difference(&old_source, &new_source);
            let why = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
            errs.push(field::forbidden(&Path::new("spec.persistentvolumesource"), why));
        }
        field::immutable(&Path::new("volumeMode"), &new.volume_mode, &old.volume_mode, errs);
        if old.node_affinity.is_some() {
            field::immutable(&Path::new("nodeAffinity"), &new.node_affinity, &old.node_affinity, errs);
        }
    }
}

/// The spec without what may change.
fn source_only(spec: &api::PersistentVolumeSpec) -> api::PersistentVolumeSpec {
    let mut source = api::PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    };
    if let Some(csi) = source.csi.as_mut() {
        csi.controller_expand_secret_ref = None;
    }
    source
}

pub(super) fn validate_access_modes(modes: &[String], why: &str, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("accessModes");
    if modes.is_empty() {
        errs.push(field::required(&at, why));
    }
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        if errs.is_full() {
            break;
        }
        errs.push(field::not_supported(&at, mode, ACCESS_MODES));
    }
    let exclusive = modes.iter().any(|m| m == "ReadWriteOncePod");
    let shared = modes.iter().any(|m| m != "ReadWriteOncePod" && ACCESS_MODES.contains(&m.as_str()));
    if exclusive && shared {
        errs.push(field::forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn validate_capacity(spec: &api::PersistentVolumeSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errs.push(field::required(path, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errs.push(field::not_supported(path, &capacity, &["storage"]));
    }
    for (name, amount) in &capacity {
        if errs.is_full() {
            break;
        }
        let amount = Quantity::of(amount);
        if amount.sign() <= 0 {
            errs.push(field::invalid(&path.key(name), &amount.to_string(), "must be greater than zero"));
        }
    }
}

fn validate_source(spec: &api::PersistentVolumeSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let sources = [
        ("hostPath", spec.host_path.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("cephFS", spec.cephfs.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("local", spec.local.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("csi", spec.csi.is_some()),
    ];
    let mut set = sources.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
    let first = set.next();
    for name in set {
        errs.push(field::forbidden(&path.child(name), "may not specify more than 1 volume type"));
    }
    match first {
        None => errs.push(field::required(path, "must specify a volume type")),
        Some("hostPath") => {
            if let Some(host) = spec.host_path.as_ref() {
                validate_host_path(host, &path.child("hostPath"), errs);
                let root = host.path.trim_end_matches('/').is_empty() && !host.path.is_empty();
                if root && spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
                    let why = "may not be 'recycle' for a hostPath mount of '/'";
                    errs.push(field::forbidden(&path.child("persistentVolumeReclaimPolicy"), why));
                }
            }
        }
        Some("nfs") => {
            if let Some(nfs) = spec.nfs.as_ref() {
                validate_nfs(&nfs.server, &nfs.path, &path.child("nfs"), errs);
            }
        }
        Some("local") => validate_local(spec, path, errs),
        Some("csi") => {
            if let Some(csi) = spec.csi.as_ref() {
                validate_csi_driver_name(&csi.driver, &path.child("csi.driver"), errs);
                if csi.volume_handle.is_empty() {
                    errs.push(field::required(&path.child("csi.volumeHandle"), ""));
                }
            }
        }
        Some(_) => {}
    }
}

fn validate_local(spec: &api::PersistentVolumeSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(local) = spec.local.as_ref() else { return };
    let at = path.child("local.path");
    if local.path.is_empty() {
        errs.push(field::required(&at, ""));
    } else {
        validate_no_backsteps(&local.path, &at, errs);
    }
    if spec.node_affinity.is_none() {
        errs.push(field::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
    }
}
