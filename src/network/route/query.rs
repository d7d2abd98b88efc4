//! Questions about links, addresses and routes.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Kernel, Messages, Socket, find};

const GET_LINK: u16 = 18;
const NEW_LINK: u16 = 16;
const GET_ADDRESS: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;
const GET_NAMESPACE: u16 = 90;
const NEW_NAMESPACE: u16 = 88;
const DUMP: u16 = 0x300;
const FAMILY: u8 = 2;
const TABLE_MAIN: u8 = 254;

const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_PEER_NAMESPACE: u16 = 37;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_PRIORITY: u16 = 6;
const NAMESPACE_ID: u16 = 1;
const NAMESPACE_FD: u16 = 3;

const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NAMESPACE_HEADER: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// The number, in the asker's namespace, of the one that the other end is in.
    pub(crate) peer_namespace: Option<u32>,
}

/// All links of the namespace.
pub(crate) fn links(socket: &Socket) -> Result<Vec<Link>, Kernel> {
    let mut request = Messages::default();
    request.push(GET_LINK, DUMP, &[0; LINK_HEADER], |_| ());
    let mut links = Vec::new();
    socket.dump(&request, |message| {
        if message.kind == NEW_LINK {
            links.extend(link(message.payload));
        }
    })?;
    Ok(links)
}

/// The link of this name, if there is one.
pub(crate) fn link_by_name(socket: &Socket, name: &str) -> Result<Option<Link>, Kernel> {
    let mut request = Messages::default();
    // The confirmation ends the answer: a request for one link is not a dump.
    request.push_acknowledged(GET_LINK, 0, &[0; LINK_HEADER], |a| a.string(LINK_NAME, name));
    let mut found = None;
    match socket.dump(&request, |message| found = link(message.payload)) {
        Ok(()) => Ok(found),
        Err(e) if e.errno() == Some(nix::errno::Errno::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The number by which the socket's namespace knows another one. The kernel gives one to the namespace of a
/// link's other end when it first tells of the link; a namespace that no link leads to may have none.
pub(crate) fn namespace_id(socket: &Socket, namespace: BorrowedFd<'_>) -> Result<Option<u32>, Kernel> {
    let mut request = Messages::default();
    let fd = namespace.as_raw_fd().to_ne_bytes();
    request.push_acknowledged(GET_NAMESPACE, 0, &[0; NAMESPACE_HEADER], |a| a.bytes(NAMESPACE_FD, &fd));
    let mut found = None;
    socket.dump(&request, |message| {
        if message.kind == NEW_NAMESPACE {
            found = message.payload.get(NAMESPACE_HEADER..).and_then(|attributes| host_u32(attributes, NAMESPACE_ID));
        }
    })?;
    // -1: it has none.
    Ok(found.filter(|id| *id != u32::MAX))
}

/// The IPv4 addresses of the namespace with the index of their links.
pub(crate) fn local_addresses(socket: &Socket) -> Result<Vec<(u32, Ipv4Addr)>, Kernel> {
    let mut header = [0; ADDRESS_HEADER];
    header[0] = FAMILY;
    let mut request = Messages::default();
    request.push(GET_ADDRESS, DUMP, &header, |_| ());
    let mut addresses = Vec::new();
    socket.dump(&request, |message| {
        if message.kind == NEW_ADDRESS {
            addresses.extend(address(message.payload));
        }
    })?;
    Ok(addresses)
}

/// The index of the link that the best default route leaves by.
pub(crate) fn default_link(socket: &Socket) -> Result<Option<u32>, Kernel> {
    let mut header = [0; ROUTE_HEADER];
    header[0] = FAMILY;
    let mut request = Messages::default();
    request.push(GET_ROUTE, DUMP, &header, |_| ());
    let mut best: Option<(u32, u32)> = None;
    socket.dump(&request, |message| {
        if message.kind == NEW_ROUTE
            && let Some(candidate) = default_route(message.payload)
            && best.is_none_or(|best| candidate < best)
        {
            best = Some(candidate);
        }
    })?;
    Ok(best.map(|(_, link)| link))
}

fn link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(LINK_HEADER..)?;
    let name = find(attributes, &[LINK_NAME])?;
    Some(Link {
        index: u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?),
        name: String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(),
        mtu: host_u32(attributes, LINK_MTU)?,
        peer_namespace: host_u32(attributes, LINK_PEER_NAMESPACE),
    })
}

fn address(payload: &[u8]) -> Option<(u32, Ipv4Addr)> {
    let link = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let octets = find(payload.get(ADDRESS_HEADER..)?, &[ADDRESS_LOCAL])?.first_chunk::<4>()?;
    Some((link, Ipv4Addr::from(*octets)))
}

/// Priority and link, if this is a default route of the main table.
fn default_route(payload: &[u8]) -> Option<(u32, u32)> {
    let header = payload.first_chunk::<ROUTE_HEADER>()?;
    let (prefix, table) = (header[1], header[4]);
    if prefix != 0 || table != TABLE_MAIN {
        return None;
    }
    let attributes = payload.get(ROUTE_HEADER..)?;
    Some((host_u32(attributes, ROUTE_PRIORITY).unwrap_or(0), host_u32(attributes, ROUTE_DEVICE)?))
}

fn host_u32(attributes: &[u8], kind: u16) -> Option<u32> {
    find(attributes, &[kind])?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
