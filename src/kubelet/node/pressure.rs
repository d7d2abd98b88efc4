//! Looks at memory, disk and process numbers, and evicts a pod when memory or disk runs out. Memory does
//! not wait for the disk: the two are looked after by loops of their own.

use std::path::Path;
use std::time::Duration;

use client::EventType;
use nix::sys::statvfs::statvfs;
use runtime::{Lane, TreeUsage};
use tokio::time::Instant;
use tracing::warn;

use super::disk_use::DiskUse;
use super::eviction::{self, Candidate, Shortage};
use super::image_gc::ImageGc;
use super::{CHECK, PATIENCE, Pressure, meminfo};
use crate::config::Thresholds;
use crate::kubelet::Kubelet;
use crate::metrics::Counter;
use crate::observed::{has_ended, is_running};
use crate::pod::PodExt;
use crate::registry::Entry;
use crate::status::Verdict;
use crate::{events, pod_workers};

/// For the figures of the data disk.
const DISK_DEADLINE: Duration = Duration::from_secs(5);

/// An evicted pod needs a moment to give back what it held.
const SETTLE: Duration = Duration::from_secs(20);

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    memory_available: i64,
    disk: Part,
    inodes: Part,
    pids_free: f64,
}

/// What is free of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    available: i64,
    whole: i64,
}

impl Part {
    /// Of what has no end, such as the inodes of some file systems.
    const ENDLESS: Self = Self { available: i64::MAX, whole: 0 };

    fn new(available: u64, whole: u64) -> Self {
        let bounded = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if whole == 0 { Self::ENDLESS } else { Self { available: bounded(available), whole: bounded(whole) } }
    }

    /// So much has to stay free.
    #[expect(clippy::cast_possible_truncation, reason = "a share of an i64 that is at most the whole")]
    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk need no more precision")]
    fn threshold(self, share: f64) -> i64 {
        (self.whole as f64 * share) as i64
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::ENDLESS
    }
}

#[derive(Default)]
pub(super) struct Watch {
    memory_since: Option<Instant>,
    disk_since: Option<Instant>,
    evicted_at: Option<Instant>,
}

impl Watch {
    /// The conditions to post; a pod goes where memory runs out. A condition stays for a while after its
    /// cause has gone.
    pub(super) async fn check(&mut self, kubelet: &Kubelet) -> Pressure {
        let reading = read(kubelet).await;
        let thresholds = &kubelet.cfg.thresholds;
        let now = Instant::now();
        if disk_shortage(&reading, thresholds).is_some() {
            self.disk_since = Some(now);
        }
        if let Some(shortage) = memory_shortage(&reading, thresholds) {
            self.memory_since = Some(now);
            if is_settled(self.evicted_at) {
                announce(kubelet, shortage);
                if evict(kubelet, shortage).await {
                    self.evicted_at = Some(Instant::now());
                }
            }
        }
        let lasts = |since: Option<Instant>| since.is_some_and(|s| s.elapsed() < thresholds.pressure_transition);
        Pressure { memory: lasts(self.memory_since), disk: lasts(self.disk_since), pids: reading.pids_free < 0.05 }
    }
}

/// Frees disk. It takes as long as the disk takes, so nothing else of the node waits for it.
#[derive(Default)]
pub(super) struct DiskRelief {
    evicted_at: Option<Instant>,
}

impl DiskRelief {
    /// What nobody uses goes first: containers of pods that ended, then images; then a pod.
    pub(super) async fn relieve(&mut self, kubelet: &Kubelet, images: &mut ImageGc) {
        let shortage = |reading: &Reading| disk_shortage(reading, &kubelet.cfg.thresholds);
        let Some(short) = shortage(&read(kubelet).await).filter(|_| is_settled(self.evicted_at)) else { return };
        announce(kubelet, short);
        for entry in kubelet.pods.all().into_iter().filter(|e| !e.is_active()) {
            let containers = kubelet.runtime.sandbox_containers(entry.pod.uid());
            let dead: Vec<_> = containers.into_iter().filter(has_ended).collect();
            pod_workers::remove_dead(kubelet, &entry.pod, &dead).await;
        }
        images.remove_unused(kubelet).await;
        if let Some(left) = shortage(&read(kubelet).await)
            && evict(kubelet, left).await
        {
            self.evicted_at = Some(Instant::now());
        }
    }
}

fn is_settled(evicted_at: Option<Instant>) -> bool {
    evicted_at.is_none_or(|at| at.elapsed() >= SETTLE)
}

fn announce(kubelet: &Kubelet, shortage: Shortage) {
    let about = events::node(&kubelet.cfg.node_name);
    let message = format!("Attempting to reclaim {}", shortage.resource());
    kubelet.recorder.event(&about, EventType::Warning, "EvictionThresholdMet", &message);
}

/// Returns whether there was a pod to evict.
async fn evict(kubelet: &Kubelet, shortage: Shortage) -> bool {
    let mut candidates = Vec::new();
    for entry in kubelet.pods.all().into_iter().filter(|e| e.is_active() && !e.pod.is_deleting()) {
        candidates.push(usage(kubelet, entry, shortage).await);
    }
    let Some(victim) = eviction::choose(candidates, shortage) else { return false };
    let message = eviction::message(&victim, shortage);
    let pod = &victim.entry.pod;
    warn!(pod = %pod.full_name(), "evicting: {message}");
    kubelet.recorder.event(&events::pod(pod), EventType::Warning, "Evicted", &message);
    let verdict = Verdict { reason: "Evicted".to_owned(), message, disruption: true };
    kubelet.metrics.count(Counter::Evictions, &[("eviction_signal", shortage.signal())]);
    victim.entry.mailbox.condemn(verdict, 0);
    true
}

fn memory_shortage(reading: &Reading, thresholds: &Thresholds) -> Option<Shortage> {
    let (threshold, available) = (thresholds.memory_available, reading.memory_available);
    (available < threshold).then_some(Shortage::Memory { threshold, available })
}

fn disk_shortage(reading: &Reading, thresholds: &Thresholds) -> Option<Shortage> {
    let Reading { disk, inodes, .. } = reading;
    let threshold = disk.threshold(thresholds.disk_available);
    if disk.available < threshold {
        return Some(Shortage::Disk { threshold, available: disk.available });
    }
    let threshold = inodes.threshold(thresholds.inodes_available);
    (inodes.available < threshold).then_some(Shortage::Inodes { threshold, available: inodes.available })
}

async fn read(kubelet: &Kubelet) -> Reading {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let root = kubelet.cfg.root_dir.clone();
    let disk = kubelet.disk().run(Lane::Node, "", DISK_DEADLINE, move || disk(&root)).await;
    // A disk that does not answer has no figures; that it hangs shows elsewhere.
    let (disk, inodes) = disk.unwrap_or((Part::ENDLESS, Part::ENDLESS));
    Reading {
        memory_available: meminfo(&memory, "MemAvailable"),
        disk,
        inodes,
        pids_free: pids_free(kubelet.machine.max_pids),
    }
}

/// Bytes and inodes; a file system that does not say has no end.
fn disk(path: &Path) -> (Part, Part) {
    let Ok(stat) = statvfs(path) else { return (Part::ENDLESS, Part::ENDLESS) };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    (Part::new(bytes(stat.blocks_available()), bytes(stat.blocks())), Part::new(stat.files_available(), stat.files()))
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

/// A container that ended while it was asked about uses no memory.
async fn usage(kubelet: &Kubelet, entry: Entry, shortage: Shortage) -> Candidate {
    let bounded = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let of = |used: TreeUsage| match shortage {
        Shortage::Inodes { .. } => bounded(used.inodes),
        Shortage::Memory { .. } | Shortage::Disk { .. } => bounded(used.bytes),
    };
    match shortage {
        Shortage::Memory { .. } => {
            let mut used = Vec::new();
            let containers = kubelet.runtime.sandbox_containers(entry.pod.uid());
            for c in containers.into_iter().filter(is_running) {
                let Ok(stats) = kubelet.runtime.container_stats(&c.id).await else { continue };
                used.push((c.name, bounded(stats.memory_working_set_bytes)));
            }
            let total = used.iter().map(|(_, n)| n).fold(0, |a: i64, n| a.saturating_add(*n));
            Candidate { entry, total, used }
        }
        Shortage::Disk { .. } | Shortage::Inodes { .. } => {
            let disk = DiskUse::measure(kubelet, &entry.pod, CHECK, PATIENCE).await;
            let used = disk.containers.iter().map(|(name, c)| (name.clone(), of(c.total()))).collect();
            Candidate { total: at_least_something(of(disk.total()), disk.partial), entry, used }
        }
    }
}

/// A pod whose files cannot be counted in time does not use nothing.
fn at_least_something(counted: i64, partial: bool) -> i64 {
    if partial { counted.max(1) } else { counted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_follow_the_thresholds() {
        let half = Part { available: 500, whole: 1000 };
        let fine = Reading { memory_available: 1 << 30, disk: half, inodes: half, pids_free: 1.0 };
        let t = Thresholds::default();
        assert_eq!((memory_shortage(&fine, &t), disk_shortage(&fine, &t)), (None, None));
        let low = Reading { memory_available: 50 << 20, ..fine };
        let memory = Shortage::Memory { threshold: 100 << 20, available: 50 << 20 };
        assert_eq!((memory_shortage(&low, &t), disk_shortage(&low, &t)), (Some(memory), None));
        let part = |available| Part { available, whole: 1000 };
        let disk = Shortage::Disk { threshold: 100, available: 90 };
        assert_eq!(disk_shortage(&Reading { disk: part(90), ..fine }, &t), Some(disk));
        let inodes = Shortage::Inodes { threshold: 50, available: 10 };
        assert_eq!(disk_shortage(&Reading { inodes: part(10), ..fine }, &t), Some(inodes));
        assert_eq!(disk_shortage(&Reading { inodes: Part::new(0, 0), ..fine }, &t), None, "btrfs counts no inodes");
    }

    #[test]
    fn a_pod_with_too_many_files_to_count_can_be_evicted() {
        assert_eq!(at_least_something(0, false), 0);
        assert_eq!(at_least_something(0, true), 1);
        assert_eq!(at_least_something(500, true), 500);
    }
}
