//! What the host itself needs once: forwarding, source checks, localhost NodePorts, the DNS address.
//!
//! Every step may run again at any time. Settings are per network namespace, so the calling
//! thread's namespace is the one that is set up.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::netlink::{Kernel, Socket};
use crate::route::{self, RouteChanges};

const IPV4: &str = "/proc/sys/net/ipv4";
const LOOPBACK: &str = "lo";
/// Ethernet's, for a host without a default route.
const DEFAULT_MTU: u32 = 1500;

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot set {path} to {value}: {source}")]
    Setting { path: String, value: &'static str, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot set up the loopback link: {0}")]
    Loopback(Kernel),
    #[error("cannot read the MTU of the default route's link: {0}")]
    Mtu(Kernel),
}

/// Lets packets pass between pods and the world, and makes strict source checks on pod links count.
pub(crate) fn allow_forwarding() -> Result<(), HostError> {
    set("ip_forward", "1")?;
    make_strict_filters_effective()
}

/// Lets connections to 127.0.0.1 be translated to a pod. Only after the guard against packets
/// to 127/8 from outside is loaded.
pub(crate) fn route_loopback_addresses() -> Result<(), HostError> {
    set("conf/all/route_localnet", "1")
}

/// Brings lo up and gives it the address of the cluster's DNS server, for the server to bind.
pub(crate) fn prepare_loopback(socket: &Socket, cluster_dns: Option<Ipv4Addr>) -> Result<(), HostError> {
    let loopback = route::link_by_name(socket, LOOPBACK).map_err(HostError::Loopback)?;
    let Some(loopback) = loopback else { return Ok(()) };
    let mut changes = RouteChanges::default();
    changes.set_up(loopback.index);
    if let Some(address) = cluster_dns {
        changes.add_address(loopback.index, address);
    }
    changes.run(socket).map_err(HostError::Loopback)
}

/// The MTU of the link that the default route leaves by.
pub(crate) fn default_mtu(socket: &Socket) -> Result<u32, HostError> {
    let Some(index) = route::default_link(socket).map_err(HostError::Mtu)? else { return Ok(DEFAULT_MTU) };
    let links = route::links(socket).map_err(HostError::Mtu)?;
    Ok(links.into_iter().find(|link| link.index == index).map_or(DEFAULT_MTU, |link| link.mtu))
}

/// The kernel takes the larger of a link's `rp_filter` and that of `all`, and loose (2) is larger
/// than strict (1). Where `all` is loose, the links that are there take over its value instead,
/// which changes nothing for them and lets pod links be strict.
fn make_strict_filters_effective() -> Result<(), HostError> {
    const LOOSE: &str = "2";
    if read("conf/all/rp_filter")? != LOOSE {
        return Ok(());
    }
    let directory = format!("{IPV4}/conf");
    let entries = fs::read_dir(&directory).map_err(|source| HostError::Read { path: directory, source })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| *name != "all") else { continue };
        match set(&format!("conf/{name}/rp_filter"), LOOSE) {
            Ok(()) => (),
            // The link went away in between.
            Err(HostError::Setting { source, .. } | HostError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    set("conf/all/rp_filter", "0")
}

fn read(setting: &str) -> Result<String, HostError> {
    let path = format!("{IPV4}/{setting}");
    match fs::read_to_string(Path::new(&path)) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(source) => Err(HostError::Read { path, source }),
    }
}

/// Writes only what differs: /proc/sys may be read-only and yet right.
fn set(setting: &str, value: &'static str) -> Result<(), HostError> {
    if read(setting)? == value {
        return Ok(());
    }
    let path = format!("{IPV4}/{setting}");
    fs::write(Path::new(&path), value).map_err(|source| HostError::Setting { path, value, source })
}
