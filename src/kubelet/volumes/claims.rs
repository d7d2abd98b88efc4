//! Persistent volume claims whose volume is a directory of this node.

use std::path::PathBuf;

use api::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Setup, VolumePath, fs_group, host_path, ownership};
use crate::pod::PodExt;

/// The directory behind a claim of the pod's namespace.
pub(super) fn path(cx: &Setup<'_>, claim_name: &str, read_only: bool) -> Result<VolumePath, String> {
    let namespace = cx.pod.namespace();
    let claim: PersistentVolumeClaim = cx
        .cluster
        .get(namespace, claim_name)
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
        .ok_or_else(|| broken(&format!("failed to fetch PV {volume_name} from API server: not found")))?;
    let spec = volume.spec.as_ref().ok_or_else(|| broken("the PV has no spec"))?;
    let ours = spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !ours {
        return Err(broken(&format!("PVC is bound to PV {volume_name}, which is bound to another claim")));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported on this node".to_owned());
    }
    let path = if let Some(local) = &spec.local {
        let path = PathBuf::from(&local.path);
        if !path.exists() {
            return Err(format!("path {:?} does not exist", local.path));
        }
        path
    } else if let Some(host) = &spec.host_path {
        let path = PathBuf::from(&host.path);
        host_path::prepare(&path, host.type_.as_deref())?;
        path
    } else {
        return Err(format!("the source of persistent volume {volume_name:?} is not supported on this node"));
    };
    // As upstream, the group changes only what was made for pods, never a path that was already in use.
    if let (Some(group), Some(_), false) = (fs_group(cx.pod, false), &spec.local, read_only) {
        ownership::apply(&path, group).map_err(|e| e.to_string())?;
    }
    Ok(VolumePath { path, read_only })
}
