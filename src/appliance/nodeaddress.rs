//! The address under which this machine is reached.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use tracing::{info, warn};

/// How often a machine that has no address yet is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two log lines about it.
const SAY_EVERY: u64 = 60;

/// The source address of the default route, else the first address of a link that is up. A machine
/// that has none but loopback gets one from DHCP sooner or later: it is waited for.
///
/// # Errors
/// When the kernel does not tell the interfaces' addresses.
pub(crate) fn wait() -> anyhow::Result<IpAddr> {
    wait_for(detect, || {
        #[expect(clippy::disallowed_methods, reason = "nothing else runs yet")]
        std::thread::sleep(LOOK_EVERY);
    })
}

fn wait_for(detect: impl Fn() -> anyhow::Result<Option<IpAddr>>, pause: impl Fn()) -> anyhow::Result<IpAddr> {
    let mut looks = 0;
    loop {
        if let Some(ip) = detect()? {
            if looks > 0 {
                info!(%ip, "this machine has an address now");
            }
            return Ok(ip);
        }
        if looks % SAY_EVERY == 0 {
            warn!("this machine has no address but loopback; waiting for one (or give one with --node-ip)");
        }
        looks += 1;
        pause();
    }
}

fn detect() -> anyhow::Result<Option<IpAddr>> {
    match default_route_source() {
        Some(ip) => Ok(Some(ip)),
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

fn first_interface_address() -> anyhow::Result<Option<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().context("reading the interfaces' addresses")?;
    for interface in interfaces {
        let Some(address) = interface.address.and_then(|a| a.as_sockaddr_in().copied()) else { continue };
        let ip = address.ip();
        if !ip.is_loopback() && !ip.is_link_local() {
            return Ok(Some(IpAddr::V4(ip)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn late_dhcp_is_waited_for() {
        let looks = Cell::new(0);
        let detect = || Ok((looks.get() >= 3).then(|| IpAddr::from([192, 168, 1, 2])));
        let ip = wait_for(detect, || looks.set(looks.get() + 1)).unwrap();
        assert_eq!((ip, looks.get()), ([192, 168, 1, 2].into(), 3));
    }
}
