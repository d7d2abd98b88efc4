//! A thread of its own on which images are pulled. Who names an image names its registry, which may be
//! anybody's, and the client that speaks to it reads for as long as something comes. So the threads on
//! which everything else lives never drive such a connection.
//!
//! The thread is there while images are pulled and a while after, for as long as a registry's connections
//! are worth keeping.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

/// How often the thread is looked at: one that had nothing to do in between ends.
const LOOK: Duration = Duration::from_secs(60);

/// The thread, if it is there.
#[derive(Debug, Default)]
pub(crate) struct PullRoom(Arc<Mutex<Option<Thread>>>);

#[derive(Debug)]
struct Thread {
    handle: Handle,
    running: usize,
    /// Something ran since the thread was last looked at.
    used: bool,
}

/// Work that runs, until this is dropped.
struct Running(Arc<Mutex<Option<Thread>>>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.0.lock().as_mut() {
            thread.running -= 1;
        }
    }
}

impl PullRoom {
    /// Does the work on the thread. Dropping the answer ends the work; a panic in it goes on in the caller.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (handle, _running) = self.enter()?;
        let mut task = JoinSet::new();
        task.spawn_on(work, &handle);
        match task.join_next().await {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => Err(io::Error::other("the thread for pulls ended")),
        }
    }

    fn enter(&self) -> io::Result<(Handle, Running)> {
        let mut thread = self.0.lock();
        let thread = match &mut *thread {
            Some(thread) => thread,
            none => none.insert(Thread { handle: start(Arc::downgrade(&self.0))?, running: 0, used: true }),
        };
        thread.running += 1;
        thread.used = true;
        Ok((thread.handle.clone(), Running(Arc::clone(&self.0))))
    }
}

fn start(room: Weak<Mutex<Option<Thread>>>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let until_idle = async move {
        loop {
            tokio::time::sleep(LOOK).await;
            if room.upgrade().is_none_or(|thread| ends(&mut thread.lock())) {
                return;
            }
        }
    };
    let runtime = Arc::new(Mutex::new(Some(runtime)));
    let theirs = Arc::clone(&runtime);
    let work = move || {
        let runtime = theirs.lock().take();
        if let Some(runtime) = runtime {
            runtime.block_on(until_idle);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("pull".to_owned()).spawn(work) {
        // A runtime must not be dropped where others wait for it.
        runtime.lock().take().into_iter().for_each(Runtime::shutdown_background);
        return Err(error);
    }
    Ok(handle)
}

/// Takes a thread away that had nothing to do.
fn ends(thread: &mut Option<Thread>) -> bool {
    match thread {
        Some(at) if at.running > 0 || at.used => {
            at.used = false;
            false
        }
        Some(_) | None => {
            *thread = None;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_thread_of_its_own_that_ends_when_idle() {
        let room = PullRoom::default();
        let here = std::thread::current().id();
        let on_thread = || async { (std::thread::current().name().map(str::to_owned), std::thread::current().id()) };
        let (name, first) = room.run(on_thread()).await.unwrap();
        assert!(name.as_deref() == Some("pull") && first != here);
        assert_eq!(room.run(on_thread()).await.unwrap().1, first, "the same while it is used");
        assert!(!ends(&mut room.0.lock()), "it was used");
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let mut work = std::pin::pin!(room.run(held));
        assert!(futures::poll!(&mut work).is_pending());
        assert!(!ends(&mut room.0.lock()) && !ends(&mut room.0.lock()), "it works");
        release.send(()).unwrap();
        work.await.unwrap().unwrap();
        assert!(ends(&mut room.0.lock()));
        assert_ne!(room.run(on_thread()).await.unwrap().1, first);
    }

    #[tokio::test]
    async fn work_ends_with_whoever_waits_for_it() {
        let room = PullRoom::default();
        let (held, mut ended) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        {
            let mut work = std::pin::pin!(room.run(work));
            assert!(futures::poll!(&mut work).is_pending());
        }
        ended.close();
        (&mut ended).await.unwrap_err();
        assert_eq!(room.0.lock().as_ref().unwrap().running, 0);
    }
}
