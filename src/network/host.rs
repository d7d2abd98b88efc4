//! What the host itself needs once: forwarding, source checks, localhost NodePorts, the DNS address.
//!
//! Every step may run again at any time. Settings are per network namespace, so the calling
//! thread's namespace is the one that is set up.

use std::fs;
use std::net::Ipv4Addr;

use crate::netlink::{Kernel, Socket};
use crate::route::{self, RouteChanges};
use crate::setting::{SettingError, read, set, set_if_present};

const LOOPBACK: &str = "lo";
/// Ethernet's, for a host without a default route.
const DEFAULT_MTU: u32 = 1500;

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("cannot set up the loopback link: {0}")]
    Loopback(Kernel),
    #[error("cannot read the MTU of the default route's link: {0}")]
    Mtu(Kernel),
}

/// Lets packets pass between pods and the world, and makes strict source checks on pod links count.
pub(crate) fn allow_forwarding() -> Result<(), HostError> {
    set("ipv4/ip_forward", "1")?;
    make_strict_filters_effective()
}

/// Lets connections to 127.0.0.1 be translated to a pod. Only after the guard against packets
/// to 127/8 from outside is loaded.
pub(crate) fn route_loopback_addresses() -> Result<(), HostError> {
    Ok(set("ipv4/conf/all/route_localnet", "1")?)
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
    const LINKS: &str = "/proc/sys/net/ipv4/conf";
    if read("ipv4/conf/all/rp_filter")? != LOOSE {
        return Ok(());
    }
    let entries = fs::read_dir(LINKS).map_err(|source| SettingError::Read { path: LINKS.to_owned(), source })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| *name != "all") else { continue };
        // A link may go away in between.
        set_if_present(&format!("ipv4/conf/{name}/rp_filter"), LOOSE)?;
    }
    Ok(set("ipv4/conf/all/rp_filter", "0")?)
}
