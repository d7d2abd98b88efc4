//! StorageObjectInUseProtection and DefaultStorageClass: claims and volumes are not deleted while they
//! are in use, and a claim without a class gets the default one.

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
    fn a_finalizer_is_added_once() {
        let mut metadata = ObjectMeta::default();
        protect(&mut metadata, CLAIM_PROTECTION);
        protect(&mut metadata, CLAIM_PROTECTION);
        assert_eq!(metadata.finalizers, Some(vec![CLAIM_PROTECTION.to_owned()]));
    }
}
