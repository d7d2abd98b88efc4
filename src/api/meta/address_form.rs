//! Warnings about addresses and ranges that are accepted but not written as they should be: upstream
//! will refuse some of them one day, and two spellings of one address do not compare equal.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::field::Path;

/// The bits before an IPv4 address that is written as one of IPv6.
const MAPPED_PREFIX: u8 = 96;

/// Of a value that was validated as an address.
pub(crate) fn ip_warnings(path: &Path<'_>, value: &str) -> Vec<String> {
    let Ok(IpAddr::V6(ip)) = value.parse() else { return Vec::new() };
    if let Some(v4) = ip.to_ipv4_mapped() {
        return vec![format!(
            "{path}: non-standard IP address {value:?} will be considered invalid in a future Kubernetes release: use \
             \"{v4}\""
        )];
    }
    let canonical = ip.to_string();
    if canonical == value {
        return Vec::new();
    }
    vec![format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format ({canonical:?})")]
}

/// Of a value that was validated as a range.
pub(crate) fn cidr_warnings(path: &Path<'_>, value: &str) -> Vec<String> {
    let Ok(range) = value.parse::<IpNet>() else { return Vec::new() };
    let mapped = is_mapped(range.addr());
    let network = shown(range.network(), range.prefix_len());
    let mut warnings = Vec::new();
    if range.network() != range.addr() {
        let single = format!("{}/{}", range.addr().to_canonical(), range.max_prefix_len());
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be {network:?} or {single:?}?)"
        ));
    }
    if mapped {
        warnings.push(format!(
            "{path}: non-standard CIDR value {value:?} will be considered invalid in a future Kubernetes release: use \
             {network:?}"
        ));
    }
    if warnings.is_empty() && range.to_string() != value {
        warnings
            .push(format!("{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format (\"{range}\")"));
    }
    warnings
}

/// A range as Go prints it: one of mapped addresses as one of IPv4.
fn shown(network: IpAddr, prefix: u8) -> String {
    let skipped = if is_mapped(network) { MAPPED_PREFIX } else { 0 };
    format!("{}/{}", network.to_canonical(), prefix.saturating_sub(skipped))
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(warnings: &[String], expected: &[&str]) {
        assert_eq!(warnings, expected);
    }

    #[test]
    fn addresses_in_an_unusual_form_are_warned_of() {
        let path = Path::new("ip");
        for usual in ["10.0.0.1", "fd00::1", "None", "::1"] {
            check(&ip_warnings(&path, usual), &[]);
        }
        let words = "ip: non-standard IP address \"::ffff:10.0.0.1\" will be considered invalid in a future \
                     Kubernetes release: use \"10.0.0.1\"";
        check(&ip_warnings(&path, "::ffff:10.0.0.1"), &[words]);
        let words = "ip: IPv6 address \"FD00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
        check(&ip_warnings(&path, "FD00:0::1"), &[words]);
    }

    #[test]
    fn ranges_in_an_unusual_form_are_warned_of() {
        let path = Path::new("r");
        for usual in ["10.0.0.0/8", "fd00::/64", "10.0.0.1/32"] {
            check(&cidr_warnings(&path, usual), &[]);
        }
        let ambiguous = "r: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \
                         \"10.0.0.1/32\"?)";
        check(&cidr_warnings(&path, "10.0.0.1/8"), &[ambiguous]);
        let mapped = "r: non-standard CIDR value \"::ffff:10.0.0.0/104\" will be considered invalid in a future \
                      Kubernetes release: use \"10.0.0.0/8\"";
        check(&cidr_warnings(&path, "::ffff:10.0.0.0/104"), &[mapped]);
        let form = "r: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")";
        check(&cidr_warnings(&path, "FD00::/64"), &[form]);
    }
}
