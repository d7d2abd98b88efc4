//! Which capabilities a container has.

use crate::error::{Error, Result};
use crate::types::Security;

/// All that Linux knows, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd grants by default.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Held until the seccomp filter is loaded and mounts are set right; see `shim::executor`.
const SET_UP: [&str; 2] = ["SYS_ADMIN", "SETPCAP"];

/// The capabilities that the running process may pass on, as the mask in `/proc/self/status`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Available(u64);

impl Available {
    pub(crate) fn of_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_else(|_| String::new());
        let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        Self(u64::MAX)
    }

    fn has(self, name: &str) -> bool {
        ALL.iter().position(|known| *known == name).is_some_and(|number| self.0 >> number & 1 == 1)
    }
}

/// `CAP_…` names of what the container ends up with, in the kernel's order.
///
/// What the machine itself lacks is left out silently, as runc does.
pub(crate) fn granted(security: &Security, available: Available) -> Result<Vec<String>> {
    let add = names(&security.add_capabilities, "add")?;
    let drop = names(&security.drop_capabilities, "drop")?;
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let named = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    let has = |name: &str| {
        if security.privileged {
            return true;
        }
        let start = if all(&add) { !named(&drop, name) } else { DEFAULT.contains(&name) && !all(&drop) };
        (start || named(&add, name)) && !named(&drop, name)
    };
    let granted = ALL.iter().filter(|name| has(name) && available.has(name));
    Ok(granted.map(|name| format!("CAP_{name}")).collect())
}

/// `granted` and what setting the process up takes.
pub(crate) fn during_set_up(granted: &[String]) -> Vec<String> {
    let extra = SET_UP.iter().map(|name| format!("CAP_{name}")).filter(|name| !granted.contains(name));
    granted.iter().cloned().chain(extra).collect()
}

fn names(list: &[String], verb: &str) -> Result<Vec<String>> {
    let name = |given: &String| {
        let upper = given.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || ALL.contains(&name) {
            Ok(name.to_owned())
        } else {
            Err(Error::Invalid(format!("unknown capability \"CAP_{name}\" to {verb}")))
        }
    };
    list.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], has: &[&str], lacks: &[&str]) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { add_capabilities: list(add), drop_capabilities: list(drop), ..Security::default() };
        let granted = granted(&security, Available::everything()).unwrap();
        for name in has {
            assert!(granted.contains(&format!("CAP_{name}")), "{name} after +{add:?} -{drop:?}");
        }
        for name in lacks {
            assert!(!granted.contains(&format!("CAP_{name}")), "{name} after +{add:?} -{drop:?}");
        }
    }

    #[test]
    fn add_and_drop_work_on_the_default_set() {
        check(&[], &[], &["CHOWN", "NET_RAW"], &["SYS_ADMIN", "NET_ADMIN"]);
        check(&["NET_ADMIN"], &["NET_RAW"], &["NET_ADMIN", "CHOWN"], &["NET_RAW"]);
        check(&["cap_sys_time"], &["ALL"], &["SYS_TIME"], &["CHOWN"]);
        check(&["ALL"], &["SYS_ADMIN"], &["SYS_MODULE", "BPF"], &["SYS_ADMIN"]);
        check(&["ALL"], &["ALL"], &["SYS_MODULE"], &[]);
    }

    #[test]
    fn unknown_names_are_refused_and_unavailable_ones_left_out() {
        let security = Security { add_capabilities: vec!["FLY".to_owned()], ..Security::default() };
        let error = granted(&security, Available::everything()).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability \"CAP_FLY\" to add");
        let privileged = Security { privileged: true, ..Security::default() };
        assert_eq!(granted(&privileged, Available(0b11)).unwrap(), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
