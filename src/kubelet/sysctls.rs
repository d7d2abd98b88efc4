//! Which sysctls a pod may set: those whose effect stays within the pod. Others may change the node
//! or take from its other pods, and no option allows them.

use api::k8s_openapi::api::core::v1::Pod;

use crate::pod::PodExt as _;

/// Upstream's safe ones, as of kernels that this node runs on.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Dots and slashes may change places in the API; the first one tells which is which.
pub(crate) fn normalize(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// # Errors
/// Names what the pod may not set.
pub(crate) fn check(pod: &Pod) -> Result<(), String> {
    let spec = pod.spec();
    let list = spec.security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    for sysctl in list.into_iter().flatten() {
        let name = normalize(&sysctl.name);
        let shared = match name.split('.').next() {
            Some("net") if pod.host_network() => Some("host net enabled"),
            Some("kernel") if spec.host_ipc == Some(true) => Some("host ipc enabled"),
            _ => None,
        };
        if let Some(why) = shared {
            return Err(format!("forbidden sysctl: {:?} not allowed with {why}", sysctl.name));
        }
        if !SAFE.contains(&&*name) {
            return Err(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    #[track_caller]
    fn check_one(name: &str, host_network: bool, expected: Result<(), &str>) {
        let pod = pod(json!({"containers": [], "hostNetwork": host_network,
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}));
        assert_eq!(check(&pod), expected.map_err(str::to_owned), "{name}");
    }

    #[test]
    fn only_what_stays_within_the_pod_is_allowed() {
        check_one("kernel.shm_rmid_forced", true, Ok(()));
        check_one("net/ipv4/ping_group_range", false, Ok(()));
        check_one("kernel.msgmax", false, Err("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
        check_one(
            "net.ipv4.tcp_syncookies",
            true,
            Err("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"),
        );
    }

    #[test]
    fn either_separator_may_be_used() {
        assert_eq!(normalize("net/ipv4/conf/eno2.100/rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
        assert_eq!(normalize("net.ipv4.conf.eno2/100.rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
    }
}
