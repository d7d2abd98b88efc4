//! Endpoint slices: addresses of one kind, at most a hundred per endpoint and a thousand endpoints.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1 as api;

use crate::core::endpoints::validate_ordinary_ip;
use crate::core::pod::validate_protocol;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::{format, validate_labels};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20000;
const HINTS_MAX: usize = 8;
const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];

pub(crate) struct EndpointSlice;

impl Kind for EndpointSlice {
    type Object = api::EndpointSlice;

    fn default(&self, obj: &mut api::EndpointSlice) {
        for port in obj.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(&self, obj: &api::EndpointSlice, errs: &mut ErrorList) {
        let path = Path::new("addressType");
        crate::core::pod::validate_choice(Some(&obj.address_type), TYPES, &path, errs);
        let path = Path::new("endpoints");
        let endpoints = obj.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS_MAX {
            errs.push(field::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        } else {
            for (i, endpoint) in endpoints.iter().enumerate() {
                if errs.is_full() {
                    break;
                }
                validate_endpoint(endpoint, &obj.address_type, &path.index(i), errs);
            }
        }
        validate_ports(obj.ports.as_deref().unwrap_or_default(), errs);
    }

    fn validate_update(&self, new: &api::EndpointSlice, old: &api::EndpointSlice, errs: &mut ErrorList) {
        self.validate(new, errs);
        field::immutable(&Path::new("addressType"), &new.address_type, &old.address_type, errs);
    }
}

fn validate_endpoint(endpoint: &api::Endpoint, kind: &str, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errs.push(field::required(&at, "must contain at least 1 address")),
        count if count > ADDRESSES_MAX => errs.push(field::too_many(&at, count, ADDRESSES_MAX)),
        _ => {}
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = at.index(i);
        match kind {
            "IPv4" | "IPv6" => {
                let v6 = kind == "IPv6";
                let fits = address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv6() == v6);
                if fits {
                    validate_ordinary_ip(address, &at, errs);
                } else {
                    errs.push(field::invalid(&at, address, format!("must be a valid {kind} address")));
                }
            }
            "FQDN" => field::invalid_each(&at, address, format::dns1123_subdomain(address), errs),
            _ => {}
        }
    }
    if let Some(name) = endpoint.node_name.as_deref() {
        field::invalid_each(&path.child("nodeName"), name, format::dns1123_subdomain(name), errs);
    }
    validate_labels(endpoint.deprecated_topology.as_ref(), &path.child("deprecatedTopology"), errs);
    if let Some(name) = endpoint.hostname.as_deref() {
        field::invalid_each(&path.child("hostname"), name, format::dns1123_label(name), errs);
    }
    let zones = endpoint.hints.as_ref().and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
    let at = path.child("hints.forZones");
    if zones.len() > HINTS_MAX {
        errs.push(field::too_many(&at, zones.len(), HINTS_MAX));
    }
    for (i, zone) in zones.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = at.index(i);
        field::invalid_each(&at.child("name"), &zone.name, format::label_value(&zone.name), errs);
    }
}

fn validate_ports(ports: &[api::EndpointPort], errs: &mut ErrorList) {
    let path = Path::new("ports");
    if ports.len() > PORTS_MAX {
        errs.push(field::too_many(&path, ports.len(), PORTS_MAX));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            field::invalid_each(&at.child("name"), name, format::dns1123_label(name), errs);
        }
        if !names.insert(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        }
        if let Some(number) = port.port {
            field::invalid_each(&at.child("port"), &number, format::port_number(i64::from(number)), errs);
        }
        validate_protocol(port.protocol.as_deref(), &at.child("protocol"), errs);
        if let Some(app) = port.app_protocol.as_deref() {
            field::invalid_each(&at.child("appProtocol"), app, format::qualified_name(app), errs);
        }
    }
}
