//! Endpoints, the form before slices.

use std::net::Ipv6Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{NONE, first_few};

impl Printed for Endpoints {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("Endpoints", "The first ready addresses, with each of their ports."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let subsets = self.subsets.as_deref().unwrap_or_default();
        let endpoints = match subsets {
            [] => NONE.to_owned(),
            subsets => first_few(&subsets.iter().flat_map(addresses).collect::<Vec<_>>()),
        };
        row![self.name(), endpoints, self.age(now)]
    }
}

/// Every address with every port; a service may have addresses only.
fn addresses(subset: &EndpointSubset) -> Vec<String> {
    let ips = || subset.addresses.iter().flatten().map(|address| &address.ip);
    match subset.ports.as_deref().unwrap_or_default() {
        [] => ips().cloned().collect(),
        ports => ports.iter().flat_map(|port| ips().map(|ip| host_port(ip, port.port))).collect(),
    }
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.parse::<Ipv6Addr>().is_ok() { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}
