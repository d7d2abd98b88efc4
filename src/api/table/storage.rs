//! Storage classes, attachments and what CSI drivers register.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, StorageClass, TokenRequest, VolumeAttachment, VolumeAttributesClass,
};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{self, NONE, UNSET, or, plain};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Printed for StorageClass {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Provisioner", "What makes volumes of this class."),
        Column::text("ReclaimPolicy", "What becomes of a volume when its claim goes."),
        Column::text("VolumeBindingMode", "When claims are bound to volumes."),
        Column::text("AllowVolumeExpansion", "Whether volumes may grow."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![
            text::default_marked(self, &DEFAULT_CLASS),
            self.provisioner.as_str(),
            self.reclaim_policy.as_deref().unwrap_or("Delete"),
            self.volume_binding_mode.as_deref().unwrap_or("Immediate"),
            self.allow_volume_expansion.unwrap_or(false),
            self.age(now),
        ]
    }
}

impl Printed for VolumeAttributesClass {
    const COLUMNS: &'static [Column] = &[NAME, Column::text("DriverName", "The driver that the class is for."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.driver_name.as_str(), self.age(now)]
    }
}

impl Printed for VolumeAttachment {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column { format: "name", ..Column::text("Attacher", "The driver that attaches the volume.") },
        Column::text("PV", "The volume."),
        Column::text("Node", "The node that the volume is attached to."),
        Column::boolean("Attached", "Whether the volume is attached."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![
            self.name(),
            self.spec.attacher.as_str(),
            plain(self.spec.source.persistent_volume_name.as_ref()),
            self.spec.node_name.as_str(),
            self.status.as_ref().is_some_and(|status| status.attached),
            self.age(now),
        ]
    }
}

impl Printed for CSINode {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::integer("Drivers", "How many drivers are registered on the node."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.spec.drivers.len(), self.age(now)]
    }
}

impl Printed for CSIDriver {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
        Column::boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
        Column::boolean("StorageCapacity", "Whether the scheduler looks at the driver's free capacity."),
        Column::text("TokenRequests", "Audiences of the tokens that the driver is given."),
        Column::boolean("RequiresRepublish", "Whether mounted volumes are published again now and then."),
        Column::text("Modes", "Kinds of volumes that the driver serves."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let audiences = |requests: &Vec<TokenRequest>| {
            requests.iter().map(|request| request.audience.as_str()).collect::<Vec<_>>().join(",")
        };
        let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or_default().join(",");
        row![
            self.name(),
            spec.attach_required.unwrap_or(true),
            spec.pod_info_on_mount.unwrap_or(false),
            spec.storage_capacity.unwrap_or(false),
            spec.token_requests.as_ref().map_or_else(|| UNSET.to_owned(), audiences),
            spec.requires_republish.unwrap_or(false),
            or(Some(&modes), NONE),
            self.age(now),
        ]
    }
}
