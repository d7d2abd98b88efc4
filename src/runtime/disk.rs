//! The disk room: threads of its own for all work that may wait for a file system.
//!
//! A file system may answer late or never: a worn card, a dead NFS server, FUSE, a device that hangs.
//! Such a wait costs one thread of a bounded number here, and never one that serves requests. Each job
//! has an owner and a deadline: its caller is answered at the deadline whatever the kernel does, and
//! one owner never takes all threads. A job that is late cannot be interrupted: it keeps its thread
//! until the kernel lets go, and whoever asks for more in its owner's name is refused at once.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Jobs that wait in one lane: a full node of pods, each with a handful of volumes.
const WAITING_MAX: usize = 2048;
/// Jobs of one owner that wait: every session of the kubelet's API may follow the same log.
const WAITING_OF_OWNER_MAX: usize = 512;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// Kinds of work that never wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The node's own records, cgroups and mounts.
    Node,
    /// Layers that arrive and images that are imported. Long; their callers are few.
    Images,
    /// Directories of a pod or a sandbox on the node's own file systems.
    Pod,
    /// Paths that lead elsewhere: to the host, to the network, to where a container points.
    Foreign,
}

impl Lane {
    const fn threads(self) -> usize {
        match self {
            // Three pulls at a time with three layers each, and an import.
            Self::Images => 10,
            Self::Node => 6,
            Self::Pod | Self::Foreign => 16,
        }
    }

    /// Threads that one owner has at the most.
    const fn threads_of_owner(self) -> usize {
        match self {
            Self::Node | Self::Images => self.threads(),
            Self::Pod => 4,
            Self::Foreign => 2,
        }
    }
}

/// The work was not done, or its end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("the file system did not answer in time")]
    Late,
    #[error("an earlier operation still waits for its file system")]
    Stuck,
    #[error("too many operations wait for file systems")]
    Full,
}

/// The threads, by lane.
#[derive(Debug)]
pub struct DiskRoom {
    node: Arc<Desk>,
    images: Arc<Desk>,
    pod: Arc<Desk>,
    foreign: Arc<Desk>,
}

impl Default for DiskRoom {
    fn default() -> Self {
        let desk = |lane| Arc::new(Desk { lane, queue: Mutex::default(), more: Condvar::new() });
        Self { node: desk(Lane::Node), images: desk(Lane::Images), pod: desk(Lane::Pod), foreign: desk(Lane::Foreign) }
    }
}

impl DiskRoom {
    /// Runs `work` on a thread of the lane. A caller that goes away before it began takes it back;
    /// a panic in it goes on in the caller.
    ///
    /// # Errors
    /// When it did not begin, or had not ended at the deadline.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        owner: &str,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let (answer, outcome) = oneshot::channel();
        let job = Job {
            owner: owner.to_owned(),
            due: Instant::now() + deadline,
            work: Box::new(move || {
                if !answer.is_closed() {
                    // The caller may have given up meanwhile.
                    let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
                }
            }),
        };
        self.desk(lane).submit(job)?;
        match tokio::time::timeout(deadline, outcome).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(panic))) => resume_unwind(panic),
            Ok(Err(_)) | Err(_) => Err(DiskError::Late),
        }
    }

    fn desk(&self, lane: Lane) -> &Arc<Desk> {
        match lane {
            Lane::Node => &self.node,
            Lane::Images => &self.images,
            Lane::Pod => &self.pod,
            Lane::Foreign => &self.foreign,
        }
    }
}

struct Job {
    owner: String,
    due: Instant,
    work: Box<dyn FnOnce() + Send>,
}

/// One lane's queue and the threads that serve it.
#[derive(Debug)]
struct Desk {
    lane: Lane,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// When each running job is due, by owner.
    running: HashMap<String, Vec<Instant>>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).field("threads", &self.threads).finish()
    }
}

impl Queue {
    fn running_of(&self, owner: &str) -> usize {
        self.running.get(owner).map_or(0, Vec::len)
    }

    /// Whether one more job of this owner may wait.
    fn admit(&self, lane: Lane, owner: &str, now: Instant) -> Result<(), DiskError> {
        let late = |due: &[Instant]| due.iter().filter(|due| **due <= now).count();
        if self.running.get(owner).is_some_and(|due| late(due) >= lane.threads_of_owner()) {
            return Err(DiskError::Stuck);
        }
        let stuck: usize = self.running.values().map(|due| late(due)).sum();
        let of_owner = self.waiting.iter().filter(|job| job.owner == owner).count();
        if stuck >= lane.threads() || self.waiting.len() >= WAITING_MAX || of_owner >= WAITING_OF_OWNER_MAX {
            return Err(DiskError::Full);
        }
        Ok(())
    }

    /// The first job whose owner may have one more thread.
    fn next(&mut self, lane: Lane) -> Option<Job> {
        let at = self.waiting.iter().position(|job| self.running_of(&job.owner) < lane.threads_of_owner())?;
        let job = self.waiting.remove(at)?;
        self.running.entry(job.owner.clone()).or_default().push(job.due);
        Some(job)
    }

    fn done(&mut self, owner: &str, due: Instant) {
        let Some(running) = self.running.get_mut(owner) else { return };
        if let Some(at) = running.iter().position(|other| *other == due) {
            running.swap_remove(at);
        }
        if running.is_empty() {
            self.running.remove(owner);
        }
    }
}

impl Desk {
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), DiskError> {
        let mut queue = self.queue.lock();
        queue.admit(self.lane, &job.owner, Instant::now())?;
        queue.waiting.push_back(job);
        // Threads that were woken for earlier jobs still count as idle until they have the lock.
        if queue.waiting.len() > queue.idle && queue.threads < self.lane.threads() {
            let desk = Arc::clone(self);
            let name = format!("disk-{:?}", self.lane).to_lowercase();
            let started = std::thread::Builder::new().name(name).spawn(move || desk.serve());
            match started {
                Ok(_) => queue.threads += 1,
                Err(_) if queue.threads == 0 => {
                    queue.waiting.pop_back();
                    return Err(DiskError::Full);
                }
                // Those that there are get to it.
                Err(_) => {}
            }
        }
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    fn serve(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(Job { owner, due, work }) = queue.next(self.lane) {
                MutexGuard::unlocked(&mut queue, work);
                queue.done(&owner, due);
                continue;
            }
            queue.idle += 1;
            let waited = self.more.wait_for(&mut queue, IDLE);
            queue.idle -= 1;
            if waited.timed_out() && queue.waiting.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    /// A job that hangs until the returned sender is dropped.
    fn hang(room: &Arc<DiskRoom>, owner: &str) -> (std::sync::mpsc::SyncSender<()>, tokio::task::JoinHandle<()>) {
        let (release, held) = sync_channel::<()>(0);
        let (room, owner) = (Arc::clone(room), owner.to_owned());
        #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
        let caller = tokio::spawn(async move {
            let late = room.run(Lane::Foreign, &owner, SOON, move || held.recv().is_ok()).await;
            assert_eq!(late, Err(DiskError::Late));
        });
        (release, caller)
    }

    #[tokio::test]
    async fn callers_are_answered_at_the_deadline_and_others_do_not_wait() {
        let room = Arc::new(DiskRoom::default());
        let (hung, callers): (Vec<_>, Vec<_>) = (0..2).map(|_| hang(&room, "bad")).unzip();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(room.run(Lane::Foreign, "bad", LONG, || 1).await, Err(DiskError::Stuck), "it has had its share");
        assert_eq!(room.run(Lane::Foreign, "good", LONG, || 2).await, Ok(2));
        assert_eq!(room.run(Lane::Pod, "bad", LONG, || 3).await, Ok(3), "lanes do not wait for each other");
        drop(hung);
        let freed = async {
            while room.run(Lane::Foreign, "bad", LONG, || 4).await != Ok(4) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, freed).await.expect("a job that ends at last gives its thread back");
    }

    #[tokio::test]
    async fn a_lane_whose_threads_all_hang_refuses() {
        let room = Arc::new(DiskRoom::default());
        let owners = 0..Lane::Foreign.threads();
        let (hung, callers): (Vec<_>, Vec<_>) = owners.map(|n| hang(&room, &n.to_string())).unzip();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(room.run(Lane::Foreign, "good", LONG, || ()).await, Err(DiskError::Full));
        assert_eq!(room.foreign.queue.lock().threads, Lane::Foreign.threads());
        drop(hung);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_taken_back_with_its_caller() {
        let room = Arc::new(DiskRoom::default());
        let (release, held) = sync_channel::<()>(0);
        let held = Arc::new(std::sync::Mutex::new(held));
        let ran = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut jobs = Vec::new();
        for number in 0..Lane::Foreign.threads_of_owner() + WAITING_OF_OWNER_MAX {
            let (held, ran) = (Arc::clone(&held), Arc::clone(&ran));
            jobs.push(Box::pin(room.run(Lane::Foreign, "a", LONG, move || {
                if number < Lane::Foreign.threads_of_owner() {
                    drop(held.lock().map(|held| held.recv()));
                } else {
                    ran.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            })));
        }
        for job in &mut jobs {
            assert!(futures::poll!(job).is_pending());
            while room.foreign.queue.lock().waiting.len() > WAITING_OF_OWNER_MAX - 1 {
                if room.foreign.queue.lock().running_of("a") == Lane::Foreign.threads_of_owner() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(room.run(Lane::Foreign, "a", LONG, || ()).await, Err(DiskError::Full));
        drop(jobs);
        drop(release);
        room.run(Lane::Foreign, "b", LONG, || ()).await.unwrap();
        let emptied = async {
            while !room.foreign.queue.lock().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, emptied).await.unwrap();
        assert_eq!(ran.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[tokio::test]
    #[should_panic(expected = "in the job")]
    async fn panics_go_on_in_the_caller() {
        let _ = DiskRoom::default().run(Lane::Node, "", LONG, || panic!("in the job")).await;
    }
}
