//! Persistent volume claims whose volume is a directory of this node or of an NFS server.

use std::path::PathBuf;

use api::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::nfs::Nfs;
use super::wanted::Wanted;
use super::{Setup, fs_group};
use crate::pod::PodExt;

/// What is behind a claim of the pod's namespace.
pub(super) fn wanted(cx: &Setup<'_>, claim_name: &str, read_only: bool) -> Result<Wanted, String> {
    let namespace = cx.pod.namespace();
    let claim: PersistentVolumeClaim = cx
        .cluster
        .get(namespace, claim_name)
        .map_err(|e| e.to_string())?
        .ok_or_else(|| format!("persistentvolumeclaim \"{claim_name}\" not found"))?;
    let broken = |what: &str| format!("error processing PVC {namespace}/{claim_name}: {what}");
    let bound = claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound"));
    let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty());
    let (true, Some(volume_name)) = (bound, volume_name) else { return Err(broken("PVC is not bound")) };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(broken("PVC is being deleted"));
    }
    let volume: PersistentVolume = cx
        .cluster
        .get("", volume_name)
        .map_err(|e| broken(&e.to_string()))?
        .ok_or_else(|| broken(&format!("failed to fetch PV {volume_name} from API server: not found")))?;
    let spec = volume.spec.as_ref().ok_or_else(|| broken("the PV has no spec"))?;
    let ours = spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !ours {
        return Err(broken(&format!("PVC is bound to PV {volume_name}, which is bound to another claim")));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported on this node".to_owned());
    }
    if let Some(local) = &spec.local {
        // As upstream, the group changes only what was made for pods, never a path that was in use.
        let group = fs_group(cx.pod, false).filter(|_| !read_only);
        return Ok(Wanted::Local { path: PathBuf::from(&local.path), group, read_only });
    }
    if let Some(host) = &spec.host_path {
        return Ok(Wanted::HostPath { path: PathBuf::from(&host.path), kind: host.type_.clone(), read_only });
    }
    if let Some(nfs) = &spec.nfs {
        let options = spec.mount_options.as_deref().unwrap_or_default();
        return Nfs::of(&nfs.server, &nfs.path, read_only || nfs.read_only == Some(true), options).map(Wanted::Nfs);
    }
    Err(format!("the source of persistent volume {volume_name:?} is not supported on this node"))
}
