//! Endpoints: addresses that a service may send to, none of them special.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::pod::validate_protocol;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

pub(crate) struct Endpoints;

impl Kind for Endpoints {
    type Object = api::Endpoints;

    fn default(&self, obj: &mut api::Endpoints) {
        for port in obj.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(&self, obj: &api::Endpoints, errs: &mut ErrorList) {
        let path = Path::new("subsets");
        for (i, subset) in obj.subsets.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let at = path.index(i);
            let ready = subset.addresses.as_deref().unwrap_or_default();
            let unready = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if ready.is_empty() && unready.is_empty() {
                errs.push(field::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (name, list) in [("addresses", ready), ("notReadyAddresses", unready)] {
                let list_at = at.child(name);
                for (j, address) in list.iter().enumerate() {
                    if errs.is_full() {
                        break;
                    }
                    validate_address(address, &list_at.index(j), errs);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            let ports_at = at.child("ports");
            for (j, port) in ports.iter().enumerate() {
                if errs.is_full() {
                    break;
                }
                validate_port(port, ports.len() > 1, &ports_at.index(j), errs);
            }
        }
    }
}

fn validate_address(address: &api::EndpointAddress, path: &Path<'_>, errs: &mut ErrorList) {
    field::invalid_each(&path.child("ip"), &address.ip, format::ip_address(&address.ip), errs);
    if let Some(name) = address.hostname.as_deref().filter(|n| !n.is_empty()) {
        field::invalid_each(&path.child("hostname"), name, format::dns1123_label(name), errs);
    }
    if let Some(name) = address.node_name.as_deref() {
        field::invalid_each(&path.child("nodeName"), name, format::dns1123_subdomain(name), errs);
    }
    validate_ordinary_ip(&address.ip, &path.child("ip"), errs);
}

/// Traffic for these addresses would end on the node itself, or nowhere.
pub(crate) fn validate_ordinary_ip(text: &str, path: &Path<'_>, errs: &mut ErrorList) {
    // An IPv4 address is the same one in the clothes of an IPv6 address.
    let Ok(ip) = text.parse::<IpAddr>().map(|ip| ip.to_canonical()) else {
        errs.push(field::invalid(path, text, "must be a valid IP address"));
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errs.push(field::invalid(path, text, format!("may not be unspecified ({text})")));
    }
    if ip.is_loopback() {
        errs.push(field::invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errs.push(field::invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if link_local_multicast {
        let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errs.push(field::invalid(path, text, why));
    }
}

fn validate_port(port: &api::EndpointPort, named: bool, path: &Path<'_>, errs: &mut ErrorList) {
    match port.name.as_deref().unwrap_or("") {
        "" if named => errs.push(field::required(&path.child("name"), "")),
        "" => {}
        name => field::invalid_each(&path.child("name"), name, format::dns1123_label(name), errs),
    }
    field::invalid_each(&path.child("port"), &port.port, format::port_number(i64::from(port.port)), errs);
    validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errs);
    if let Some(name) = port.app_protocol.as_deref() {
        field::invalid_each(&path.child("appProtocol"), name, format::qualified_name(name), errs);
    }
}
