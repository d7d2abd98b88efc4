//! Removes images that no container uses when the disk fills, the longest unused first. Those that are
//! pinned stay.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use client::EventType;
use runtime::ImageStatus;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Thresholds;
use crate::events;
use crate::kubelet::Kubelet;
use crate::metrics::Counter;

const PERIOD: Duration = Duration::from_secs(300);

/// When each image was seen first, and in use last.
#[derive(Default)]
pub(super) struct ImageGc {
    ran_at: Option<Instant>,
    seen: HashMap<String, (Instant, Instant)>,
}

/// One image as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    id: String,
    size: u64,
    age: Duration,
    unused_for: Duration,
    /// It lies ready on the node, from where alone it could come again.
    pinned: bool,
}

impl ImageGc {
    pub(super) async fn run_if_due(&mut self, kubelet: &Kubelet) {
        if self.ran_at.is_some_and(|at| at.elapsed() < PERIOD) {
            return;
        }
        self.ran_at = Some(Instant::now());
        let candidates = self.candidates(kubelet);
        let usage = match kubelet.runtime.image_fs_usage().await {
            Ok(usage) => usage,
            Err(e) => {
                warn!("disk usage of images not known: {e}");
                return;
            }
        };
        let thresholds = &kubelet.cfg.thresholds;
        let wanted = to_free(usage.capacity_bytes, usage.available_bytes, thresholds);
        if wanted == 0 {
            return;
        }
        let freed = remove(kubelet, choose(candidates, wanted, thresholds.image_min_age)).await;
        if freed < wanted {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            );
            let about = events::node(&kubelet.cfg.node_name);
            kubelet.recorder.event(&about, EventType::Warning, "FreeDiskSpaceFailed", &message);
        }
    }

    /// All of them, because pods would have to go next.
    pub(super) async fn remove_unused(&mut self, kubelet: &Kubelet) {
        let candidates = self.candidates(kubelet);
        remove(kubelet, choose(candidates, u64::MAX, kubelet.cfg.thresholds.image_min_age)).await;
    }

    fn candidates(&mut self, kubelet: &Kubelet) -> Vec<Candidate> {
        let used = match kubelet.runtime.images_in_use() {
            Ok(used) => used,
            Err(error) => {
                warn!("no image is removed: {error}");
                return Vec::new();
            }
        };
        let pinned = kubelet.runtime.pinned_images();
        let images: Vec<ImageStatus> = kubelet.runtime.list_images();
        let now = Instant::now();
        let there: HashSet<&str> = images.iter().map(|i| i.id.as_str()).collect();
        self.seen.retain(|id, _| there.contains(id.as_str()));
        let mut out = Vec::new();
        for image in &images {
            let (first, last) = self.seen.entry(image.id.clone()).or_insert((now, now));
            if used.contains(&image.id) {
                *last = now;
                continue;
            }
            out.push(Candidate {
                id: image.id.clone(),
                size: image.size_bytes,
                age: now.duration_since(*first),
                unused_for: now.duration_since(*last),
                pinned: pinned.contains(&image.id),
            });
        }
        out
    }
}

async fn remove(kubelet: &Kubelet, (victims, freed): (Vec<String>, u64)) -> u64 {
    if !victims.is_empty() {
        info!(images = victims.len(), bytes = freed, "removing unused images");
    }
    for id in victims {
        match kubelet.metrics.time("remove_image", kubelet.runtime.remove_image(&id)).await {
            Ok(()) => kubelet.metrics.count(Counter::ImageGarbageCollected, &[("reason", "space")]),
            Err(e) => warn!(image = id, "unused image not removed: {e}"),
        }
    }
    freed
}

/// Bytes to free: none below the high mark, else down to the low one.
#[expect(clippy::cast_precision_loss, reason = "bytes of a disk need no more precision")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u64")]
fn to_free(capacity: u64, available: u64, t: &Thresholds) -> u64 {
    let used = capacity.saturating_sub(available);
    if capacity == 0 || (used as f64) < capacity as f64 * t.image_gc_high {
        return 0;
    }
    used.saturating_sub((capacity as f64 * t.image_gc_low) as u64)
}

fn choose(mut candidates: Vec<Candidate>, wanted: u64, min_age: Duration) -> (Vec<String>, u64) {
    candidates.retain(|c| !c.pinned && c.age >= min_age);
    candidates.sort_by_key(|c| std::cmp::Reverse((c.unused_for, c.age)));
    let mut freed = 0;
    let mut victims = Vec::new();
    for c in candidates {
        if freed >= wanted {
            break;
        }
        freed += c.size;
        victims.push(c.id);
    }
    (victims, freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_freed_below_the_high_mark() {
        let t = Thresholds::default();
        assert_eq!(to_free(1000, 200, &t), 0);
        assert_eq!(to_free(1000, 100, &t), 100);
        assert_eq!(to_free(0, 0, &t), 0);
    }

    #[test]
    fn the_longest_unused_go_first_and_young_ones_stay() {
        let image = |id: &str, size, age, unused| Candidate {
            id: id.to_owned(),
            size,
            age: Duration::from_secs(age),
            unused_for: Duration::from_secs(unused),
            pinned: false,
        };
        let list = vec![image("young", 500, 60, 60), image("recent", 100, 900, 200), image("old", 100, 900, 800)];
        let min = Duration::from_secs(120);
        assert_eq!(choose(list.clone(), 50, min), (vec!["old".to_owned()], 100));
        assert_eq!(choose(list.clone(), 1000, min), (vec!["old".to_owned(), "recent".to_owned()], 200));
        let pinned = list.into_iter().map(|c| Candidate { pinned: c.id == "old", ..c }).collect();
        assert_eq!(choose(pinned, u64::MAX, min), (vec!["recent".to_owned()], 100), "whatever is wanted");
    }
}
