//! How addresses and ranges are written: which forms are refused, and warnings about those that are accepted
//! though two spellings of one address do not compare equal. What was refused late stays in an object that has
//! it already.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::field::{ErrorKind, ErrorList, Path, quote};

/// The bits before an IPv4 address that is written as one of IPv6.
const MAPPED_PREFIX: u8 = 96;

pub(super) const LEADING_ZEROS: &str = "must not have leading 0s";
pub(super) const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";
pub(super) const LEADING_ZEROS_IN_RANGE: &str = "must not have leading 0s in IP or prefix length";
pub(super) const MAPPED_RANGE: &str = "must not have an IPv4-mapped IPv6 address";
pub(super) const HOST_BITS: &str = "must not have bits set beyond the prefix length";
/// What is refused in new values only.
const STRICT: [&str; 5] = [LEADING_ZEROS, MAPPED, LEADING_ZEROS_IN_RANGE, MAPPED_RANGE, HOST_BITS];

/// A value, and whether it was written with zeros in front of a number, which others read as octal.
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) zeros: bool,
}

impl Written<IpAddr> {
    pub(super) fn ip(text: &str) -> Option<Self> {
        if let Ok(value) = text.parse() {
            return Some(Self { value, zeros: false });
        }
        // Only the octets of IPv4, alone or at the end of IPv6, are decimal.
        let (head, octets) = text.rfind(':').map_or(("", text), |colon| text.split_at(colon + 1));
        let octets: Vec<&str> = octets.split('.').map(bare).collect::<Option<_>>()?;
        let value = format!("{head}{}", octets.join(".")).parse().ok()?;
        Some(Self { value, zeros: true })
    }
}

impl Written<IpNet> {
    pub(super) fn cidr(text: &str) -> Option<Self> {
        let (ip, length) = text.split_once('/')?;
        let ip = Written::ip(ip)?;
        let bits = bare(length)?;
        let value = IpNet::new(ip.value, bits.parse().ok()?).ok()?;
        Some(Self { value, zeros: ip.zeros || bits != length })
    }
}

/// A number without zeros in front of it.
fn bare(digits: &str) -> Option<&str> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bare = digits.trim_start_matches('0');
    Some(if bare.is_empty() { "0" } else { bare })
}

/// Takes back what is said of values that the object had before they were refused.
pub(crate) fn forgive_old(errs: &mut ErrorList, old: impl FnOnce() -> serde_json::Result<Value>) {
    let strict = |kind: ErrorKind, detail: &str| kind == ErrorKind::Invalid && STRICT.contains(&detail);
    if !errs.iter().any(|e| strict(e.kind, &e.detail)) {
        return;
    }
    let Ok(old) = old() else { return };
    errs.retain(|e| !strict(e.kind, &e.detail) || !e.bad_value.as_deref().is_some_and(|value| holds(&old, value)));
}

/// `shown`: a text as errors show it.
fn holds(value: &Value, shown: &str) -> bool {
    match value {
        Value::String(text) => quote(text.trim()) == shown,
        Value::Array(list) => list.iter().any(|value| holds(value, shown)),
        Value::Object(fields) => fields.values().any(|value| holds(value, shown)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Of a value that was validated as an address.
pub(crate) fn ip_warnings(path: &Path<'_>, value: &str) -> Vec<String> {
    let Some(Written { value: ip, zeros }) = Written::ip(value) else { return Vec::new() };
    if zeros || is_mapped(ip) {
        return vec![format!(
            "{path}: non-standard IP address {value:?} will be considered invalid in a future Kubernetes release: use \
             \"{}\"",
            ip.to_canonical()
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
    let Some(Written { value: range, zeros }) = Written::cidr(value) else { return Vec::new() };
    let network = shown(range.network(), range.prefix_len());
    let mut warnings = Vec::new();
    if range.network() != range.addr() {
        let single = format!("{}/{}", range.addr().to_canonical(), range.max_prefix_len());
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be {network:?} or {single:?}?)"
        ));
    }
    if zeros || is_mapped(range.addr()) {
        warnings.push(format!(
            "{path}: non-standard CIDR value {value:?} will be considered invalid in a future Kubernetes release: use \
             {network:?}"
        ));
    }
    if warnings.is_empty() && range.addr().is_ipv6() && range.to_string() != value {
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

pub(super) fn is_mapped(ip: IpAddr) -> bool {
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
        let zeros = "r: non-standard CIDR value \"10.0.0.0/08\" will be considered invalid in a future Kubernetes \
                     release: use \"10.0.0.0/8\"";
        check(&cidr_warnings(&path, "10.0.0.0/08"), &[zeros]);
        let form = "r: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")";
        check(&cidr_warnings(&path, "FD00::/64"), &[form]);
    }

    #[test]
    fn forms_that_mean_several_things_are_refused() {
        use crate::meta::format::{cidr, ip_address};
        let bad_ip = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        for (value, why) in [
            ("1.1.1.01", LEADING_ZEROS),
            ("010.000.000.005", LEADING_ZEROS),
            ("::ffff:1.1.1.01", LEADING_ZEROS),
            ("::ffff:1.1.1.1", MAPPED),
            ("1.2.3.400", bad_ip),
            ("-1.0.0.0", bad_ip),
            ("1.2.3.0/24", bad_ip),
            ("1234::abcd%eth0", bad_ip),
            ("", bad_ip),
        ] {
            assert_eq!(ip_address(value), [why], "{value}");
        }
        let bad_range = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        for (value, why) in [
            ("1.1.01.0/24", LEADING_ZEROS_IN_RANGE),
            ("192.168.0.0/016", LEADING_ZEROS_IN_RANGE),
            ("::ffff:1.1.1.0/24", MAPPED_RANGE),
            ("::ffff:1.1.1.0/120", MAPPED_RANGE),
            ("1.2.3.4/24", HOST_BITS),
            ("2001:db8::1/64", HOST_BITS),
            ("192.168.0.0/+16", bad_range),
            ("192.168.0.0/-16", bad_range),
            ("192.168.0.1/0/99", bad_range),
            ("1.2.3.4", bad_range),
        ] {
            assert_eq!(cidr(value), [why], "{value}");
        }
        for value in ["0.0.0.0/0", "1.1.1.1/32", "::/0", "2a00:79e0:2:0::/64"] {
            assert!(cidr(value).is_empty(), "{value}");
        }
    }
}
