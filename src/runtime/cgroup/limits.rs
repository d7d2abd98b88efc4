//! Which files of a cgroup hold a limit, and how each version writes it.

use crate::types::Resources;

use super::Version;

/// A file of one cgroup; the controller picks the hierarchy on v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub controller: &'static str,
    pub name: String,
}

/// The kernel's default, used where a quota comes without a period.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The files to write for `resources`, in an order that the kernel accepts (period before quota).
pub(super) fn settings(version: Version, resources: &Resources) -> Vec<(File, String)> {
    let mut settings = Vec::new();
    let mut set = |controller, name: &str, value: String| {
        settings.push((File { controller, name: name.to_owned() }, value));
    };
    match version {
        Version::V1 => {
            if let Some(shares) = resources.cpu_shares {
                set("cpu", "cpu.shares", shares.max(2).to_string());
            }
            if let Some(period) = resources.cpu_period_us.filter(|period| *period > 0) {
                set("cpu", "cpu.cfs_period_us", period.to_string());
            }
            if let Some(quota) = resources.cpu_quota_us.filter(|quota| *quota != 0) {
                set("cpu", "cpu.cfs_quota_us", quota.max(-1).to_string());
            }
            if let Some(limit) = resources.memory_limit_bytes.filter(|limit| *limit != 0) {
                set("memory", "memory.limit_in_bytes", limit.max(-1).to_string());
            }
        }
        Version::V2 => {
            if let Some(shares) = resources.cpu_shares {
                set("cpu", "cpu.weight", cpu_weight(shares).to_string());
            }
            if let Some(quota) = resources.cpu_quota_us.filter(|quota| *quota != 0) {
                let period = resources.cpu_period_us.filter(|p| *p > 0).unwrap_or(DEFAULT_PERIOD_US);
                set("cpu", "cpu.max", format!("{} {period}", number_or_max(quota)));
            }
            if let Some(limit) = resources.memory_limit_bytes.filter(|limit| *limit != 0) {
                set("memory", "memory.max", number_or_max(limit));
            }
        }
    }
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
        set("pids", "pids.max", number_or_max(limit));
    }
    for (size, limit) in &resources.hugepage_limits {
        let file = if version == Version::V1 { "limit_in_bytes" } else { "max" };
        set("hugetlb", &format!("hugetlb.{size}.{file}"), limit.to_string());
    }
    settings
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// v1's shares (2 to 262144) on v2's scale (1 to 10000), by the curve that runc and libcontainer
/// use: it maps the default of the one (1024) to the default of the other (100).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
        }
    }
}
