//! The address under which this machine is reached.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, bail};

/// The source address of the default route, else the first address of a link that is up.
///
/// # Errors
/// When the machine has no address but loopback; `--node-ip` then has to say which to use.
pub(crate) fn detect() -> anyhow::Result<IpAddr> {
    match default_route_source() {
        Some(ip) => Ok(ip),
        None => first_interface_address(),
    }
}

/// Connecting a UDP socket sends nothing; it only asks the kernel for a route.
fn default_route_source() -> Option<IpAddr> {
    // TEST-NET-1 (RFC 5737): never local, so the default route answers.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

fn first_interface_address() -> anyhow::Result<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().context("reading the interfaces' addresses")?;
    for interface in interfaces {
        let Some(address) = interface.address.and_then(|a| a.as_sockaddr_in().copied()) else { continue };
        let ip = address.ip();
        if !ip.is_loopback() && !ip.is_link_local() {
            return Ok(IpAddr::V4(ip));
        }
    }
    bail!("this machine has no address but loopback; give one with --node-ip")
}
