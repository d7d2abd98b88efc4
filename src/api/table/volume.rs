//! Persistent volumes and claims.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    PersistentVolumeSpec, PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{UNSET, amount, plain};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const TERMINATING: &str = "Terminating";

impl Printed for PersistentVolume {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Capacity", "The volume's size."),
        Column::text("Access Modes", "How the volume can be mounted."),
        Column::text("Reclaim Policy", "What becomes of the volume when its claim goes."),
        Column::text("Status", "Whether the volume is bound."),
        Column::text("Claim", "The claim that the volume is bound to."),
        Column::text("StorageClass", "The volume's storage class."),
        Column::text("VolumeAttributesClass", "The volume's class of attributes."),
        Column::text("Reason", "Why the volume is in its state."),
        AGE,
        Column::text("VolumeMode", "Whether the volume is a file system or a block device.").wide(),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (PersistentVolumeSpec::default(), PersistentVolumeStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let claim = spec
            .claim_ref
            .as_ref()
            .map(|claim| format!("{}/{}", plain(claim.namespace.as_ref()), plain(claim.name.as_ref())));
        row![
            self.name(),
            amount(spec.capacity.as_ref(), "storage"),
            access_modes(spec.access_modes.as_deref()),
            plain(spec.persistent_volume_reclaim_policy.as_ref()),
            if self.is_terminating() { TERMINATING } else { plain(status.phase.as_ref()) },
            claim.unwrap_or_default(),
            class(&self.metadata, spec.storage_class_name.as_ref()),
            spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET),
            plain(status.reason.as_ref()),
            self.age(now),
            spec.volume_mode.as_deref().unwrap_or(UNSET),
        ]
    }
}

impl Printed for PersistentVolumeClaim {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Status", "Whether the claim is bound."),
        Column::text("Volume", "The volume that the claim is bound to."),
        Column::text("Capacity", "The size of that volume."),
        Column::text("Access Modes", "How that volume can be mounted."),
        Column::text("StorageClass", "The storage class that the claim asks for."),
        Column::text("VolumeAttributesClass", "The class of attributes that the claim asks for."),
        AGE,
        Column::text("VolumeMode", "Whether the claim is for a file system or a block device.").wide(),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (PersistentVolumeClaimSpec::default(), PersistentVolumeClaimStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let volume = plain(spec.volume_name.as_ref());
        let (capacity, modes) = if volume.is_empty() {
            ("", String::new())
        } else {
            (amount(status.capacity.as_ref(), "storage"), access_modes(status.access_modes.as_deref()))
        };
        row![
            self.name(),
            if self.is_terminating() { TERMINATING } else { plain(status.phase.as_ref()) },
            volume,
            capacity,
            modes,
            class(&self.metadata, spec.storage_class_name.as_ref()),
            spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET),
            self.age(now),
            spec.volume_mode.as_deref().unwrap_or(UNSET),
        ]
    }
}

fn access_modes(modes: Option<&[String]>) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = modes.unwrap_or_default();
    let given = SHORT.iter().filter(|(long, _)| modes.iter().any(|mode| mode == long));
    given.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The annotation is older than the field and still goes first.
fn class<'a>(meta: &'a ObjectMeta, class: Option<&'a String>) -> &'a str {
    let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    plain(annotation.or(class))
}
