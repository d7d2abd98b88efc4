//! What this machine is: read once at start from /proc and /sys.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::admission::Modules;
use crate::config::Config;
use crate::resources::Allocatable;

/// Facts that do not change while the kubelet runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) swap_bytes: i64,
    pub(crate) disk_bytes: i64,
    pub(crate) hugepages: BTreeMap<String, i64>,
    pub(crate) architecture: &'static str,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) max_pids: i64,
    pub(crate) modules: Modules,
}

impl Machine {
    pub(crate) fn read(disk_bytes: i64) -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let machine_id = first_line("/etc/machine-id");
        let system_uuid = ["/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number"]
            .into_iter()
            .map(first_line)
            .find(|id| !id.is_empty())
            .unwrap_or_else(|| machine_id.clone());
        Self {
            cpus: count_cpus(&first_line("/sys/devices/system/cpu/online")),
            memory_bytes: meminfo(&memory, "MemTotal"),
            swap_bytes: meminfo(&memory, "SwapTotal"),
            disk_bytes,
            hugepages: hugepages(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            kernel: first_line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            machine_id,
            system_uuid,
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            max_pids: max_pids(&first_line("/proc/sys/kernel/pid_max"), &first_line("/proc/sys/kernel/threads-max")),
            modules: Modules::read(),
        }
    }

    /// Processes that all pods together may have: a fork bomb must leave the node some of its own.
    pub(crate) fn pids_for_pods(&self) -> i64 {
        self.max_pids - self.max_pids / 10
    }

    /// What is left for pods after reservations and what eviction keeps free.
    pub(crate) fn allocatable(&self, cfg: &Config) -> Allocatable {
        let hugepages: i64 = self.hugepages.values().sum();
        let kept = cfg.reserved_memory + cfg.thresholds.memory_available;
        Allocatable {
            cpu_milli: (self.cpus * 1000 - cfg.reserved_cpu_milli).max(0),
            memory: (self.memory_bytes - hugepages - kept).max(0),
            ephemeral_storage: share(self.disk_bytes, 1.0 - cfg.thresholds.disk_available),
            hugepages: self.hugepages.clone(),
            pods: cfg.max_pods,
        }
    }
}

/// The lower of the kernel's two limits; on a board with little memory that is the one of threads.
fn max_pids(pid_max: &str, threads_max: &str) -> i64 {
    [pid_max, threads_max].into_iter().filter_map(|limit| limit.parse().ok()).min().unwrap_or(32768)
}

#[expect(clippy::cast_possible_truncation, reason = "a share of an i64 that is at most the whole")]
#[expect(clippy::cast_precision_loss, reason = "bytes of a disk need no more precision")]
fn share(bytes: i64, part: f64) -> i64 {
    (bytes as f64 * part) as i64
}

fn first_line(path: impl AsRef<Path>) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_matches(['\0', ' ', '\n']).to_owned()
}

/// A line of /proc/meminfo in bytes.
pub(crate) fn meminfo(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok()).map_or(0, |kib| kib * 1024)
}

/// `0-3,6` is five.
fn count_cpus(online: &str) -> i64 {
    let count = online.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1)
    });
    count.sum::<i64>().max(1)
}

fn os_image(release: &str) -> String {
    let value = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value.map_or_else(|| "Linux".to_owned(), |v| v.trim_matches('"').to_owned())
}

fn hugepages() -> BTreeMap<String, i64> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages: i64 = first_line(entry.path().join("nr_hugepages")).parse().ok()?;
            Some((resource_name(kib), kib * 1024 * pages))
        })
        .collect()
}

fn resource_name(kib: i64) -> String {
    match kib {
        k if k % (1 << 20) == 0 => format!("hugepages-{}Gi", k >> 20),
        k if k % (1 << 10) == 0 => format!("hugepages-{}Mi", k >> 10),
        k => format!("hugepages-{k}Ki"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let text = "MemTotal:       16323456 kB\nMemFree:  1 kB\nSwapTotal: 0 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), 16_323_456 * 1024);
        assert_eq!(meminfo(text, "Mem"), 0);
        for (online, expected) in [("0-3", 4), ("0", 1), ("0-1,4-5", 4), ("", 1)] {
            assert_eq!(count_cpus(online), expected, "{online}");
        }
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        for (pid_max, threads_max, expected) in [("4194304", "3541", 3541), ("32768", "", 32768), ("", "", 32768)] {
            assert_eq!(max_pids(pid_max, threads_max), expected, "{pid_max} {threads_max}");
        }
        assert_eq!(resource_name(2048), "hugepages-2Mi");
        assert_eq!(resource_name(1 << 20), "hugepages-1Gi");
        assert_eq!(resource_name(64), "hugepages-64Ki");
    }
}
