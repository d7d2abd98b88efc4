//! The walks through what pods have on disk: one of a pod at a time, a few of the node, each with a
//! deadline. Whoever asks meanwhile waits for the same walk, or takes what it has counted so far; what was
//! counted is kept for a while, as upstream keeps it for a minute.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{DiskRoom, Lane};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::disk_use::{DiskUse, Walk};

/// A slow card counts some hundred thousand files in this time.
pub(super) const WALK_DEADLINE: Duration = Duration::from_secs(20);
/// Walks at once: they read one disk, and leave the threads of pods to others.
const AT_ONCE: usize = 2;
/// A pod that takes long to count is walked a tenth of the time at the most.
const REST: u32 = 10;

pub(crate) struct Walks {
    pods: Mutex<HashMap<String, Seen>>,
    turns: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
}

impl Default for Walks {
    fn default() -> Self {
        Self { pods: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)), tasks: Mutex::default() }
    }
}

/// What is known of one pod.
#[derive(Default)]
struct Seen {
    known: Option<Known>,
    under_way: Option<UnderWay>,
}

struct Known {
    at: Instant,
    took: Duration,
    used: Arc<DiskUse>,
}

#[derive(Clone)]
struct UnderWay {
    walk: Arc<Walk>,
    /// Its sender goes with the end of the walk.
    end: watch::Receiver<()>,
}

impl Walks {
    /// What the pod used at most `age` ago; else what a walk counts within `patience`.
    pub(super) async fn used(
        self: &Arc<Self>,
        disk: &Arc<DiskRoom>,
        uid: &str,
        walk: impl FnOnce() -> Walk,
        age: Duration,
        patience: Duration,
    ) -> Arc<DiskUse> {
        let asked_at = Instant::now();
        let UnderWay { walk, mut end } = {
            let mut pods = self.pods.lock();
            let seen = pods.entry(uid.to_owned()).or_default();
            let is_fresh = |k: &&Known| asked_at.duration_since(k.at) <= age.max(k.took * REST);
            if let Some(known) = seen.known.as_ref().filter(is_fresh) {
                return Arc::clone(&known.used);
            }
            match seen.under_way.clone().filter(|walk| walk.end.has_changed().is_ok()) {
                Some(walk) => walk,
                None => seen.under_way.insert(self.begin(disk, uid, walk())).clone(),
            }
        };
        // Nothing is ever sent: the wait ends with the walk, or with the patience.
        let _ = timeout(patience, end.changed()).await;
        let pods = self.pods.lock();
        let known = pods.get(uid).and_then(|seen| seen.known.as_ref());
        if let Some(fresh) = known.filter(|k| k.at >= asked_at) {
            return Arc::clone(&fresh.used);
        }
        let so_far = DiskUse { partial: true, ..walk.so_far() };
        Arc::new(match known {
            Some(known) => so_far.at_least(&known.used),
            None => so_far,
        })
    }

    /// Forgets the pods that are gone.
    pub(super) fn retain(&self, uids: &[String]) {
        let uids: HashSet<&str> = uids.iter().map(String::as_str).collect();
        self.pods.lock().retain(|uid, _| uids.contains(uid.as_str()));
    }

    fn begin(self: &Arc<Self>, disk: &Arc<DiskRoom>, uid: &str, walk: Walk) -> UnderWay {
        let (alive, end) = watch::channel(());
        let walk = Arc::new(walk);
        let (walks, disk, uid, own) = (Arc::clone(self), Arc::clone(disk), uid.to_owned(), Arc::clone(&walk));
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _alive = alive;
            let _turn = walks.turns.acquire().await.expect("invariant: the semaphore is never closed");
            let (began, at) = (Instant::now(), Arc::clone(&own));
            let whole = disk.run(Lane::Pod, &uid, WALK_DEADLINE, move || at.run()).await == Ok(true);
            own.end();
            walks.note(&uid, began.elapsed(), DiskUse { partial: !whole, ..own.so_far() });
        });
        UnderWay { walk, end }
    }

    fn note(&self, uid: &str, took: Duration, used: DiskUse) {
        let mut pods = self.pods.lock();
        let Some(seen) = pods.get_mut(uid) else { return };
        let used = match &seen.known {
            Some(known) if used.partial => used.at_least(&known.used),
            Some(_) | None => used,
        };
        seen.under_way = None;
        seen.known = Some(Known { at: Instant::now(), took, used: Arc::new(used) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MINUTE: Duration = Duration::from_secs(60);

    fn file(dir: &Path, name: &str) {
        std::fs::write(dir.join(name), vec![1; 5000]).unwrap();
    }

    async fn inodes(walks: &Arc<Walks>, disk: &Arc<DiskRoom>, dir: &Path, age: Duration) -> u64 {
        let used = walks.used(disk, "u1", || Walk::of_empty_dir(dir), age, MINUTE).await;
        assert!(!used.partial);
        used.total().inodes
    }

    #[tokio::test]
    async fn a_count_is_kept_for_as_long_as_its_reader_likes() {
        let dir = tempfile::tempdir().unwrap();
        let (walks, disk) = (Arc::new(Walks::default()), Arc::new(DiskRoom::default()));
        file(dir.path(), "a");
        assert_eq!(inodes(&walks, &disk, dir.path(), MINUTE).await, 1);
        file(dir.path(), "b");
        assert_eq!(inodes(&walks, &disk, dir.path(), MINUTE).await, 1, "as it was counted");
        walks.retain(&["u2".to_owned()]);
        assert_eq!(inodes(&walks, &disk, dir.path(), MINUTE).await, 2, "of a pod that was forgotten");
    }

    #[tokio::test]
    async fn those_who_ask_together_wait_for_one_walk() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "a");
        let (walks, disk) = (Arc::new(Walks::default()), Arc::new(DiskRoom::default()));
        let begun = std::sync::atomic::AtomicUsize::new(0);
        let ask = || {
            let walk = || {
                begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Walk::of_empty_dir(dir.path())
            };
            walks.used(&disk, "u1", walk, Duration::ZERO, MINUTE)
        };
        let (one, other) = tokio::join!(ask(), ask());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(begun.into_inner(), 1);
    }

    /// All threads that the pod may have are taken by jobs that hang.
    #[tokio::test(start_paused = true)]
    async fn a_pod_that_cannot_be_counted_keeps_what_was_known_and_is_never_nothing() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "a");
        let (walks, disk) = (Arc::new(Walks::default()), Arc::new(DiskRoom::default()));
        let known = DiskUse { files: runtime::TreeUsage { bytes: 7, inodes: 3 }, ..DiskUse::default() };
        walks.pods.lock().insert("u1".to_owned(), Seen::default());
        walks.note("u1", Duration::ZERO, known);
        tokio::time::advance(MINUTE * 2).await;
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let held = Arc::new(std::sync::Mutex::new(held));
        let mut hung = Vec::new();
        for _ in 0..4 {
            let held = Arc::clone(&held);
            let hang = move || drop(held.lock().map(|held| held.recv()));
            let mut job = Box::pin(disk.run(Lane::Pod, "u1", MINUTE, hang));
            assert!(futures::poll!(&mut job).is_pending());
            hung.push(job);
        }
        let used = walks.used(&disk, "u1", || Walk::of_empty_dir(dir.path()), MINUTE, MINUTE).await;
        assert_eq!((used.partial, used.total().inodes), (true, 3));
        let again = walks.used(&disk, "u1", || Walk::of_empty_dir(dir.path()), MINUTE, MINUTE).await;
        assert!(Arc::ptr_eq(&used, &again), "it is not tried again at once");
        drop(release);
    }
}
