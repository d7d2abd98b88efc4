//! Looks at memory, disk and process numbers, and evicts a pod when one of them runs out.

use std::path::Path;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::Pod;
use client::EventType;
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;
use tracing::warn;

use super::eviction::{self, Candidate, Shortage};
use super::{Pressure, meminfo};
use crate::config::Thresholds;
use crate::events;
use crate::kubelet::Kubelet;
use crate::pod::PodExt;
use crate::status::Verdict;

/// An evicted pod needs a moment to give back what it held.
const SETTLE: Duration = Duration::from_secs(20);

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    memory_available: i64,
    disk_available: i64,
    /// Shares of the whole.
    disk_free: f64,
    inodes_free: f64,
    pids_free: f64,
}

#[derive(Default)]
pub(super) struct Watch {
    memory_since: Option<Instant>,
    disk_since: Option<Instant>,
    evicted_at: Option<Instant>,
}

impl Watch {
    /// The conditions to post. A condition stays for a while after its cause has gone.
    pub(super) async fn check(&mut self, kubelet: &Kubelet) -> Pressure {
        let reading = read(kubelet);
        let thresholds = &kubelet.cfg.thresholds;
        let now = Instant::now();
        let shortage = shortage(&reading, thresholds);
        match shortage {
            Some(Shortage::Memory { .. }) => self.memory_since = Some(now),
            Some(Shortage::Disk { .. }) => self.disk_since = Some(now),
            None => {}
        }
        if let Some(shortage) = shortage
            && self.evicted_at.is_none_or(|at| at.elapsed() >= SETTLE)
        {
            self.relieve(kubelet, shortage).await;
        }
        let lasts = |since: Option<Instant>| since.is_some_and(|s| s.elapsed() < thresholds.pressure_transition);
        Pressure { memory: lasts(self.memory_since), disk: lasts(self.disk_since), pids: reading.pids_free < 0.05 }
    }

    async fn relieve(&mut self, kubelet: &Kubelet, shortage: Shortage) {
        let mut candidates = Vec::new();
        for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active() && !e.pod.is_deleting()) {
            let used = usage(kubelet, &entry.pod, shortage).await;
            candidates.push(Candidate { entry, used });
        }
        let Some(victim) = eviction::choose(candidates, shortage) else { return };
        let message = eviction::message(&victim, shortage);
        let pod = &victim.entry.pod;
        warn!(pod = %pod.full_name(), "evicting: {message}");
        kubelet.recorder.event(&events::pod(pod), EventType::Warning, "Evicted", &message);
        let verdict = Verdict { reason: "Evicted".to_owned(), message, disruption: true };
        victim.entry.mailbox.condemn(verdict, 0);
        self.evicted_at = Some(Instant::now());
    }
}

fn shortage(reading: &Reading, thresholds: &Thresholds) -> Option<Shortage> {
    if reading.memory_available < thresholds.memory_available {
        return Some(Shortage::Memory { threshold: thresholds.memory_available, available: reading.memory_available });
    }
    if reading.disk_free < thresholds.disk_available || reading.inodes_free < thresholds.inodes_available {
        return Some(Shortage::Disk { available: reading.disk_available });
    }
    None
}

fn read(kubelet: &Kubelet) -> Reading {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (disk_available, disk_free, inodes_free) = disk(&kubelet.cfg.root_dir);
    Reading {
        memory_available: meminfo(&memory, "MemAvailable"),
        disk_available,
        disk_free,
        inodes_free,
        pids_free: pids_free(kubelet.machine.max_pids),
    }
}

/// Free bytes, and the free shares of blocks and inodes; a file system that does not say is empty.
fn disk(path: &Path) -> (i64, f64, f64) {
    let Ok(stat) = statvfs(path) else { return (i64::MAX, 1.0, 1.0) };
    let bytes = i64::try_from(stat.blocks_available().saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX);
    (bytes, share(stat.blocks_available(), stat.blocks()), share(stat.files_available(), stat.files()))
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// The fourth field of /proc/loadavg counts threads.
fn pids_free(max: i64) -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = text.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    share(max.saturating_sub(running), max)
}

/// By container name; what cannot be read counts as nothing.
async fn usage(kubelet: &Kubelet, pod: &Pod, shortage: Shortage) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    let containers = kubelet.runtime.sandbox_containers(pod.uid());
    for c in containers.into_iter().filter(crate::observed::is_running) {
        let Ok(stats) = kubelet.runtime.container_stats(&c.id).await else { continue };
        let used = match shortage {
            Shortage::Memory { .. } => stats.memory_working_set_bytes,
            Shortage::Disk { .. } => stats.rootfs_used_bytes.unwrap_or(0),
        };
        out.push((c.name, i64::try_from(used).unwrap_or(i64::MAX)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_follow_the_thresholds() {
        let fine =
            Reading { memory_available: 1 << 30, disk_available: 1, disk_free: 0.5, inodes_free: 0.5, pids_free: 1.0 };
        let t = Thresholds::default();
        assert_eq!(shortage(&fine, &t), None);
        let low = Reading { memory_available: 50 << 20, ..fine };
        assert_eq!(shortage(&low, &t), Some(Shortage::Memory { threshold: 100 << 20, available: 50 << 20 }));
        assert_eq!(shortage(&Reading { disk_free: 0.09, ..fine }, &t), Some(Shortage::Disk { available: 1 }));
        assert_eq!(shortage(&Reading { inodes_free: 0.01, ..fine }, &t), Some(Shortage::Disk { available: 1 }));
    }
}
