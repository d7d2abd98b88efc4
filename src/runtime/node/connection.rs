//! The daemon's end of a connection to one shim: calls with answers, and what the shim tells.
//!
//! A shim that is gone and one that cannot be reached are different things: only the former's containers
//! may be taken for ended.

use std::collections::HashMap;
use std::fs::File;
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

use crate::contract::protocol::{Answer, Call, Failure, Message, NEWEST_VERSION, OLDEST_VERSION, Request};
use crate::contract::records::Exit;
use crate::sys::packet::{self, MESSAGE_MAX};
use crate::sys::pidfd::ProcessFd;
use crate::sys::watch::watch;

/// The answer to a call and the descriptors that came with it.
type Reply = (Result<Answer, Failure>, Vec<OwnedFd>);

#[derive(Debug)]
pub(super) struct Connection {
    socket: AsyncFd<OwnedFd>,
    /// What both sides speak.
    pub version: u32,
    /// What is asked before anybody listens has this much time.
    timeout: Duration,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// The process at the other end.
#[derive(Debug)]
pub(super) struct ShimProcess {
    pub pid: u32,
    pub fd: ProcessFd,
}

impl ShimProcess {
    /// The network namespace that it holds.
    pub(super) fn network_namespace(&self) -> io::Result<File> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid))?;
        // Asked afterwards: then the number was the shim's when the file was opened.
        if self.fd.has_its_number() { Ok(namespace) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Nobody listens. The shim has ended, unless somebody took its socket away (`Runtime::open_shim`).
    Gone,
    /// It may live, and the pod with it.
    Unclear(io::Error),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("its shim is gone"),
            Self::Unclear(error) => write!(f, "its shim cannot be reached: {error}"),
        }
    }
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
    /// Connects, agrees on a version, and finds the shim's process. One that does not answer in time may
    /// wait for a slow disk, and its containers run: nothing is done to it.
    pub(super) async fn open(path: &Path, timeout: Duration) -> Result<(Arc<Self>, ShimProcess), OpenError> {
        let fd = packet::dial(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => OpenError::Gone,
            _ => OpenError::Unclear(error),
        })?;
        let pid = getsockopt(&fd, PeerCredentials).map_err(|error| OpenError::Unclear(error.into()))?;
        let pid = pid.pid().unsigned_abs();
        // Found before the greeting: whoever answers that is the process that has the number now.
        let process = ProcessFd::open(pid).map_err(OpenError::Unclear)?.ok_or(OpenError::Gone)?;
        let process = ShimProcess { pid, fd: process };
        let greeted = tokio::time::timeout(timeout, Self::greet(fd, timeout)).await;
        match greeted.unwrap_or_else(|_| Err(late())) {
            Ok(connection) => Ok((Arc::new(connection), process)),
            Err(_) if process.fd.is_ending().await => Err(OpenError::Gone),
            Err(error) => Err(OpenError::Unclear(error)),
        }
    }

    async fn greet(fd: OwnedFd, timeout: Duration) -> io::Result<Self> {
        let mut connection =
            Self { socket: watch(fd)?, version: 0, timeout, next: AtomicU64::new(1), waiting: Mutex::default() };
        let hello = Request::Hello { oldest: OLDEST_VERSION, newest: NEWEST_VERSION };
        connection.send(&Call { id: 0, request: hello }, &[]).await?;
        match connection.receive().await? {
            Some((Message::Reply { id: 0, result: Ok(Answer::Hello { version }) }, _))
                if (OLDEST_VERSION..=NEWEST_VERSION).contains(&version) =>
            {
                connection.version = version;
                Ok(connection)
            }
            Some((Message::Reply { id: 0, result: Err(Failure::Version) }, _)) => {
                let text = format!(
                    "it speaks none of the versions {OLDEST_VERSION} to {NEWEST_VERSION} of the protocol: start a \
                     coracle that is as new as the one that made it"
                );
                Err(io::Error::other(text))
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(_) => Err(io::Error::other("it gave an unexpected greeting")),
        }
    }

    /// A call before anybody listens: what the shim tells in between is dropped, being in its state too.
    pub(super) async fn ask(&self, request: Request) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let call = self.call(request, &[]);
        tokio::pin!(call);
        let answered = async {
            loop {
                tokio::select! {
                    answer = &mut call => return answer,
                    // The last thing that it said may be the answer; otherwise the call knows by now.
                    exit = self.next_exit() => if exit.is_none() { return call.await },
                }
            }
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(CallError::Gone)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(CallError::Failed(failure))) => Err(io::Error::other(failure.to_string())),
            Err(_) => Err(late()),
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

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the shim does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A shim of the first release, by the words that it would say.
    fn first_shim(path: &Path, replies: usize) -> std::thread::JoinHandle<Vec<String>> {
        let listener = packet::listener(path).unwrap();
        let lines = include_str!("../contract/golden/messages-1.jsonl").lines().take(replies);
        let words =
            lines.enumerate().map(|(n, line)| line.replace("\"id\":7", &format!("\"id\":{n}"))).collect::<Vec<_>>();
        std::thread::spawn(move || {
            let wait = |fd: BorrowedFd<'_>| {
                let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
                nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
            };
            wait(listener.as_fd());
            let client = packet::accept(listener.as_fd()).unwrap();
            let mut heard = Vec::new();
            for line in words {
                wait(client.as_fd());
                let mut buffer = vec![0; MESSAGE_MAX];
                let len = packet::receive(client.as_fd(), &mut buffer).unwrap().unwrap().len;
                heard.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
                packet::send(client.as_fd(), line.as_bytes(), &[]).unwrap();
            }
            heard
        })
    }

    #[tokio::test]
    async fn a_shim_of_the_first_release_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.sock");
        let shim = first_shim(&path, 2);
        let (connection, process) = Connection::open(&path, PATIENCE).await.unwrap();
        assert_eq!((connection.version, process.pid), (1, std::process::id()));
        let (answer, _) = connection.ask(Request::State).await.unwrap();
        let Answer::State { containers } = answer else { panic!("{answer:?}") };
        assert_eq!(containers.iter().map(|container| container.pid).collect::<Vec<_>>(), [4711, 4711]);
        let heard = shim.join().unwrap();
        assert_eq!(heard, [r#"{"id":0,"request":{"Hello":{"oldest":1,"newest":2}}}"#, r#"{"id":1,"request":"State"}"#]);
    }

    #[tokio::test]
    async fn only_a_shim_that_nobody_listens_for_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        drop(packet::listener(&at("stale")).unwrap());
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        for (name, gone) in [("absent", true), ("stale", true), ("loop", false)] {
            let error = Connection::open(&at(name), PATIENCE).await.unwrap_err();
            assert_eq!(matches!(error, OpenError::Gone), gone, "{name}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_does_not_answer_is_neither_waited_for_nor_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.sock");
        let _silent = packet::listener(&path).unwrap();
        // The process at the other end is this one: a signal would end the test.
        let error = Connection::open(&path, PATIENCE).await.unwrap_err();
        assert_eq!(error.to_string(), "its shim cannot be reached: the shim does not answer");
        assert!(matches!(error, OpenError::Unclear(_)));
    }
}
