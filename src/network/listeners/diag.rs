//! TCP sockets that listen, by the kernel's `sock_diag`: it looks at no connection for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink::{Kernel, Messages, Protocol, Socket};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x300;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
/// The set of states that has `TCP_LISTEN` alone.
const LISTENING: u32 = 1 << 10;
/// `struct inet_diag_sockid`: any.
const ID: usize = 48;

/// Where programs listen in the network namespace of the thread.
pub(super) fn tcp_listeners() -> Result<Vec<SocketAddr>, Kernel> {
    let socket = Socket::open(Protocol::SockDiag)?;
    let mut found = Vec::new();
    for family in [IPV4, IPV6] {
        let mut request = Messages::default();
        // `struct inet_diag_req_v2`.
        let mut fixed = vec![family, TCP, 0, 0];
        fixed.extend(LISTENING.to_ne_bytes());
        fixed.resize(fixed.len() + ID, 0);
        request.push(BY_FAMILY, DUMP, &fixed, |_| ());
        socket.dump(&request, |message| found.extend(address(message.payload)))?;
    }
    Ok(found)
}

/// The socket's own address in a `struct inet_diag_msg`.
fn address(payload: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*payload.get(4..)?.first_chunk()?);
    let address = payload.get(8..)?;
    let ip: IpAddr = match *payload.first()? {
        IPV4 => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        IPV6 => Ipv6Addr::from(*address.first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
