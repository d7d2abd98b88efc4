//! Volume sources outside the cluster. Most belong to drivers that are gone from Kubernetes: their
//! fields are still checked, so that a client hears the same of a bad manifest as anywhere else.

use k8s_openapi::api::core::v1::Volume;

use super::validate_mounts::validate_descending;
use super::validate_volumes::OneSource;
use crate::field::{self, ErrorList, Path};
use crate::meta::format::{self, NameRule};

/// A source that is nothing but fields that must be there.
struct Plain {
    name: &'static str,
    /// Upstream's path to the fields differs from the name for a few.
    path_name: &'static str,
    present: bool,
    required: Vec<(&'static str, bool)>,
}

fn plain<T>(
    name: &'static str,
    path_name: &'static str,
    source: Option<&T>,
    required: impl FnOnce(&T) -> Vec<(&'static str, bool)>,
) -> Plain {
    Plain { name, path_name, present: source.is_some(), required: source.map(required).unwrap_or_default() }
}

fn filled(text: Option<&String>) -> bool {
    text.is_some_and(|t| !t.is_empty())
}

fn plain_sources(volume: &Volume) -> Vec<Plain> {
    vec![
        plain("gcePersistentDisk", "persistentDisk", volume.gce_persistent_disk.as_ref(), |d| {
            vec![("pdName", !d.pd_name.is_empty())]
        }),
        plain("awsElasticBlockStore", "awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), |d| {
            vec![("volumeID", !d.volume_id.is_empty())]
        }),
        plain("glusterfs", "glusterfs", volume.glusterfs.as_ref(), |g| {
            vec![("endpoints", !g.endpoints.is_empty()), ("path", !g.path.is_empty())]
        }),
        plain("rbd", "rbd", volume.rbd.as_ref(), |r| {
            vec![("monitors", !r.monitors.is_empty()), ("image", !r.image.is_empty())]
        }),
        plain("cinder", "cinder", volume.cinder.as_ref(), |c| vec![("volumeID", !c.volume_id.is_empty())]),
        plain("cephFS", "cephfs", volume.cephfs.as_ref(), |c| vec![("monitors", !c.monitors.is_empty())]),
        plain("quobyte", "quobyte", volume.quobyte.as_ref(), |q| {
            vec![("registry", !q.registry.is_empty()), ("volume", !q.volume.is_empty())]
        }),
        plain("flexVolume", "flexVolume", volume.flex_volume.as_ref(), |f| vec![("driver", !f.driver.is_empty())]),
        plain("azureFile", "azureFile", volume.azure_file.as_ref(), |a| {
            vec![("secretName", !a.secret_name.is_empty()), ("shareName", !a.share_name.is_empty())]
        }),
        plain("vsphereVolume", "vsphereVolume", volume.vsphere_volume.as_ref(), |v| {
            vec![("volumePath", !v.volume_path.is_empty())]
        }),
        plain("photonPersistentDisk", "photonPersistentDisk", volume.photon_persistent_disk.as_ref(), |p| {
            vec![("pdID", !p.pd_id.is_empty())]
        }),
        plain("portworxVolume", "portworxVolume", volume.portworx_volume.as_ref(), |p| {
            vec![("volumeID", !p.volume_id.is_empty())]
        }),
        plain("azureDisk", "azureDisk", volume.azure_disk.as_ref(), |a| {
            vec![("diskName", !a.disk_name.is_empty()), ("diskURI", !a.disk_uri.is_empty())]
        }),
        plain("storageos", "storageos", volume.storageos.as_ref(), |s| {
            vec![("volumeName", filled(s.volume_name.as_ref()))]
        }),
        plain("scaleIO", "scaleIO", volume.scale_io.as_ref(), |s| {
            vec![
                ("gateway", !s.gateway.is_empty()),
                ("system", !s.system.is_empty()),
                ("volumeName", filled(s.volume_name.as_ref())),
            ]
        }),
    ]
}

pub(super) fn validate_remote(volume: &Volume, one: &mut OneSource, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(repo) = volume.git_repo.as_ref() {
        let at = path.child("gitRepo");
        if one.first(&at, errs) {
            if repo.repository.is_empty() {
                errs.push(field::required(&at.child("repository"), ""));
            }
            validate_descending(repo.directory.as_deref().unwrap_or(""), &at.child("directory"), errs);
        }
    }
    let sources = if has_plain(volume) { plain_sources(volume) } else { Vec::new() };
    for source in sources.into_iter().filter(|s| s.present) {
        if one.first(&path.child(source.name), errs) {
            let at = path.child(source.path_name);
            for (name, _) in source.required.iter().filter(|(_, filled)| !filled) {
                errs.push(field::required(&at.child(name), ""));
            }
        }
    }
    validate_network_volumes(volume, one, path, errs);
}

/// Nearly no pod has one, so that the list below is rarely made.
fn has_plain(v: &Volume) -> bool {
    let cloud = v.gce_persistent_disk.is_some()
        || v.aws_elastic_block_store.is_some()
        || v.azure_file.is_some()
        || v.azure_disk.is_some()
        || v.cinder.is_some()
        || v.vsphere_volume.is_some()
        || v.photon_persistent_disk.is_some();
    let vendors = v.portworx_volume.is_some() || v.storageos.is_some() || v.scale_io.is_some() || v.quobyte.is_some();
    cloud || vendors || v.glusterfs.is_some() || v.rbd.is_some() || v.cephfs.is_some() || v.flex_volume.is_some()
}

fn validate_network_volumes(volume: &Volume, one: &mut OneSource, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(nfs) = volume.nfs.as_ref() {
        let at = path.child("nfs");
        if one.first(&at, errs) {
            validate_nfs(&nfs.server, &nfs.path, &at, errs);
        }
    }
    if let Some(iscsi) = volume.iscsi.as_ref() {
        let at = path.child("iscsi");
        if one.first(&at, errs) {
            for (name, value) in [("targetPortal", &iscsi.target_portal), ("iqn", &iscsi.iqn)] {
                if value.is_empty() {
                    errs.push(field::required(&at.child(name), ""));
                }
            }
            if !iscsi.iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|p| iscsi.iqn.starts_with(p)) {
                let why = "must be valid format starting with iqn, eui, or naa";
                errs.push(field::invalid(&at.child("iqn"), &iscsi.iqn, why));
            }
            if !(0..=255).contains(&iscsi.lun) {
                errs.push(field::invalid(&at.child("lun"), &iscsi.lun, format::inclusive_range(0, 255)));
            }
        }
    }
    if let Some(fc) = volume.fc.as_ref() {
        let at = path.child("fc");
        if one.first(&at, errs) {
            let targets = fc.target_wwns.as_deref().unwrap_or_default();
            let wwids = fc.wwids.as_deref().unwrap_or_default();
            if targets.is_empty() && wwids.is_empty() {
                let why = "must specify either targetWWNs or wwids, but not both";
                errs.push(field::required(&at.child("targetWWNs"), why));
            }
            if !targets.is_empty() && !wwids.is_empty() {
                let why = "targetWWNs and wwids can not be specified simultaneously";
                errs.push(field::invalid(&at.child("targetWWNs"), targets, why));
            }
            if !targets.is_empty() && fc.lun.is_none() {
                errs.push(field::required(&at.child("lun"), "lun is required if targetWWNs is specified"));
            }
        }
    }
    if let Some(csi) = volume.csi.as_ref() {
        let at = path.child("csi");
        if one.first(&at, errs) {
            validate_csi_driver_name(&csi.driver, &at.child("driver"), errs);
            if let Some(secret) = csi.node_publish_secret_ref.as_ref() {
                if secret.name.is_empty() {
                    errs.push(field::required(&at.child("nodePublishSecretRef.name"), ""));
                } else {
                    let why = NameRule::Subdomain.check(&secret.name, false);
                    field::invalid_each(&at.child("name"), &secret.name, why, errs);
                }
            }
        }
    }
}

pub(crate) fn validate_nfs(server: &str, export: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if server.is_empty() {
        errs.push(field::required(&path.child("server"), ""));
    }
    if export.is_empty() {
        errs.push(field::required(&path.child("path"), ""));
    }
    if !export.starts_with('/') {
        errs.push(field::invalid(&path.child("path"), export, "must be an absolute path"));
    }
}

pub(crate) fn validate_csi_driver_name(driver: &str, path: &Path<'_>, errs: &mut ErrorList) {
    if driver.is_empty() {
        errs.push(field::required(path, ""));
    }
    if driver.len() > 63 {
        errs.push(field::too_long(path, 63));
    }
    field::invalid_each(path, driver, format::dns1123_subdomain(&driver.to_ascii_lowercase()), errs);
}
