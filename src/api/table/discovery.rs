//! Endpoint slices.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{UNSET, first_few, or};

impl Printed for EndpointSlice {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("AddressType", "The family of the addresses."),
        Column::text("Ports", "The first ports of each endpoint."),
        Column::text("Endpoints", "The first addresses, ready or not."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = self.ports.iter().flatten().map(port).collect();
        let addresses: Vec<String> =
            self.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses).cloned().collect();
        row![
            self.name(),
            self.address_type.as_str(),
            or(Some(&first_few(&ports)), UNSET),
            or(Some(&first_few(&addresses)), UNSET),
            self.age(now),
        ]
    }
}

/// A port without a number stands for all of them.
fn port(port: &EndpointPort) -> String {
    match port.port {
        Some(number) => number.to_string(),
        None => port.name.as_deref().unwrap_or("*").to_owned(),
    }
}
