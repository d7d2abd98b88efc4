//! A room of its own for heavy requests: threads that decode, patch, validate and encode what is large,
//! so that the threads on which kubelet, proxy, DNS and health checks live never wait for it.
//!
//! Requests wait in line by user, and users take turns: who sends much waits for their own requests, not
//! others for theirs. The line is bounded; beyond it the answer is 429. Work whose client has gone is
//! not begun, and what has begun ends at the next [`Context::pause`](crate::handlers::Context::pause).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::auth::{User, user};
use crate::error::ApiError;

/// Bytes of body and object from which a request is heavy. A dense object of this size is decoded and
/// validated in some milliseconds, which the others can wait.
pub(crate) const HEAVY: usize = 32 * 1024;
/// Requests that wait. Each holds a body of up to 3 MB, so a full line takes some 50 MB.
const WAITING: usize = 16;
/// Requests of one user that wait: a quarter, so that one user never closes the room to the others.
const WAITING_OF_ONE: usize = 4;
/// Administrators install charts with many large objects at once.
const WAITING_OF_MASTERS: usize = 64;
/// Nesting is bounded at 128 levels, each of which takes some kilobytes in an unoptimized build.
const STACK: usize = 8 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Line {
    by_user: HashMap<String, VecDeque<Job>>,
    /// The users that wait; the next one first.
    turns: VecDeque<String>,
    waiting: usize,
    closed: bool,
}

impl Line {
    fn push(&mut self, user: &str, job: Job) -> Result<(), ApiError> {
        let of_one = self.by_user.get(user).map_or(0, VecDeque::len);
        let (all, one) =
            if user == user::MASTERS { (WAITING_OF_MASTERS, WAITING_OF_MASTERS) } else { (WAITING, WAITING_OF_ONE) };
        if self.waiting >= all || of_one >= one {
            let message = "Too many requests, please try again later.".to_owned();
            return Err(ApiError::TooManyRequests { message, retry_after: 1, causes: Vec::new() });
        }
        if of_one == 0 {
            self.turns.push_back(user.to_owned());
        }
        self.by_user.entry(user.to_owned()).or_default().push_back(job);
        self.waiting += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<Job> {
        let user = self.turns.pop_front()?;
        let jobs = self.by_user.get_mut(&user)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.by_user.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        self.waiting -= 1;
        job
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
    changed: Condvar,
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            // Whoever waits for the job sees that its answer never comes.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a request panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut line = self.line.lock();
        loop {
            if let Some(job) = line.pop() {
                return Some(job);
            }
            if line.closed {
                return None;
            }
            self.changed.wait(&mut line);
        }
    }
}

/// The threads and the line before them. They end with the room.
pub(crate) struct Room(Arc<Shared>);

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({} waiting)", self.0.line.lock().waiting)
    }
}

impl Room {
    /// Opens a room with threads for half of the processors.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn open() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let room = Self(Arc::default());
        for _ in 0..threads {
            let shared = Arc::clone(&room.0);
            std::thread::Builder::new().name("heavy".into()).stack_size(STACK).spawn(move || shared.work())?;
        }
        Ok(room)
    }

    /// Does a user's work in the room. Dropping the answer ends the work.
    ///
    /// # Errors
    /// Those of the work, and 429 when too many requests wait.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        user: &str,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (mut sender, answer) = oneshot::channel();
        let runtime = Handle::current();
        let job = move || {
            runtime.block_on(async move {
                let done = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    done = work => done,
                };
                // Who asked may have gone at the last moment.
                let _ = sender.send(done);
            });
        };
        self.0.line.lock().push(user, Box::new(job))?;
        self.0.changed.notify_one();
        answer.await.unwrap_or_else(|_| Err(ApiError::internal("the request ended without an answer")))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.line.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn users_take_turns_and_none_fills_the_line() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let job = |name: &'static str| -> Job {
            let order = Arc::clone(&order);
            Box::new(move || order.lock().push(name))
        };
        let mut line = Line::default();
        for _ in 0..WAITING_OF_ONE {
            line.push("a", job("a")).unwrap();
        }
        assert!(line.push("a", job("a")).is_err());
        line.push("b", job("b")).unwrap();
        line.push("c", job("c")).unwrap();
        while let Some(job) = line.pop() {
            job();
        }
        assert_eq!(*order.lock(), ["a", "b", "c", "a", "a", "a"]);
        assert_eq!((line.waiting, line.by_user.len()), (0, 0));
        for i in 0..WAITING {
            line.push(&format!("u{i}"), job("u")).unwrap();
        }
        assert!(line.push("v", job("v")).is_err());
    }

    #[tokio::test]
    async fn a_full_room_refuses_and_work_ends_with_its_client() {
        let room = Room::open().unwrap();
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let (entered, ended) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        struct Ends(Arc<AtomicUsize>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let endless = || {
            let (entered, guard) = (Arc::clone(&entered), Ends(Arc::clone(&ended)));
            async move {
                let _guard = guard;
                entered.notify_one();
                std::future::pending::<Result<(), ApiError>>().await
            }
        };
        {
            let users: Vec<String> = (0..threads).map(|i| format!("busy{i}")).collect();
            let mut busy = Box::pin(join_all(users.iter().map(|user| room.run(user, endless()))));
            for _ in 0..threads {
                tokio::select! { _ = &mut busy => unreachable!(), () = entered.notified() => {} }
            }
            let mut waiting = Box::pin(join_all((0..WAITING_OF_ONE).map(|_| room.run("a", endless()))));
            assert!(futures::poll!(&mut waiting).is_pending());
            let refused = room.run("a", async { Ok(()) }).await.unwrap_err();
            assert!(matches!(refused, ApiError::TooManyRequests { .. }), "{refused}");
        }
        // All clients are gone: what ran has ended, what waited never runs, and the room is free.
        assert_eq!(room.run("b", async { Ok(7) }).await.unwrap(), 7);
        let panics = room.run("b", async { if true { panic!("as meant") } else { Ok(()) } }).await;
        assert!(matches!(panics, Err(ApiError::Internal(_))));
        assert_eq!(room.run("b", async { Ok(8) }).await.unwrap(), 8);
        assert_eq!(ended.load(Ordering::SeqCst), threads + WAITING_OF_ONE);
    }
}
