//! StorageObjectInUseProtection, DefaultStorageClass and PersistentVolumeClaimResize: claims and volumes
//! are not deleted while they are in use, a claim without a class gets the default one, and claims grow
//! where their class lets them.

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const DEFAULT_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_DEFAULT_ANNOTATION: &str = "storageclass.beta.kubernetes.io/is-default-class";
const OLD_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Adds the finalizer that keeps the object while it is in use.
pub(super) fn protect(metadata: &mut ObjectMeta, finalizer: &str) {
    let finalizers = metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

/// Gives a claim that names no class the default one. Naming the empty class means none.
pub(super) fn default_class(claim: &mut PersistentVolumeClaim, classes: &[StorageClass]) {
    let has_old = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS_ANNOTATION));
    let Some(spec) = claim.spec.as_mut() else { return };
    if has_old || spec.storage_class_name.is_some() {
        return;
    }
    spec.storage_class_name = newest_default(classes).and_then(|c| c.metadata.name.clone());
}

/// Of several defaults the newest, then the first by name.
fn newest_default(classes: &[StorageClass]) -> Option<&StorageClass> {
    classes.iter().filter(|c| is_default(c)).max_by(|a, b| {
        let (a, b) = (&a.metadata, &b.metadata);
        a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| b.name.cmp(&a.name))
    })
}

fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    [DEFAULT_ANNOTATION, OLD_DEFAULT_ANNOTATION]
        .iter()
        .any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|v| v == "true"))
}

/// Refuses to let a claim grow unless it is bound and its class expands volumes.
///
/// # Errors
/// Why the claim stays as it is.
pub(super) fn validate_growth(
    claim: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    classes: &[StorageClass],
) -> Result<(), &'static str> {
    let size = |claim: &PersistentVolumeClaim| {
        let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
        let storage = resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
        storage.map_or(Quantity::ZERO, Quantity::of)
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err("Only bound persistent volume claims can be expanded");
    }
    let class = class_of(claim).filter(|_| class_of(old).is_some());
    let class = class.and_then(|name| classes.iter().find(|c| c.metadata.name.as_deref() == Some(name)));
    if class.is_some_and(|c| c.allow_volume_expansion == Some(true)) {
        Ok(())
    } else {
        Err(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )
    }
}

fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let old = claim.metadata.annotations.as_ref().and_then(|a| a.get(OLD_CLASS_ANNOTATION)).map(String::as_str);
    let own = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    old.or(own).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, default: bool, created: &str) -> StorageClass {
        let annotations = json!({DEFAULT_ANNOTATION: default.to_string()});
        let metadata = json!({"name": name, "creationTimestamp": created, "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "provisioner": "p"})).unwrap()
    }

    #[track_caller]
    fn check(spec: &Value, annotations: &Value, expected: Option<&str>) {
        let classes = [
            class("old", true, "2026-01-01T00:00:00Z"),
            class("new-b", true, "2026-02-01T00:00:00Z"),
            class("new-a", true, "2026-02-01T00:00:00Z"),
            class("newest", false, "2026-03-01T00:00:00Z"),
        ];
        let claim = json!({"metadata": {"annotations": annotations}, "spec": spec});
        let mut claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        default_class(&mut claim, &classes);
        assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), expected, "{spec} {annotations}");
    }

    #[test]
    fn a_claim_without_a_class_gets_the_newest_default() {
        check(&json!({}), &json!({}), Some("new-a"));
        check(&json!({"storageClassName": ""}), &json!({}), Some(""));
        check(&json!({"storageClassName": "x"}), &json!({}), Some("x"));
        check(&json!({}), &json!({OLD_CLASS_ANNOTATION: "y"}), None);
    }

    #[test]
    fn a_claim_grows_when_it_is_bound_and_its_class_expands() {
        let mut expanding = class("grows", false, "2026-01-01T00:00:00Z");
        expanding.allow_volume_expansion = Some(true);
        let classes = [expanding, class("fixed", false, "2026-01-01T00:00:00Z")];
        let claim = |class: &str, phase: &str, size: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "metadata": {}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
            }))
            .unwrap()
        };
        let unbound = Err("Only bound persistent volume claims can be expanded");
        let unable = Err(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
        let rows = [
            ("grows", "Bound", "2Gi", Ok(())),
            ("grows", "Pending", "2Gi", unbound),
            ("fixed", "Bound", "2Gi", unable),
            ("fixed", "Bound", "1Gi", Ok(())),
            ("fixed", "Pending", "512Mi", Ok(())),
            ("absent", "Bound", "2Gi", unable),
            ("", "Bound", "2Gi", unable),
        ];
        for (class, phase, size, expected) in rows {
            let old = claim(class, phase, "1Gi");
            assert_eq!(validate_growth(&claim(class, phase, size), &old, &classes), expected, "{class} {phase} {size}");
        }
    }

    #[test]
    fn a_finalizer_is_added_once() {
        let mut metadata = ObjectMeta::default();
        protect(&mut metadata, CLAIM_PROTECTION);
        protect(&mut metadata, CLAIM_PROTECTION);
        assert_eq!(metadata.finalizers, Some(vec![CLAIM_PROTECTION.to_owned()]));
    }
}
