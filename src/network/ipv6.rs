//! IPv6 on the links of pods: off, since pods have no IPv6 addresses.
//!
//! A link that is left alone speaks IPv6 by itself: it takes a link-local address, by which a pod
//! reaches what listens on the host past every IPv4 rule, and it believes router advertisements, by
//! which a pod becomes the host's default route.

use crate::setting::{SettingError, set_if_present};

/// The last one counts, and takes away what the link has learned; the others are for the moment in
/// which somebody writes 0 to `all/disable_ipv6`, which reaches every link.
const OFF: [(&str, &str); 4] =
    [("accept_ra", "0"), ("accept_redirects", "0"), ("addr_gen_mode", "1"), ("disable_ipv6", "1")];

/// Turns IPv6 off on a link of the calling thread's network namespace. A link that is not there, or a
/// kernel without IPv6, is fine.
pub(crate) fn turn_off(link: &str) -> Result<(), SettingError> {
    OFF.iter().try_for_each(|(name, value)| set_if_present(&format!("ipv6/conf/{link}/{name}"), value))
}
