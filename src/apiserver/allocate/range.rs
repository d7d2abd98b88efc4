//! The ranges that addresses and ports are taken from.
//!
//! Each has a small lower band, which is left to people who name an address or port themselves;
//! automatic choices come from the upper band while it has room.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why a wanted address or port cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("provided IP is already allocated")]
    IpTaken,
    #[error("the provided network does not match the current range")]
    OtherNetwork,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    IpOutside(IpAddr, IpNet),
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
    #[error("range is full")]
    Full,
}

/// Chooses one of `size` numbers, so that choices do not follow each other.
pub(super) type Choose<'c> = &'c mut dyn FnMut(u128) -> u128;

/// The addresses of services of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpRange {
    network: IpNet,
    first: u128,
    last: u128,
}

impl IpRange {
    pub(super) fn new(network: IpNet) -> Self {
        let first = number(network.network()) + 1;
        // IPv4 keeps its broadcast address out.
        let last = match network {
            IpNet::V4(_) => number(network.broadcast()).saturating_sub(1),
            IpNet::V6(_) => number(network.broadcast()),
        };
        Self { network, first, last }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        matches!(self.network, IpNet::V4(_))
    }

    /// The first address, which is the `kubernetes` service's.
    pub(super) fn first(&self) -> IpAddr {
        self.address(self.first)
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            IpNet::V4(_) => {
                IpAddr::V4(Ipv4Addr::from(u32::try_from(number).expect("invariant: numbers come from this range")))
            }
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// # Errors
    /// Why the address cannot be had.
    pub(super) fn take(&self, ip: IpAddr, used: &HashSet<IpAddr>) -> Result<(), Unavailable> {
        if !self.network.contains(&ip) {
            return Err(Unavailable::OtherNetwork);
        }
        if !(self.first..=self.last).contains(&number(ip)) {
            return Err(Unavailable::IpOutside(ip, self.network.trunc()));
        }
        if used.contains(&ip) { Err(Unavailable::IpTaken) } else { Ok(()) }
    }

    /// # Errors
    /// When no address is free.
    pub(super) fn take_any(&self, used: &HashSet<IpAddr>, choose: Choose<'_>) -> Result<IpAddr, Unavailable> {
        let size = (self.last + 1).saturating_sub(self.first);
        let split = self.first + band(size, 16, 16, 256);
        let of = |n: u128| self.address(n);
        free_in(split, self.last, used, of, choose)
            .or_else(|| free_in(self.first, split.wrapping_sub(1), used, of, choose))
            .ok_or(Unavailable::Full)
    }
}

/// The ports that nodes open for services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortRange {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl PortRange {
    /// # Errors
    /// Why the port cannot be had.
    pub(super) fn take(&self, port: i32, used: &HashSet<u16>) -> Result<u16, Unavailable> {
        let inside = u16::try_from(port).ok().filter(|p| (self.first..=self.last).contains(p));
        let port = inside.ok_or(Unavailable::PortOutside(self.first, self.last))?;
        if used.contains(&port) { Err(Unavailable::PortTaken) } else { Ok(port) }
    }

    /// # Errors
    /// When no port is free.
    pub(super) fn take_any(&self, used: &HashSet<u16>, choose: Choose<'_>) -> Result<u16, Unavailable> {
        let (first, last) = (u128::from(self.first), u128::from(self.last));
        let split = first + band(last - first + 1, 16, 32, 128);
        let of = |n: u128| u16::try_from(n).expect("invariant: numbers come from this range");
        free_in(split, last, used, of, choose)
            .or_else(|| free_in(first, split - 1, used, of, choose))
            .ok_or(Unavailable::Full)
    }
}

/// Upstream's size of the lower band: none in a small range, else a share of it within bounds.
fn band(size: u128, min: u128, step: u128, max: u128) -> u128 {
    if size < min { 0 } else { (size / step).clamp(min, max) }
}

/// The first free number at or after a chosen one, going round.
fn free_in<T: Eq + Hash>(
    first: u128,
    last: u128,
    used: &HashSet<T>,
    of: impl Fn(u128) -> T,
    choose: Choose<'_>,
) -> Option<T> {
    if first > last {
        return None;
    }
    let size = last - first + 1;
    let start = choose(size) % size;
    // At most `used` numbers are taken, so that the search ends after as many steps and one.
    let steps = size.min(used.len() as u128 + 1);
    (0..steps).map(|i| of(first + (start + i) % size)).find(|n| !used.contains(n))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> IpRange {
        IpRange::new("10.96.0.0/16".parse().unwrap())
    }

    #[test]
    fn wanted_addresses_are_judged() {
        #[track_caller]
        fn check(ip: &str, expected: Result<(), &str>) {
            let used = HashSet::from(["10.96.0.1".parse().unwrap()]);
            let got = services().take(ip.parse().unwrap(), &used).map_err(|e| e.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{ip}");
        }
        check("10.96.0.2", Ok(()));
        check("10.96.255.254", Ok(()));
        check("10.96.0.1", Err("provided IP is already allocated"));
        check("10.97.0.1", Err("the provided network does not match the current range"));
        let outside = "is not in the valid range. The range of valid IPs is 10.96.0.0/16";
        check("10.96.0.0", Err(&format!("the provided IP (10.96.0.0) {outside}")));
        check("10.96.255.255", Err(&format!("the provided IP (10.96.255.255) {outside}")));
    }

    #[test]
    fn automatic_choices_leave_the_lower_band_for_last() {
        let ip = services().take_any(&HashSet::new(), &mut |_| 0).unwrap();
        assert_eq!(ip, "10.96.1.1".parse::<IpAddr>().unwrap(), "256 addresses are left out");
        let ports = PortRange { first: 30000, last: 32767 };
        assert_eq!(ports.take_any(&HashSet::new(), &mut |_| 0), Ok(30086));
        let upper: HashSet<u16> = (30086..=32767).collect();
        assert_eq!(ports.take_any(&upper, &mut |_| 3), Ok(30003));
    }

    #[test]
    fn every_address_is_handed_out_once_and_then_no_more() {
        for network in ["10.0.0.0/24", "10.0.0.0/29", "10.0.0.0/30", "fd00::/122"] {
            let range = IpRange::new(network.parse().unwrap());
            let mut used = HashSet::new();
            let mut seed = 7_u128;
            let mut choose = |size: u128| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed % size
            };
            while let Ok(ip) = range.take_any(&used, &mut choose) {
                assert_eq!(range.take(ip, &used), Ok(()), "{ip}");
                used.insert(ip);
            }
            assert_eq!(used.len() as u128, range.last - range.first + 1, "{network}");
        }
    }

    #[test]
    fn ports_are_judged() {
        let ports = PortRange { first: 30000, last: 32767 };
        let used = HashSet::from([30080]);
        let text = |port| ports.take(port, &used).map_err(|e| e.to_string());
        assert_eq!(text(30081), Ok(30081));
        assert_eq!(text(30080), Err("provided port is already allocated".into()));
        let outside = "provided port is not in the valid range. The range of valid ports is 30000-32767";
        assert_eq!(text(80), Err(outside.into()));
        assert_eq!(text(-1), Err(outside.into()));
        assert_eq!(text(99_999), Err(outside.into()));
    }
}
