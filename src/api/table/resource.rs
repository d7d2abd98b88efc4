//! Devices and claims to them.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::plain;

impl Printed for DeviceClass {
    const COLUMNS: &'static [Column] = &[NAME, AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.age(now)]
    }
}

impl Printed for ResourceClaim {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("State", "Whether the claim is pending, allocated, reserved or deleted."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), state(self), self.age(now)]
    }
}

fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.as_ref();
    let allocated = status.is_some_and(|status| status.allocation.is_some());
    let reserved = status.and_then(|status| status.reserved_for.as_ref()).is_some_and(|users| !users.is_empty());
    let deleted = claim.is_terminating();
    let states = [
        ("deleted", deleted),
        ("pending", !allocated && !deleted),
        ("allocated", allocated),
        ("reserved", allocated && reserved),
    ];
    states.iter().filter(|(_, holds)| *holds).map(|(state, _)| *state).collect::<Vec<_>>().join(",")
}

impl Printed for ResourceClaimTemplate {
    const COLUMNS: &'static [Column] = &[NAME, AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.age(now)]
    }
}

impl Printed for ResourceSlice {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Node", "The node that has the devices."),
        Column::text("Driver", "The driver that offers the devices."),
        Column::text("Pool", "The pool that the devices belong to."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let node = plain(spec.node_name.as_ref());
        row![self.name(), node, spec.driver.as_str(), spec.pool.name.as_str(), self.age(now)]
    }
}
