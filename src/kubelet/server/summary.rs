//! `/stats/summary`: use of CPU, memory, network and disk by node, pod, container and volume, with
//! upstream's names. Pressure stall figures are not collected.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use runtime::{Lane, Stats, TreeUsage};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::machine_use::{MachineUse, default_interface, network};
use super::rates::Rates;
use super::stats::{PodUse, pod_use};
use crate::kubelet::Kubelet;
use crate::node::disk_use::DiskUse;
use crate::pod::PodExt;
use crate::{resources, volumes};

/// For the figures of one file system.
const DEADLINE: Duration = Duration::from_secs(5);
/// Counts of files are as old as upstream's.
const COUNT_AGE: Duration = Duration::from_secs(60);
/// A scrape waits so long for counts of files, of all pods together. Then it has what was counted so far.
const COUNT_PATIENCE: Duration = Duration::from_secs(5);
/// Pods call their interface so.
const POD_INTERFACE: &str = "eth0";

pub(super) async fn summary(kubelet: &Kubelet) -> Value {
    let uses = pod_use(kubelet).await;
    // The node's own disk; where it does not answer, it has nothing to show.
    let root = kubelet.cfg.root_dir.clone();
    let disk = FileSystem::ask(kubelet, Lane::Node, "", root).await.unwrap_or_default();
    let until = Instant::now() + COUNT_PATIENCE;
    let mut seen = HashSet::from(["node".to_owned(), "pods".to_owned()]);
    let mut pods = Vec::new();
    for used in &uses {
        seen.insert(used.pod.uid().to_owned());
        seen.extend(used.containers.iter().map(|(name, ..)| container_key(used, name)));
        let patience = until.saturating_duration_since(Instant::now());
        let counted = DiskUse::measure(kubelet, &used.pod, COUNT_AGE, patience).await;
        pods.push(pod(kubelet, used, &counted, &disk).await);
    }
    let node = node(kubelet, &disk).await;
    kubelet.cpu_rates.lock().retain(&seen);
    json!({ "node": node, "pods": pods })
}

/// Upstream's times have no fractions.
fn time(at: Timestamp) -> Value {
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn time_ns(ns: i64) -> Value {
    Timestamp::from_nanosecond(i128::from(ns)).map_or(Value::Null, time)
}

fn container_key(used: &PodUse, name: &str) -> String {
    format!("{}/{name}", used.pod.uid())
}

fn cpu(rates: &mut Rates, key: &str, at_ns: i64, used_ns: u64) -> Value {
    let mut out = json!({ "time": time_ns(at_ns), "usageCoreNanoSeconds": used_ns });
    if let Some(rate) = rates.next(key, at_ns, used_ns) {
        out["usageNanoCores"] = json!(rate);
    }
    out
}

fn memory(stats: &Stats, limit: Option<i64>) -> Value {
    let mut out = json!({
        "time": time_ns(stats.timestamp_ns),
        "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults,
        "majorPageFaults": stats.major_page_faults,
    });
    if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) {
        out["availableBytes"] = json!(limit.saturating_sub(stats.memory_working_set_bytes));
    }
    out
}

fn swap(stats: &Stats) -> Option<Value> {
    let used = stats.swap_usage_bytes?;
    Some(json!({ "time": time_ns(stats.timestamp_ns), "swapUsageBytes": used }))
}

/// The file system that something lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FileSystem {
    capacity: u64,
    available: u64,
    inodes: u64,
    inodes_free: u64,
}

impl FileSystem {
    /// That of a path of the node, asked in the name of the mount point behind it: however many claims lie
    /// on a disk that hangs, they take the threads of one.
    async fn behind(kubelet: &Kubelet, path: PathBuf) -> Option<Self> {
        let owner = move || (volumes::file_system_owner(&path).unwrap_or_else(|| "/".to_owned()), path);
        let (owner, path) = kubelet.disk().run(Lane::Node, "", volumes::OWNER_DEADLINE, owner).await.ok()?;
        Self::ask(kubelet, Lane::Foreign, &owner, path).await
    }

    /// One that does not answer has no figures.
    async fn ask(kubelet: &Kubelet, lane: Lane, owner: &str, path: PathBuf) -> Option<Self> {
        let stat = kubelet.disk().run(lane, owner, DEADLINE, move || statvfs(&path).ok()).await.ok()??;
        Some(Self {
            capacity: stat.blocks().saturating_mul(stat.fragment_size()),
            available: stat.blocks_available().saturating_mul(stat.fragment_size()),
            inodes: stat.files(),
            inodes_free: stat.files_available(),
        })
    }

    fn used(self) -> TreeUsage {
        TreeUsage {
            bytes: self.capacity.saturating_sub(self.available),
            inodes: self.inodes.saturating_sub(self.inodes_free),
        }
    }

    /// With the part that something uses of it.
    fn stats(self, now: &Value, used: TreeUsage) -> Map<String, Value> {
        let fields = [
            ("time", now.clone()),
            ("availableBytes", json!(self.available)),
            ("capacityBytes", json!(self.capacity)),
            ("usedBytes", json!(used.bytes)),
            ("inodesFree", json!(self.inodes_free)),
            ("inodes", json!(self.inodes)),
            ("inodesUsed", json!(used.inodes)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

async fn pod(kubelet: &Kubelet, used: &PodUse, use_of_disk: &DiskUse, disk: &FileSystem) -> Value {
    let now = time(Timestamp::now());
    let volumes = volume_stats(kubelet, &used.pod, use_of_disk, disk, &now).await;
    let mut rates = kubelet.cpu_rates.lock();
    let containers: Vec<Value> = used
        .containers
        .iter()
        .map(|(name, started, stats)| {
            let on_disk = use_of_disk.containers.get(name).copied().unwrap_or_default();
            let limit =
                used.pod.container(name).and_then(|(_, c)| resources::container_resources(&c).memory_limit_bytes);
            let mut out = json!({
                "name": name,
                "startTime": started.map(time_ns),
                "cpu": cpu(&mut rates, &container_key(used, name), stats.timestamp_ns, stats.cpu_usage_ns),
                "memory": memory(stats, limit),
                "rootfs": disk.stats(&now, on_disk.layer),
                "logs": disk.stats(&now, on_disk.logs),
            });
            if let Some(swap) = swap(stats) {
                out["swap"] = swap;
            }
            out
        })
        .collect();
    let limit = resources::pod_resources(&used.pod, None).memory_limit_bytes;
    let total = &used.total;
    let mut out = json!({
        "podRef": { "name": used.pod.name(), "namespace": used.pod.namespace(), "uid": used.pod.uid() },
        "startTime": used.status.start_time.as_ref().map(|t| time(t.0)),
        "containers": containers,
        "cpu": cpu(&mut rates, used.pod.uid(), total.timestamp_ns, total.cpu_usage_ns),
        "memory": memory(total, limit),
        "volume": volumes,
        "ephemeral-storage": disk.stats(&now, use_of_disk.total()),
        "process_stats": { "process_count": total.pids },
    });
    drop(rates);
    if let Some(swap) = swap(total) {
        out["swap"] = swap;
    }
    // A pod on the node's network has none of its own, and one whose shim has gone has none either.
    let sandbox = kubelet.runtime.sandbox_status(used.pod.uid()).ok();
    let shim = sandbox.map(|s| s.shim_pid).filter(|&pid| pid > 0 && !used.pod.host_network());
    if let Some(dev) = shim.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()) {
        out["network"] = network(&dev, POD_INTERFACE, &now);
    }
    out
}

/// Volumes on disk, and claims whose directory is on this node.
async fn volume_stats(kubelet: &Kubelet, pod: &Pod, used: &DiskUse, disk: &FileSystem, now: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let mut stats = if let Some(part) = used.empty_dirs.get(&volume.name) {
            disk.stats(now, *part)
        } else if let Some((claim, path)) = claim(kubelet, pod, volume) {
            let Some(whole) = FileSystem::behind(kubelet, path).await else { continue };
            let mut stats = whole.stats(now, whole.used());
            stats.insert("pvcRef".to_owned(), json!({ "name": claim, "namespace": pod.namespace() }));
            stats
        } else {
            continue;
        };
        stats.insert("name".to_owned(), json!(volume.name));
        out.push(Value::Object(stats));
    }
    out
}

/// The name of a volume's claim, and the local directory behind it.
fn claim(kubelet: &Kubelet, pod: &Pod, volume: &Volume) -> Option<(String, PathBuf)> {
    let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => source.claim_name.clone(),
        (None, Some(_)) => format!("{}-{}", pod.name(), volume.name),
        (None, None) => return None,
    };
    let claim: PersistentVolumeClaim = kubelet.cluster.get(pod.namespace(), &name).ok()??;
    let bound: PersistentVolume = kubelet.cluster.get("", claim.spec?.volume_name.as_deref()?).ok()??;
    Some((name, bound.spec?.local?.path.into()))
}

/// A claim that some pod here has as a volume.
pub(super) struct ClaimUse {
    pub(super) namespace: String,
    pub(super) name: String,
    /// With upstream's names of the figures.
    pub(super) figures: [(&'static str, u64); 6],
}

/// Each claim once, however many pods share it.
pub(super) async fn claims(kubelet: &Kubelet) -> Vec<ClaimUse> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active()) {
        let found = entry.pod.spec().volumes.iter().flatten().filter_map(|v| claim(kubelet, &entry.pod, v));
        for (name, path) in found.collect::<Vec<_>>() {
            let namespace = entry.pod.namespace().to_owned();
            if seen.insert((namespace.clone(), name.clone())) {
                let Some(whole) = FileSystem::behind(kubelet, path).await else { continue };
                let figures = [
                    ("available_bytes", whole.available),
                    ("capacity_bytes", whole.capacity),
                    ("inodes", whole.inodes),
                    ("inodes_free", whole.inodes_free),
                    ("inodes_used", whole.used().inodes),
                    ("used_bytes", whole.used().bytes),
                ];
                out.push(ClaimUse { namespace, name, figures });
            }
        }
    }
    out
}

async fn node(kubelet: &Kubelet, disk: &FileSystem) -> Value {
    let (at, machine, used) = (Timestamp::now(), &kubelet.machine, MachineUse::read());
    let (now, at_ns) = (time(at), i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX));
    let pods = kubelet.runtime.cgroup_stats("kubepods").await;
    let images = kubelet.runtime.image_fs_usage().await.unwrap_or_default();
    let image_fs = FileSystem {
        capacity: images.capacity_bytes,
        available: images.available_bytes,
        inodes: images.inodes,
        inodes_free: images.inodes_free,
    };
    let image_use = TreeUsage { bytes: images.used_bytes, inodes: image_fs.used().inodes };
    let mut rates = kubelet.cpu_rates.lock();
    let system: Vec<Value> = pods
        .iter()
        .map(|stats| {
            json!({
                "name": "pods",
                "startTime": time_ns(used.booted_at.saturating_mul(1_000_000_000)),
                "cpu": cpu(&mut rates, "pods", stats.timestamp_ns, stats.cpu_usage_ns),
                "memory": memory(stats, None),
            })
        })
        .collect();
    let mut out = json!({
        "nodeName": kubelet.cfg.node_name,
        "systemContainers": system,
        "startTime": time_ns(used.booted_at.saturating_mul(1_000_000_000)),
        "cpu": cpu(&mut rates, "node", at_ns, used.cpu_ns),
        "memory": {
            "time": now,
            "availableBytes": used.memory_available,
            "usageBytes": machine.memory_bytes - used.memory_free,
            "workingSetBytes": machine.memory_bytes - used.memory_available,
            "rssBytes": used.memory_anonymous,
            "pageFaults": used.page_faults,
            "majorPageFaults": used.major_page_faults,
        },
        "fs": disk.stats(&now, disk.used()),
        "runtime": {
            "imageFs": image_fs.stats(&now, image_use),
            "containerFs": image_fs.stats(&now, image_fs.used()),
        },
        "rlimit": { "time": now, "maxpid": machine.max_pids, "curproc": used.processes },
        "swap": {
            "time": now,
            "swapAvailableBytes": used.swap_free,
            "swapUsageBytes": machine.swap_bytes.saturating_sub(used.swap_free),
        },
    });
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    if let (Some(name), Ok(dev)) = (default_interface(&routes), fs::read_to_string("/proc/net/dev")) {
        out["network"] = network(&dev, name, &now);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_with_what_is_left_of_a_limit() {
        let stats = Stats {
            timestamp_ns: 1_500_000_000,
            memory_usage_bytes: 70,
            memory_working_set_bytes: 60,
            memory_rss_bytes: 50,
            page_faults: 4,
            major_page_faults: 3,
            swap_usage_bytes: Some(9),
            ..Stats::default()
        };
        let mut expected = json!({"time": "1970-01-01T00:00:01Z", "usageBytes": 70, "workingSetBytes": 60,
            "rssBytes": 50, "pageFaults": 4, "majorPageFaults": 3});
        assert_eq!(memory(&stats, None), expected);
        expected["availableBytes"] = json!(40);
        assert_eq!(memory(&stats, Some(100)), expected);
        assert_eq!(swap(&stats), Some(json!({"time": "1970-01-01T00:00:01Z", "swapUsageBytes": 9})));
    }

    #[test]
    fn a_part_of_a_file_system_is_told_with_the_whole() {
        let disk = FileSystem { capacity: 100, available: 60, inodes: 10, inodes_free: 7 };
        assert_eq!(
            Value::Object(disk.stats(&json!("now"), TreeUsage { bytes: 5, inodes: 2 })),
            json!({"time": "now", "availableBytes": 60, "capacityBytes": 100, "usedBytes": 5, "inodesFree": 7,
                "inodes": 10, "inodesUsed": 2})
        );
        assert_eq!(disk.used(), TreeUsage { bytes: 40, inodes: 3 });
    }
}
