//! One container as its shim sees it: the process, its streams, its log, and who is attached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

use super::launch::Stdio;
use super::log::{LineBuffer, LogFile, Stream};
use crate::contract::protocol::ContainerNow;
use crate::contract::records::{ContainerRecord, Exit};
use crate::error::{IoContext, Result};

/// Input that waits for the container to read it; more is not read from those attached.
const INPUT_MAX: usize = 64 * 1024;

pub(super) struct Container {
    pub record: ContainerRecord,
    /// 0 until the process is made.
    pub pid: i32,
    pub started_at_ns: i64,
    pub exit: Option<Exit>,
    log: LogFile,
    outputs: Vec<Output>,
    input: Option<Input>,
    attachments: Vec<Attachment>,
}

struct Output {
    fd: OwnedFd,
    stream: Stream,
    lines: LineBuffer,
}

struct Input {
    fd: OwnedFd,
    pending: Vec<u8>,
    /// Close once `pending` is written.
    ending: bool,
}

#[derive(Default)]
pub(super) struct Attachment {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A descriptor of a container that the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Output(i32),
    Input,
    Attached(i32),
}

impl Container {
    /// Opens the log and makes the pipes; the second part is the container's ends.
    pub(super) fn new(record: ContainerRecord, log: LogFile) -> Result<(Self, Stdio)> {
        let mut container = Self {
            record,
            pid: 0,
            started_at_ns: 0,
            exit: None,
            log,
            outputs: vec![],
            input: None,
            attachments: vec![],
        };
        if container.record.config.tty {
            return Ok((container, Stdio::default()));
        }
        let path = container.record.config.log_path.clone();
        let pipe = || pipe2(OFlag::O_CLOEXEC).at("make pipes for", &path);
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        container.add_output(out, Stream::Stdout)?;
        container.add_output(err, Stream::Stderr)?;
        let mut stdio = Stdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
        if container.record.config.stdin {
            let (stdin, input) = pipe()?;
            nonblocking(input.as_fd()).at("make pipes for", &path)?;
            container.input = Some(Input { fd: input, pending: vec![], ending: false });
            stdio.stdin = Some(stdin);
        }
        Ok((container, stdio))
    }

    fn add_output(&mut self, fd: OwnedFd, stream: Stream) -> Result<()> {
        nonblocking(fd.as_fd()).at("make pipes for", &self.record.config.log_path)?;
        self.outputs.push(Output { fd, stream, lines: LineBuffer::default() });
        Ok(())
    }

    pub(super) fn started(&mut self, pid: i32, terminal: Option<OwnedFd>, now: Timestamp) -> Result<()> {
        self.pid = pid;
        self.started_at_ns = nanoseconds(now);
        if let Some(terminal) = terminal {
            if self.record.config.stdin {
                let input = terminal.try_clone().at("copy the terminal of", &self.record.config.log_path)?;
                self.input = Some(Input { fd: input, pending: vec![], ending: false });
            }
            self.add_output(terminal, Stream::Stdout)?;
        }
        Ok(())
    }

    pub(super) fn running(&self) -> bool {
        self.pid > 0 && self.exit.is_none()
    }

    pub(super) fn now(&self) -> ContainerNow {
        ContainerNow {
            id: self.record.id.clone(),
            pid: self.pid,
            started_at_ns: self.started_at_ns,
            exit: self.exit.clone(),
        }
    }

    /// The terminal's master.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs.first().filter(|_| self.record.config.tty).map(|output| output.fd.as_fd())
    }

    pub(super) fn attach(&mut self, attachment: Attachment) -> io::Result<()> {
        for fd in [&attachment.stdin, &attachment.stdout, &attachment.stderr].into_iter().flatten() {
            nonblocking(fd.as_fd())?;
        }
        self.attachments.push(attachment);
        Ok(())
    }

    /// What to wait for, and whether to write (else to read).
    pub(super) fn sources(&self) -> Vec<(BorrowedFd<'_>, Source, bool)> {
        let mut sources = Vec::new();
        for output in &self.outputs {
            sources.push((output.fd.as_fd(), Source::Output(output.fd.as_raw_fd()), false));
        }
        let pending = self.input.as_ref().map_or(0, |input| input.pending.len());
        if let Some(input) = self.input.as_ref().filter(|input| !input.pending.is_empty()) {
            sources.push((input.fd.as_fd(), Source::Input, true));
        }
        if pending < INPUT_MAX {
            for stdin in self.attachments.iter().filter_map(|attachment| attachment.stdin.as_ref()) {
                sources.push((stdin.as_fd(), Source::Attached(stdin.as_raw_fd()), false));
            }
        }
        sources
    }

    /// Serves one source that is ready.
    pub(super) fn ready(&mut self, source: Source, buffer: &mut [u8], scratch: &mut Vec<u8>) {
        match source {
            Source::Output(fd) => {
                self.copy_output(fd, buffer, scratch);
            }
            Source::Input => self.flush_input(),
            Source::Attached(fd) => self.copy_input(fd, buffer),
        }
    }

    /// Reads once; false when nothing came.
    fn copy_output(&mut self, fd: i32, buffer: &mut [u8], scratch: &mut Vec<u8>) -> bool {
        let Some(index) = self.outputs.iter().position(|output| output.fd.as_raw_fd() == fd) else { return false };
        let output = &mut self.outputs[index];
        let now = Timestamp::now();
        scratch.clear();
        let len = match read(&output.fd, buffer) {
            Ok(0) => 0,
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return false,
            // A terminal answers EIO once nobody holds its other side.
            Err(_) => 0,
        };
        if len > 0 {
            output.lines.push(output.stream, &buffer[..len], now, scratch);
        } else {
            output.lines.finish(output.stream, now, scratch);
        }
        self.log.write(scratch);
        let stream = output.stream;
        if len == 0 {
            self.outputs.remove(index);
        } else {
            self.fan_out(stream, &buffer[..len]);
        }
        len > 0
    }

    /// What an attached reader does not take in time it misses; the log has it. Waiting for it would
    /// let one stuck client stop the container.
    fn fan_out(&mut self, stream: Stream, chunk: &[u8]) {
        for attachment in &mut self.attachments {
            let target = match stream {
                Stream::Stdout => &mut attachment.stdout,
                Stream::Stderr => &mut attachment.stderr,
            };
            if let Some(fd) = target {
                match write(&*fd, chunk) {
                    Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(_) => *target = None,
                }
            }
        }
        self.attachments.retain(|a| a.stdin.is_some() || a.stdout.is_some() || a.stderr.is_some());
    }

    fn copy_input(&mut self, fd: i32, buffer: &mut [u8]) {
        let holder = self
            .attachments
            .iter_mut()
            .find(|attachment| attachment.stdin.as_ref().is_some_and(|stdin| stdin.as_raw_fd() == fd));
        let Some(attachment) = holder else { return };
        let Some(stdin) = &attachment.stdin else { return };
        match read(stdin, buffer) {
            Ok(len) if len > 0 => {
                if let Some(input) = &mut self.input {
                    input.pending.extend_from_slice(&buffer[..len]);
                }
                self.flush_input();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(_) | Err(_) => {
                attachment.stdin = None;
                if self.record.config.stdin_once {
                    self.end_input();
                }
            }
        }
    }

    /// Ends the container's input after what is pending. A terminal has no end of file of its own.
    fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ending = true;
        }
        self.flush_input();
    }

    fn flush_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.pending.is_empty() {
            match write(&input.fd, &input.pending) {
                Ok(len) => drop(input.pending.drain(..len)),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.ending {
            self.input = None;
        }
    }

    /// Takes what the streams still hold once the process has ended.
    pub(super) fn drain(&mut self, buffer: &mut [u8], scratch: &mut Vec<u8>) {
        for fd in self.outputs.iter().map(|output| output.fd.as_raw_fd()).collect::<Vec<_>>() {
            while self.copy_output(fd, buffer, scratch) {}
        }
        self.input = None;
        self.attachments.clear();
    }
}

pub(super) fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

pub(super) fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
