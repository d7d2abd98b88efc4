//! Commands in running containers, and attaching to the containers themselves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use wire::Paced;

use super::Runtime;
use super::connection::Connection;
use super::state::Phase;
use super::streams::{Input, Output, Resizer, Streams, Target, Terminal};
use crate::contract::protocol::{Answer, Request, Streams as Wanted};
use crate::error::{Error, IoContext, Result};
use crate::types::{AttachRequest, ExecRequest, ExecResult};

/// As much as upstream keeps of a probe's output. Of each stream, the rest is read and dropped.
const CAPTURE_MAX: u64 = 10 << 10;
/// Something that the command started may hold its output open after its end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// For starting a command; a busy board with a slow card takes a second or two.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Slack for an attached reader; the shim drops what does not fit. The most that a pipe may hold
/// without privilege.
const ATTACH_BUFFER: i32 = 1 << 20;

/// A command that runs.
struct Started {
    exec: u64,
    streams: Streams,
}

/// Our ends of the pipes to a process, and the ends to hand over.
#[derive(Default)]
struct Pipes {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    theirs: Vec<OwnedFd>,
}

impl Pipes {
    fn new(wanted: Wanted) -> io::Result<Self> {
        let mut pipes = Self::default();
        if wanted.stdin {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            pipes.theirs.push(read);
            pipes.stdin = Some(Box::new(pipe::Sender::from_owned_fd(write)?));
        }
        for (wanted, ours) in [(wanted.stdout, &mut pipes.stdout), (wanted.stderr, &mut pipes.stderr)] {
            if wanted {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                pipes.theirs.push(write);
                *ours = Some(Box::new(pipe::Receiver::from_owned_fd(read)?));
            }
        }
        Ok(pipes)
    }

    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.theirs.iter().map(AsFd::as_fd).collect()
    }
}

impl Runtime {
    /// Runs a command and hands out its streams.
    pub async fn exec(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        let connection = self.connection(id)?;
        Ok(self.start_command(id, &connection, request).await?.streams)
    }

    async fn start_command(&self, id: &str, connection: &Arc<Connection>, request: ExecRequest) -> Result<Started> {
        let ExecRequest { command, tty, stdin, stdout, stderr } = request;
        let wanted = if tty { Wanted::default() } else { Wanted { stdin, stdout, stderr } };
        let pipes = Pipes::new(wanted).at("make pipes for", Path::new(id))?;
        let (exec, exit) = connection.expect_command();
        let call = Request::Exec { container: id.to_owned(), exec, command, tty, streams: wanted };
        let outcome = connection.call(call, &pipes.borrowed()).await;
        let Ok((Answer::Exec { .. }, fds)) = outcome else {
            connection.forget_command(exec);
            return Err(self.unexpected(id, outcome));
        };
        let Pipes { stdin: mut input, stdout: mut output, stderr: error, theirs } = pipes;
        drop(theirs);
        let mut resize = Resizer(Target::None);
        if let Some(master) = fds.into_iter().next() {
            let terminal = Terminal::new(master).at("use the terminal of", Path::new(id))?;
            input = stdin.then(|| Box::new(terminal.clone()) as Input);
            output = stdout.then(|| Box::new(terminal.clone()) as Output);
            resize = Resizer(Target::Command(terminal));
        }
        let gone = Error::SandboxNotReady(id.to_owned());
        let exit = Box::pin(async move { exit.await.map_err(|_: oneshot::error::RecvError| gone) });
        Ok(Started { exec, streams: Streams { stdin: input, stdout: output, stderr: error, resize, exit } })
    }

    /// Runs a command to its end and returns what it printed. When `timeout` passes, it is killed; zero
    /// is no limit. Starting it has a limit of its own: on a slow card it takes longer than many a probe
    /// allows, and in a container that is frozen it never ends.
    pub async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecResult> {
        let connection = self.connection(id)?;
        let request = ExecRequest { command: command.clone(), stdout: true, stderr: true, ..ExecRequest::default() };
        if timeout.is_zero() {
            return capture(self.start_command(id, &connection, request).await?.streams).await;
        }
        let late = || Error::ExecTimeout { command: command.clone() };
        let starting = self.start_command(id, &connection, request);
        let started = tokio::time::timeout(timeout.max(START_TIMEOUT), starting).await;
        let Started { exec, streams } = started.map_err(|_| late())??;
        match tokio::time::timeout(timeout, capture(streams)).await {
            Ok(result) => result,
            Err(_) => {
                let signal = Signal::SIGKILL as i32;
                let kill = Request::Signal { container: id.to_owned(), exec: Some(exec), signal };
                // It may have ended just now.
                let _ = connection.call(kill, &[]).await;
                Err(late())
            }
        }
    }

    /// Connects to the streams of a running container's own process.
    pub async fn attach(self: &Arc<Self>, id: &str, request: AttachRequest) -> Result<Streams> {
        let connection = self.connection(id)?;
        let tty = self.with_container(id, |container| container.record.config.tty)?;
        let AttachRequest { stdin, stdout, stderr } = request;
        let wanted = Wanted { stdin, stdout, stderr: stderr && !tty };
        let pipes = Pipes::new(wanted).at("make pipes for", Path::new(id))?;
        for output in pipes.theirs.iter().skip(usize::from(stdin)) {
            // Less slack than wished for is no reason to fail.
            let _ = fcntl(output, FcntlArg::F_SETPIPE_SZ(ATTACH_BUFFER));
        }
        let mut phase = self.with_container(id, |container| container.phase.subscribe())?;
        let call = Request::Attach { container: id.to_owned(), streams: wanted };
        let outcome = connection.call(call, &pipes.borrowed()).await;
        if outcome.is_err() {
            return Err(self.unexpected(id, outcome));
        }
        let target = Target::Container { runtime: Arc::downgrade(self), id: id.to_owned() };
        let name = id.to_owned();
        let exit = async move {
            match phase.wait_for(Phase::ended).await.map(|phase| phase.clone()) {
                Ok(Phase::Exited(exit)) => Ok(exit.code),
                Ok(Phase::Created | Phase::Running { .. } | Phase::Lost) | Err(_) => {
                    Err(Error::ContainerNotFound(name))
                }
            }
        };
        Ok(Streams {
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            resize: Resizer(if tty { target } else { Target::None }),
            exit: Box::pin(exit),
        })
    }
}

async fn capture(streams: Streams) -> Result<ExecResult> {
    let Streams { stdout, stderr, exit, .. } = streams;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit_code = {
        let reading = async { tokio::join!(collect(stdout, &mut out), collect(stderr, &mut err)) };
        tokio::pin!(reading);
        tokio::pin!(exit);
        tokio::select! {
            _ = &mut reading => exit.await?,
            code = &mut exit => {
                let code = code?;
                // What was read so far counts.
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
                code
            }
        }
    };
    Ok(ExecResult { stdout: out, stderr: err, exit_code })
}

async fn collect(stream: Option<Output>, into: &mut Vec<u8>) {
    async fn limited(stream: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
        // A command may write without end: its probe or hook is read in turns.
        let mut stream = Paced::turns(stream).take(CAPTURE_MAX);
        // A broken pipe ends the output; what came before it counts.
        let _ = stream.read_to_end(into).await;
        let _ = tokio::io::copy(&mut stream.into_inner(), &mut tokio::io::sink()).await;
    }
    if let Some(stream) = stream {
        limited(stream, into).await;
    }
}
