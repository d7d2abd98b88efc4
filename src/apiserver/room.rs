//! A room of its own for heavy requests: threads that decode, patch, validate and encode what is large,
//! so that the threads on which kubelet, proxy, DNS and health checks live never wait for it.
//!
//! Requests wait in line by user, and users take turns: who sends much waits for their own requests, not
//! others for theirs. The line is bounded for requests with bodies; beyond it the answer is 429. A request
//! has a thread while it computes: while it waits for the store, others go on, few enough that their memory
//! stays bounded. Work whose client has gone is not begun, and what has begun ends where it next waits or
//! asks [`Client::is_gone`].

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::auth::{User, user};
use crate::error::ApiError;

/// Bytes of body and object from which a request is heavy. A dense object of this size is decoded and
/// validated in some milliseconds, which the others can wait.
pub(crate) const HEAVY: usize = 32 * 1024;
/// Requests with a body that wait. Each holds up to 3 MB, so a full line takes some 50 MB.
const WAITING: usize = 16;
/// Such requests of one user: a quarter, so that one user never closes the room to the others.
const WAITING_OF_ONE: usize = 4;
/// Administrators install charts with many large objects at once.
const WAITING_OF_MASTERS: usize = 64;
/// Requests that have begun. While one computes, the others wait for the store, which takes them together:
/// one write to a slow card is eight requests.
const BEGUN: usize = 8;
const BEGUN_OF_ONE: usize = 2;
/// Bytes of body and object of those that have begun; a larger one begins alone. An update keeps its
/// body's tree while it waits, which takes up to some thirty times the bytes: 60 MB.
const BEGUN_BYTES: usize = 2 * 1024 * 1024;
/// The turn of work that is done once for many users: none of them makes the others wait for their own queue.
pub(crate) const SHARED: &str = "";
/// Nesting is bounded at 128 levels, each of which takes some kilobytes in an unoptimized build.
const STACK: usize = 8 * 1024 * 1024;

thread_local! {
    /// This is a thread of a room.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The sizes of a request that decide where it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) body: usize,
    /// The object that it names.
    pub(crate) object: usize,
    /// Objects that are decoded one by one and forgotten.
    pub(crate) passing: usize,
}

impl Load {
    pub(crate) fn is_heavy(self) -> bool {
        self.body + self.object + self.passing >= HEAVY
    }

    /// What the request may hold while it waits for the store.
    fn kept(self) -> usize {
        self.body + self.object
    }
}

/// Whoever waits for an answer of the room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client(CancellationToken);

impl Client {
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_cancelled()
    }
}

struct Job {
    load: Load,
    work: BoxFuture<'static, ()>,
}

/// The requests of those who share a turn.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    with_body: usize,
    begun: usize,
}

#[derive(Default)]
struct Line {
    by_turn: HashMap<String, Queue>,
    /// The turns that wait; the next one first.
    turns: VecDeque<String>,
    with_body: usize,
    begun: usize,
    begun_bytes: usize,
    closed: bool,
}

impl Line {
    fn push(&mut self, turn: &str, job: Job) -> Result<(), ApiError> {
        let of_one = self.by_turn.get(turn).map_or(0, |queue| queue.with_body);
        let (all, one) =
            if turn == user::MASTERS { (WAITING_OF_MASTERS, WAITING_OF_MASTERS) } else { (WAITING, WAITING_OF_ONE) };
        let with_body = usize::from(job.load.body > 0);
        if with_body > 0 && (self.with_body >= all || of_one >= one) {
            let message = "Too many requests, please try again later.".to_owned();
            return Err(ApiError::TooManyRequests { message, retry_after: 1, causes: Vec::new() });
        }
        let queue = self.by_turn.entry(turn.to_owned()).or_default();
        if queue.jobs.is_empty() {
            self.turns.push_back(turn.to_owned());
        }
        queue.jobs.push_back(job);
        queue.with_body += with_body;
        self.with_body += with_body;
        Ok(())
    }

    /// The next request that may begin, and whose turn it takes. A large one is not overtaken for ever: what
    /// is behind it waits with it.
    fn begin(&mut self) -> Option<(String, Job)> {
        if self.begun >= BEGUN {
            return None;
        }
        let may_begin = |turn: &String| {
            let limit = if turn == user::MASTERS { BEGUN } else { BEGUN_OF_ONE };
            self.by_turn.get(turn).is_some_and(|queue| queue.begun < limit)
        };
        let place = self.turns.iter().position(may_begin)?;
        let queue = self.by_turn.get_mut(&self.turns[place])?;
        let kept = queue.jobs.front()?.load.kept();
        if self.begun > 0 && self.begun_bytes + kept > BEGUN_BYTES {
            return None;
        }
        let turn = self.turns.remove(place)?;
        let job = queue.jobs.pop_front()?;
        let with_body = usize::from(job.load.body > 0);
        queue.with_body -= with_body;
        queue.begun += 1;
        if !queue.jobs.is_empty() {
            self.turns.push_back(turn.clone());
        }
        self.with_body -= with_body;
        self.begun += 1;
        self.begun_bytes += kept;
        Some((turn, job))
    }

    fn end(&mut self, turn: &str, load: Load) {
        self.begun -= 1;
        self.begun_bytes -= load.kept();
        if let Some(queue) = self.by_turn.get_mut(turn) {
            queue.begun -= 1;
            if queue.begun == 0 && queue.jobs.is_empty() {
                self.by_turn.remove(turn);
            }
        }
    }
}

/// Whose turn a user's request takes: administrators share one, and so do the service accounts of a
/// namespace, of which whoever owns it can make any number. Those of the controllers are told apart.
pub(crate) fn turn(user: &User) -> &str {
    if user.is_in(user::MASTERS) {
        return user::MASTERS;
    }
    match user.name.rsplit_once(':') {
        Some((namespace, _))
            if user.is_in(user::SERVICE_ACCOUNTS) && namespace != "system:serviceaccount:kube-system" =>
        {
            namespace
        }
        Some(_) | None => &user.name,
    }
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Notify,
}

/// A request that has begun, until this is dropped.
struct Begun {
    shared: Arc<Shared>,
    turn: String,
    load: Load,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.shared.line.lock().end(&self.turn, self.load);
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    /// What one thread does until the room closes.
    async fn work(self: Arc<Self>) {
        let mut begun = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What has begun ends first, so that little is held at a time.
                biased;
                Some(ended) = begun.next() => {
                    // Whoever waits for the job sees that its answer never comes.
                    if Result::is_err(&ended) {
                        tracing::error!("a request panicked");
                    }
                }
                next = self.next() => match next {
                    Some((place, work)) => begun.push(AssertUnwindSafe(async move {
                        let _place = place;
                        work.await;
                    }).catch_unwind()),
                    None => return,
                },
            }
        }
    }

    async fn next(self: &Arc<Self>) -> Option<(Begun, BoxFuture<'static, ()>)> {
        loop {
            let changed = self.changed.notified();
            {
                let mut line = self.line.lock();
                if let Some((turn, Job { load, work })) = line.begin() {
                    return Some((Begun { shared: Arc::clone(self), turn, load }, work));
                }
                if line.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

/// The threads and the line before them. They end with the room.
pub(crate) struct HeavyRoom(Arc<Shared>);

impl fmt::Debug for HeavyRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeavyRoom({} begun)", self.0.line.lock().begun)
    }
}

impl HeavyRoom {
    /// Opens a room with threads for half of the processors, within a runtime.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn open() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let (room, runtime) = (Self(Arc::default()), Handle::current());
        for _ in 0..threads {
            let (shared, runtime) = (Arc::clone(&room.0), runtime.clone());
            let thread = move || {
                INSIDE.set(true);
                runtime.block_on(shared.work());
            };
            std::thread::Builder::new().name("heavy".into()).stack_size(STACK).spawn(thread)?;
        }
        Ok(room)
    }

    /// Does a user's work in the room. Dropping the answer ends the work. What a request in the room asks of
    /// the server is part of it.
    ///
    /// # Errors
    /// Those of the work, and 429 when too many requests with bodies wait.
    pub(crate) async fn run<T, F>(&self, turn: &str, load: Load, work: impl FnOnce(Client) -> F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let client = Client::default();
        let work = work(client.clone());
        if INSIDE.get() {
            return work.await;
        }
        let _waits = client.0.clone().drop_guard();
        let (sender, answer) = oneshot::channel();
        let work = async move {
            if let Some(done) = client.0.run_until_cancelled(work).await {
                // Who asked may have gone at the last moment.
                let _ = sender.send(done);
            }
        };
        self.0.line.lock().push(turn, Job { load, work: work.boxed() })?;
        self.0.changed.notify_waiters();
        answer.await.unwrap_or_else(|_| Err(ApiError::internal("the request ended without an answer")))
    }
}

impl Drop for HeavyRoom {
    fn drop(&mut self) {
        self.0.line.lock().closed = true;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
