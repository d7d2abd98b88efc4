//! The daemon's end of a connection to one shim: calls with answers, and what the shim tells.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::records::Exit;
use crate::shim::protocol::{Answer, Call, Failure, Message, NEWEST_VERSION, OLDEST_VERSION, Request};
use crate::sys::packet::{self, MESSAGE_MAX};
use crate::sys::pidfd::ProcessFd;
use crate::sys::watch::watch;

/// A shim answers at once unless it waits for the disk, where it writes logs and exit codes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer to a call and the descriptors that came with it.
type Reply = (Result<Answer, Failure>, Vec<OwnedFd>);

#[derive(Debug)]
pub(super) struct Connection {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Dropped senders tell those who wait that the shim is gone.
#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<Reply>>,
    commands: HashMap<u64, oneshot::Sender<i32>>,
    closed: bool,
}

#[derive(Debug)]
pub(super) enum CallError {
    /// The shim ended or hung up.
    Gone,
    Failed(Failure),
}

impl Connection {
    /// Connects, agrees on a version, and tells the shim's process id. A shim that does not answer is
    /// killed: a pod that nobody can stop is worse than one that is made anew.
    pub(super) async fn open(path: &Path) -> io::Result<(Arc<Self>, u32)> {
        let fd = packet::dial(path)?;
        let pid = getsockopt(&fd, PeerCredentials)?.pid().unsigned_abs();
        let process = ProcessFd::open(pid);
        let greeted = Self::greet_in_time(fd).await;
        if greeted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            // An error means that it has ended by itself.
            let _ = process.map(|process| process.kill());
        }
        Ok((Arc::new(greeted?), pid))
    }

    async fn greet_in_time(fd: OwnedFd) -> io::Result<Self> {
        let greeted = tokio::time::timeout(GREETING_TIMEOUT, Self::greet(fd)).await;
        greeted.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the shim does not answer")))
    }

    async fn greet(fd: OwnedFd) -> io::Result<Self> {
        let connection = Self { socket: watch(fd)?, next: AtomicU64::new(1), waiting: Mutex::default() };
        let hello = Request::Hello { oldest: OLDEST_VERSION, newest: NEWEST_VERSION };
        connection.send(&Call { id: 0, request: hello }, &[]).await?;
        match connection.receive().await? {
            Some((Message::Reply { id: 0, result: Ok(Answer::Hello { version }) }, _))
                if (OLDEST_VERSION..=NEWEST_VERSION).contains(&version) =>
            {
                Ok(connection)
            }
            other => Err(io::Error::other(format!("unexpected greeting: {other:?}"))),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), CallError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(CallError::Gone);
            }
            waiting.calls.insert(id, sender);
        }
        if let Err(error) = self.send(&Call { id, request }, fds).await {
            self.waiting.lock().calls.remove(&id);
            return Err(match error.raw_os_error() {
                Some(libc::EMSGSIZE) => CallError::Failed(Failure::Other("the command line is too long".to_owned())),
                _ => CallError::Gone,
            });
        }
        match receiver.await {
            Ok((Ok(answer), fds)) => Ok((answer, fds)),
            Ok((Err(failure), _)) => Err(CallError::Failed(failure)),
            Err(_) => Err(CallError::Gone),
        }
    }

    /// A new number for a command, and what will tell its exit code.
    pub(super) fn expect_command(&self) -> (u64, oneshot::Receiver<i32>) {
        let exec = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.commands.insert(exec, sender);
        }
        (exec, receiver)
    }

    pub(super) fn forget_command(&self, exec: u64) {
        self.waiting.lock().commands.remove(&exec);
    }

    /// Reads until the shim is gone; returns each container's end as it is told. One task does this.
    pub(super) async fn next_exit(&self) -> Option<(String, Exit)> {
        loop {
            let Ok(Some((message, fds))) = self.receive().await else {
                let mut waiting = self.waiting.lock();
                *waiting = Waiting { closed: true, ..Waiting::default() };
                return None;
            };
            match message {
                Message::Reply { id, result } => {
                    let caller = self.waiting.lock().calls.remove(&id);
                    // The caller may have given up.
                    caller.map(|caller| caller.send((result, fds)).ok());
                }
                Message::ExecExited { exec, code } => {
                    let waiting = self.waiting.lock().commands.remove(&exec);
                    waiting.map(|waiting| waiting.send(code).ok());
                }
                Message::ContainerExited { container, exit } => return Some((container, exit)),
            }
        }
    }

    async fn send(&self, call: &Call, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(call)?;
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| packet::send(socket.as_fd(), &bytes, fds)) {
                Ok(result) => return result,
                Err(_) => continue,
            }
        }
    }

    async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            // Made for each message: hundreds of idle connections must not hold buffers.
            let mut buffer = vec![0; MESSAGE_MAX];
            match ready.try_io(|socket| packet::receive(socket.as_fd(), &mut buffer)) {
                Ok(Ok(Some(received))) => {
                    let message = serde_json::from_slice(&buffer[..received.len])?;
                    return Ok(Some((message, received.fds)));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_does_not_answer_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.sock");
        let _silent = packet::listener(&path).unwrap();
        let error = Connection::greet_in_time(packet::dial(&path).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
