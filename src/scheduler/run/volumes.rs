//! Whether the claims that a pod names are there and bound.

use api::k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodSpec};
use client::Cluster;

/// Why the pod must wait for its volumes, in upstream's words.
pub(super) fn missing(cluster: &Cluster, namespace: &str, spec: &PodSpec) -> Option<String> {
    let volumes = spec.volumes.iter().flatten();
    let claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.as_str());
    for name in claims {
        let claim = match cluster.get::<PersistentVolumeClaim>(namespace, name) {
            Ok(Some(claim)) => claim,
            Ok(None) => return Some(format!("persistentvolumeclaim \"{name}\" not found")),
            Err(error) => return Some(error.to_string()),
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase == Some("Lost") {
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
            return Some(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if phase != Some("Bound") {
            return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    None
}
