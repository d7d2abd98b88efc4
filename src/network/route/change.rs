//! Requests that change links, addresses and routes; several go to the kernel in one `send`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Attributes, Kernel, Messages, Socket};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const LINK_INFO_KIND: u16 = 1;
const LINK_INFO_DATA: u16 = 2;
const LINK_ADDRESS_FAMILIES: u16 = 26;
const LINK_NAMESPACE_FD: u16 = 28;
const VETH_PEER: u16 = 1;
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_*`.
const CONF_ACCEPT_REDIRECTS: u16 = 4;
const CONF_RP_FILTER: u16 = 8;
const CONF_ACCEPT_SOURCE_ROUTE: u16 = 9;
const STRICT: u32 = 1;

const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_SOURCE: u16 = 7;
const TABLE_MAIN: u8 = 254;
/// `RTPROT_STATIC`: set up on purpose, no routing daemon takes it away.
const PROTOCOL_STATIC: u8 = 4;
const KIND_UNICAST: u8 = 1;

const FAMILY: u8 = 2;
const FLAG_UP: u8 = 1;

/// A pair of links, one end here, the other in a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_namespace: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

/// How far away a route's destination is, in the kernel's numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    Global = 0,
    Link = 253,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) link: u32,
    pub(crate) scope: Scope,
}

/// Requests in the order in which they are carried out.
#[derive(Debug, Default)]
pub(crate) struct RouteChanges(Messages);

impl RouteChanges {
    /// Makes a pair of links, which are down: there are settings that count from the first moment on.
    pub(crate) fn add_veth(&mut self, veth: Veth<'_>) -> &mut Self {
        self.0.push_acknowledged(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, State::Unchanged), |a| {
            a.string(LINK_NAME, veth.host_name);
            a.host_u32(LINK_MTU, veth.mtu);
            a.nest(LINK_INFO, |a| {
                a.string(LINK_INFO_KIND, "veth");
                a.nest(LINK_INFO_DATA, |a| a.nest(VETH_PEER, |a| peer(a, veth)));
            });
        });
        self
    }

    /// Distrusts what is at the other end: drops packets that arrive on this link from addresses that
    /// are not routed to it, and learns no routes from it.
    pub(crate) fn distrust(&mut self, link: u32) -> &mut Self {
        self.0.push_acknowledged(NEW_LINK, 0, &link_header(link, State::Unchanged), |a| {
            a.nest(LINK_ADDRESS_FAMILIES, |a| {
                a.nest(u16::from(FAMILY), |a| {
                    a.nest(INET_CONF, |a| {
                        a.host_u32(CONF_ACCEPT_REDIRECTS, 0);
                        a.host_u32(CONF_RP_FILTER, STRICT);
                        a.host_u32(CONF_ACCEPT_SOURCE_ROUTE, 0);
                    });
                });
            });
        });
        self
    }

    pub(crate) fn set_up(&mut self, link: u32) -> &mut Self {
        self.0.push_acknowledged(NEW_LINK, 0, &link_header(link, State::Up), |_| ());
        self
    }

    pub(crate) fn delete_link(&mut self, link: u32) -> &mut Self {
        self.0.push_acknowledged(DELETE_LINK, 0, &link_header(link, State::Unchanged), |_| ());
        self
    }

    /// Adds an address of its own (a /32); one that is there stays.
    pub(crate) fn add_address(&mut self, link: u32, address: Ipv4Addr) -> &mut Self {
        let mut header = [FAMILY, 32, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&link.to_ne_bytes());
        self.0.push_acknowledged(NEW_ADDRESS, CREATE | REPLACE, &header, |a| {
            a.bytes(ADDRESS_LOCAL, &address.octets());
            a.bytes(ADDRESS, &address.octets());
        });
        self
    }

    /// Adds a route to the main table or replaces the one to the same destination.
    pub(crate) fn add_route(&mut self, route: Route) -> &mut Self {
        let header =
            [FAMILY, route.prefix, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, route.scope as u8, KIND_UNICAST, 0, 0, 0, 0];
        self.0.push_acknowledged(NEW_ROUTE, CREATE | REPLACE, &header, |a| {
            if route.prefix > 0 {
                a.bytes(ROUTE_DESTINATION, &route.destination.octets());
            }
            if let Some(gateway) = route.gateway {
                a.bytes(ROUTE_GATEWAY, &gateway.octets());
            }
            if let Some(source) = route.source {
                a.bytes(ROUTE_SOURCE, &source.octets());
            }
            a.host_u32(ROUTE_DEVICE, route.link);
        });
        self
    }

    /// Carries everything out; the first refusal is the result.
    pub(crate) fn run(&self, socket: &Socket) -> Result<(), Kernel> {
        socket.run_all(&self.0)
    }
}

/// Whether a request changes the administrative state of a link.
#[derive(Clone, Copy)]
enum State {
    Unchanged,
    Up,
}

/// `struct ifinfomsg`.
fn link_header(link: u32, state: State) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    if let State::Up = state {
        header[8] = FLAG_UP;
        header[12] = FLAG_UP;
    }
    header
}

fn peer(a: &mut Attributes, veth: Veth<'_>) {
    a.extend(&link_header(0, State::Unchanged));
    a.string(LINK_NAME, veth.pod_name);
    a.host_u32(LINK_MTU, veth.mtu);
    a.bytes(LINK_NAMESPACE_FD, &veth.pod_namespace.as_raw_fd().to_ne_bytes());
}
