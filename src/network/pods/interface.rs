//! One pod's veth pair: addresses and routes on both ends.
//!
//! The host's end carries the gateway address and a route to the pod; it checks the sources of what
//! comes out of the pod and learns nothing from it. Neither end speaks IPv6. The host's end is named
//! after the pod's address, so that a leftover of an earlier owner of the address is found and
//! replaced.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::POD_LINK;
use crate::netlink::{Kernel, Socket};
use crate::route::{self, Route, RouteChanges, Scope, Veth};
use crate::setting::SettingError;
use crate::{ipv6, namespace};

/// `pod` and the address in eight hex digits: 11 of the 15 letters that a link's name may have.
pub(super) const PREFIX: &str = "pod";
const LOOPBACK_INDEX: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Kernel(#[from] Kernel),
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// A pod's link to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    pub(super) address: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
    pub(super) mtu: u32,
}

impl Interface {
    /// Makes the pair, unless the pod has it already. `pod` is a socket inside `namespace`.
    pub(super) fn connect(self, host: &Socket, pod: &Socket, namespace: &File) -> Result<(), LinkError> {
        if self.is_connected(host, pod)? {
            ipv6::turn_off(&name_of(self.address))?;
            return namespace::inside(namespace, || Ok(ipv6::turn_off(POD_LINK)?));
        }
        remove(host, self.address)?;
        if let Some(leftover) = route::link_by_name(pod, POD_LINK)? {
            RouteChanges::default().delete_link(leftover.index).run(pod)?;
        }
        let result = self.make(host, pod, namespace);
        if result.is_err() {
            // The first failure is what the caller must see; attach removes leftovers anyway.
            let _ = remove(host, self.address);
        }
        result
    }

    fn is_connected(self, host: &Socket, pod: &Socket) -> Result<bool, Kernel> {
        if route::link_by_name(host, &name_of(self.address))?.is_none() {
            return Ok(false);
        }
        let Some(link) = route::link_by_name(pod, POD_LINK)? else { return Ok(false) };
        Ok(route::local_addresses(pod)?.contains(&(link.index, self.address)))
    }

    fn make(self, host: &Socket, pod: &Socket, namespace: &File) -> Result<(), LinkError> {
        let host_name = name_of(self.address);
        let veth = Veth { host_name: &host_name, pod_name: POD_LINK, pod_namespace: namespace.as_fd(), mtu: self.mtu };
        RouteChanges::default().add_veth(veth).run(host)?;
        ipv6::turn_off(&host_name)?;
        let host_end = index_of(host, &host_name)?;
        RouteChanges::default()
            .distrust(host_end)
            .set_up(host_end)
            .add_address(host_end, self.gateway)
            .add_route(Route {
                destination: self.address,
                prefix: 32,
                gateway: None,
                source: Some(self.gateway),
                link: host_end,
                scope: Scope::Link,
            })
            .run(host)?;
        namespace::inside(namespace, || Ok::<_, LinkError>(ipv6::turn_off(POD_LINK)?))?;
        let link = index_of(pod, POD_LINK)?;
        let to_gateway =
            Route { destination: self.gateway, prefix: 32, gateway: None, source: None, link, scope: Scope::Link };
        let default = Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(self.gateway),
            scope: Scope::Global,
            ..to_gateway
        };
        RouteChanges::default()
            .set_up(LOOPBACK_INDEX)
            .add_address(link, self.address)
            .set_up(link)
            .add_route(to_gateway)
            .add_route(default)
            .run(pod)?;
        Ok(())
    }
}

/// The address of the pod whose link leads into this namespace. The host's end says so, which nothing in the pod
/// can change. `pod` is a socket inside `namespace`.
pub(super) fn address_in(host: &Socket, pod: &Socket, namespace: &File) -> Result<Option<Ipv4Addr>, Kernel> {
    // A new namespace: to look through the links of all pods takes the longer the more there are.
    if route::links(pod)?.iter().all(|link| link.name == "lo") {
        return Ok(None);
    }
    // Before the number is asked for, which it may give out.
    let links = route::links(host)?;
    let Some(id) = route::namespace_id(host, namespace.as_fd())? else { return Ok(None) };
    Ok(links.iter().filter(|link| link.peer_namespace == Some(id)).find_map(|link| address_of(&link.name)))
}

/// Removes the host's end, and with it the pod's, of the pod that has this address.
pub(super) fn remove(host: &Socket, address: Ipv4Addr) -> Result<(), Kernel> {
    let Some(link) = route::link_by_name(host, &name_of(address))? else { return Ok(()) };
    match RouteChanges::default().delete_link(link.index).run(host) {
        // Its namespace was closed in between.
        Err(e) if e.errno() == Some(Errno::ENODEV) => Ok(()),
        result => result,
    }
}

fn index_of(socket: &Socket, name: &str) -> Result<u32, Kernel> {
    route::link_by_name(socket, name)?.map(|link| link.index).ok_or_else(|| Errno::ENODEV.into())
}

fn name_of(address: Ipv4Addr) -> String {
    format!("{PREFIX}{:08x}", u32::from(address))
}

/// The address of the pod that a link of this name belongs to.
pub(super) fn address_of(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_tells_the_address() {
        let address = Ipv4Addr::new(10, 244, 0, 7);
        assert_eq!(name_of(address), "pod0af40007");
        assert_eq!(address_of("pod0af40007"), Some(address));
        for other in ["pod0", "eth0", "podzzzzzzzz", "veth0af40007"] {
            assert_eq!(address_of(other), None, "{other}");
        }
    }
}
