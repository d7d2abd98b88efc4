//! The shim's loop: waits for the daemon, the containers' streams, and the ends of processes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::children::{self, Helper};
use super::container::{Attachment, Container, Source, nanoseconds};
use super::exec::{self, Command};
use super::launch::{self, Pod, Stdio};
use super::log::LogFile;
use super::pause::Pause;
use crate::cgroup::Cgroups;
use crate::contract::held::HeldRecords;
use crate::contract::protocol::{
    Answer, Call, Failure, Message, OLDEST_VERSION, REAL_TIME_SINCE, Request, START_RECORD_SINCE, Streams,
};
use crate::contract::records::{ContainerRecord, Exit, SandboxPaths, SandboxRecord, cgroup_path};
use crate::durable::{self, Durability};
use crate::error::{Error, IoContext, Result};
use crate::sys::memory;
use crate::sys::packet::{self, MESSAGE_MAX};
use crate::sys::process::{self, Ended};

/// Read from a stream at a time.
const CHUNK: usize = 16 * 1024;
/// Without anything to do for a second, in milliseconds: what was used last is mostly what comes next, and memory
/// that is given back between the two has to be got again.
const QUIET: u16 = 1000;
/// As other runtimes tell of a limit that not even the start fits into.
const TOO_LITTLE_MEMORY: &str =
    "unable to start container process: container init was OOM-killed (memory limit too low?)";
/// What the kernel says where a limit leaves no memory for a cgroup or a process, or is below what is used.
const NO_MEMORY: [&str; 2] = ["Cannot allocate memory", "memory.limit_in_bytes: Device or resource busy"];
/// As other runtimes report a process that never ran.
const NEVER_RAN: i32 = 128;

pub(super) struct Server {
    /// The newest one of the protocol that it speaks.
    version: u32,
    record: SandboxRecord,
    paths: SandboxPaths,
    cgroups: Cgroups,
    /// Of a pid namespace that the containers share.
    pause: Option<Pause>,
    listener: OwnedFd,
    signals: SignalFd,
    clients: Vec<Client>,
    containers: HashMap<String, Container>,
    helpers: Vec<Helper<Job>>,
    commands: Vec<RunningCommand>,
    next: u64,
    /// Something came to an end that leaves memory behind.
    untrimmed: bool,
    done: bool,
}

struct Client {
    number: u64,
    fd: OwnedFd,
}

/// Why a child was forked, and who waits for the answer.
struct Job {
    client: u64,
    call: u64,
    work: Work,
}

enum Work {
    Start { container: String },
    Exec { container: String, exec: u64 },
}

/// A command in a container.
struct RunningCommand {
    pid: i32,
    client: u64,
    exec: u64,
    container: String,
}

/// What one wake-up of the loop is about.
enum Ready {
    Listener,
    Signal,
    Client(u64),
    Helper(Pid),
    Container(String, Source),
}

/// What a call leads to at once.
enum Next {
    Answer(Answer, Vec<OwnedFd>),
    /// The answer comes when a child has reported.
    Later,
}

impl Server {
    pub(super) fn new(record: SandboxRecord, paths: SandboxPaths, version: u32) -> Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        mask.thread_block().at("block signals for", &paths.run)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let share_pid = record.config.share_pid && !record.config.host_pid;
        Ok(Self {
            pause: share_pid.then(Pause::start).transpose()?,
            signals: SignalFd::with_flags(&mask, flags).at("wait for signals for", &paths.run)?,
            listener: packet::listener(&paths.socket()).at("listen on", &paths.socket())?,
            cgroups: Cgroups::detect()?,
            version,
            record,
            paths,
            clients: vec![],
            containers: HashMap::new(),
            helpers: vec![],
            commands: vec![],
            next: 0,
            untrimmed: true,
            done: false,
        })
    }

    pub(super) fn run(&mut self) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut scratch = Vec::new();
        while !self.done {
            let Some(found) = self.wait()? else {
                memory::trim_memory();
                self.untrimmed = false;
                continue;
            };
            for ready in found {
                match ready {
                    Ready::Listener => self.accept(),
                    Ready::Signal => self.reap(&mut buffer, &mut scratch),
                    Ready::Client(number) => self.serve(number),
                    Ready::Helper(pid) => self.finish_helper(pid),
                    Ready::Container(id, source) => {
                        if let Some(container) = self.containers.get_mut(&id) {
                            container.ready(source, &mut buffer, &mut scratch);
                        }
                    }
                }
            }
        }
        durable::remove_file(&self.paths.socket())
    }

    /// What there is to do; nothing when it is quiet for the first time after something that leaves memory.
    fn wait(&self) -> Result<Option<Vec<Ready>>> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut meanings = vec![Ready::Signal, Ready::Listener];
        let mut add = |fd, meaning, events| {
            fds.push(PollFd::new(fd, events));
            meanings.push(meaning);
        };
        for client in &self.clients {
            add(client.fd.as_fd(), Ready::Client(client.number), PollFlags::POLLIN);
        }
        for helper in &self.helpers {
            add(helper.report.as_fd(), Ready::Helper(helper.pid), PollFlags::POLLIN);
        }
        for (id, container) in &self.containers {
            for (fd, source, write) in container.sources() {
                let events = if write { PollFlags::POLLOUT } else { PollFlags::POLLIN };
                add(fd, Ready::Container(id.clone(), source), events);
            }
        }
        let timeout = if self.untrimmed { PollTimeout::from(QUIET) } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).at("wait for", &self.paths.run),
        }
        let ready = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>();
        let found = meanings.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(meaning, _)| meaning);
        let mut found = found.collect::<Vec<_>>();
        // A container's output is read before its end is noticed, reports of children before deaths.
        found.sort_by_key(|ready| match ready {
            Ready::Container(..) => 0,
            Ready::Helper(_) => 1,
            Ready::Signal => 2,
            Ready::Listener | Ready::Client(_) => 3,
        });
        Ok(Some(found))
    }

    fn accept(&mut self) {
        if let Ok(fd) = packet::accept(self.listener.as_fd()) {
            self.next += 1;
            self.clients.push(Client { number: self.next, fd });
        }
    }

    /// Takes one call of a client; whoever hangs up or breaks the protocol is let go.
    fn serve(&mut self, number: u64) {
        let Some(client) = self.clients.iter().find(|client| client.number == number) else { return };
        let mut buffer = vec![0; MESSAGE_MAX];
        let received = match packet::receive(client.fd.as_fd(), &mut buffer) {
            Ok(Some(received)) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => return self.clients.retain(|client| client.number != number),
        };
        let call = serde_json::from_slice::<Call>(&buffer[..received.len]).ok();
        let Some(call) = call.filter(|call| call.request.since() <= self.version) else {
            return self.clients.retain(|client| client.number != number);
        };
        drop(buffer);
        let id = call.id;
        match self.handle(number, call, received.fds) {
            Ok(Next::Answer(answer, fds)) => self.reply(number, id, Ok(answer), &fds),
            Ok(Next::Later) => {}
            Err(failure) => self.reply(number, id, Err(failure), &[]),
        }
    }

    fn handle(&mut self, client: u64, call: Call, fds: Vec<OwnedFd>) -> Result<Next, Failure> {
        let answer = match call.request {
            Request::Hello { oldest, newest } => {
                let version = newest.min(self.version);
                if version < oldest.max(OLDEST_VERSION) {
                    return Err(Failure::Version);
                }
                Answer::Hello { version }
            }
            Request::State => Answer::State {
                containers: self.containers.values().filter(|c| c.pid > 0).map(Container::now).collect(),
            },
            Request::Records => {
                let containers = self.containers.values().map(|c| (&c.record, c.now()));
                let records = HeldRecords::send(&self.record, containers);
                let records = records.map_err(|error| Failure::Other(error.to_string()))?;
                return Ok(Next::Answer(Answer::Records, vec![records]));
            }
            Request::Start { container } => return self.start(client, call.id, container),
            Request::Signal { container, exec, signal } => self.signal(client, &container, exec, signal)?,
            Request::Exec { container, exec, command, tty, streams } => {
                let stdio = take(streams, fds);
                return self.exec(client, call.id, container, exec, command, tty, stdio);
            }
            Request::Attach { container, streams } => {
                let Stdio { stdin, stdout, stderr } = take(streams, fds);
                let attachment = Attachment { stdin, stdout, stderr };
                self.running(&container)?.attach(attachment).map_err(|e| Failure::Other(e.to_string()))?;
                Answer::Done
            }
            Request::Resize { container, size } => {
                if let Some(terminal) = self.running(&container)?.terminal() {
                    let resized = process::resize(terminal, size.columns, size.rows);
                    resized.map_err(|error| Failure::Other(error.to_string()))?;
                }
                Answer::Done
            }
            Request::Forget { container } => {
                if self.containers.get(&container).is_some_and(Container::running) {
                    return Err(Failure::Other("the container is running".to_owned()));
                }
                self.containers.remove(&container);
                self.untrimmed = true;
                Answer::Done
            }
            Request::Shutdown => {
                self.done = true;
                Answer::Done
            }
        };
        Ok(Next::Answer(answer, vec![]))
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, Failure> {
        match self.containers.get_mut(id) {
            Some(container) if container.running() => Ok(container),
            Some(_) => Err(Failure::NotRunning),
            None => Err(Failure::NotFound),
        }
    }

    /// The pid namespace of the running container of that name. Opened here, where the process is a
    /// child that is not buried yet: nobody else can have its number.
    fn processes_of(&self, name: &str) -> Result<OwnedFd, Failure> {
        let found = self.containers.values().find(|c| c.running() && c.record.config.name == name);
        let pid = found.ok_or_else(|| Failure::Start(format!("unable to find target container {name:?}")))?.pid;
        let path = format!("/proc/{pid}/ns/pid");
        let opened = File::open(&path).at("open", Path::new(&path));
        opened.map(OwnedFd::from).map_err(|error| Failure::Start(error.to_string()))
    }

    fn start(&mut self, client: u64, call: u64, id: String) -> Result<Next, Failure> {
        if self.containers.contains_key(&id) {
            return Err(Failure::AlreadyStarted);
        }
        let failed = |error: Error| Failure::Start(error.to_string());
        let record = self.take_record(&id).map_err(failed)?;
        let path = &record.config.log_path;
        let log = LogFile::open(path, self.record.log_limit).at("open the log", path).map_err(failed)?;
        let target = record.config.processes_of.as_deref().map(|name| self.processes_of(name)).transpose()?;
        let (container, stdio) = Container::new(record, log).map_err(failed)?;
        let job = Job { client, call, work: Work::Start { container: id.clone() } };
        let joined = self.pause.as_ref().map(Pause::namespace).or(target.as_ref().map(AsFd::as_fd));
        let joined = joined.map(|namespace| namespace.as_raw_fd());
        let keep = stdio.raw().chain(joined).collect::<Vec<_>>();
        let pid_namespace = joined.map(|fd| PathBuf::from(format!("/proc/self/fd/{fd}")));
        let helper = children::start(job, &keep, || {
            let pod = Pod {
                config: &self.record.config,
                paths: &self.paths,
                cgroups: &self.cgroups,
                pid_namespace: pid_namespace.as_deref(),
            };
            let launched = launch::launch(&pod, &container.record, stdio)?;
            Ok((launched.pid, launched.terminal))
        });
        self.helpers.push(helper.map_err(failed)?);
        self.containers.insert(id, container);
        Ok(Next::Later)
    }

    /// The record of a container that is to be started. The copy with its environment goes now.
    fn take_record(&self, id: &str) -> Result<ContainerRecord> {
        let files = self.paths.container(id);
        if self.version >= START_RECORD_SINCE
            && let Some(record) = durable::read_handed_over::<ContainerRecord>(&files.start_record())?
        {
            durable::remove_file(&files.start_record())?;
            return Ok(record);
        }
        let record = durable::read::<ContainerRecord>(&files.record())?;
        if record.bare {
            return Err(Error::Start("the container's environment and command line are gone".to_owned()));
        }
        Ok(record)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request, taken apart by its only caller")]
    fn exec(
        &mut self,
        client: u64,
        call: u64,
        container: String,
        exec: u64,
        command: Vec<String>,
        tty: bool,
        stdio: Stdio,
    ) -> Result<Next, Failure> {
        let record = self.running(&container)?.record.clone();
        let keep = stdio.raw().collect::<Vec<_>>();
        let job = Job { client, call, work: Work::Exec { container, exec } };
        self.next += 1;
        let name = format!("exec-{}", self.next);
        let helper = children::start(job, &keep, || {
            let running = exec::exec(&self.paths, &record, Command { name: &name, command, tty }, stdio)?;
            Ok((running.pid, running.terminal))
        });
        self.helpers.push(helper.map_err(|error| Failure::Start(error.to_string()))?);
        Ok(Next::Later)
    }

    fn signal(&mut self, client: u64, container: &str, exec: Option<u64>, signal: i32) -> Result<Answer, Failure> {
        if self.version < REAL_TIME_SINCE {
            Signal::try_from(signal).map_err(|error| Failure::Other(error.to_string()))?;
        }
        let pid = match exec {
            None => self.running(container)?.pid,
            Some(exec) => {
                let mine = |command: &&RunningCommand| {
                    command.client == client && command.exec == exec && command.container == container
                };
                self.commands.iter().find(mine).ok_or(Failure::NotRunning)?.pid
            }
        };
        // Our own child and not yet reaped, so the number cannot have passed to another process.
        process::send_signal(Pid::from_raw(pid), signal).map_err(|error| Failure::Other(error.to_string()))?;
        Ok(Answer::Done)
    }

    /// Takes a child's report; its own end is noticed by `reap`.
    fn finish_helper(&mut self, pid: Pid) {
        let Some(index) = self.helpers.iter().position(|helper| helper.pid == pid) else { return };
        let helper = self.helpers.swap_remove(index);
        let outcome = helper.outcome();
        let Job { client, call, work } = helper.job;
        match work {
            Work::Start { container } => self.finish_start(client, call, &container, outcome),
            Work::Exec { container, exec } => match outcome {
                Ok((pid, terminal)) => {
                    self.commands.push(RunningCommand { pid, client, exec, container });
                    let fds = terminal.into_iter().collect::<Vec<_>>();
                    self.reply(client, call, Ok(Answer::Exec { pid }), &fds);
                }
                Err(text) => self.reply(client, call, Err(Failure::Start(text)), &[]),
            },
        }
    }

    fn finish_start(&mut self, client: u64, call: u64, id: &str, outcome: children::Outcome) {
        let now = Timestamp::now();
        self.untrimmed = true;
        let Some(container) = self.containers.get_mut(id) else { return };
        let limits = [&container.record.config.resources, &self.record.config.resources];
        let limited = limits.iter().any(|resources| resources.memory_limit_bytes.is_some());
        let started = outcome.and_then(|(pid, terminal)| {
            container.started(pid, terminal, now).map(|()| pid).map_err(|error| error.to_string())
        });
        match started {
            Ok(pid) => self.reply(client, call, Ok(Answer::Started { pid, at_ns: nanoseconds(now) }), &[]),
            Err(text) => {
                let killed = self.cgroups.oom_kills(&cgroup_path(&self.record.config, id)) > 0;
                let starved = killed || limited && NO_MEMORY.iter().any(|sign| text.contains(sign));
                let text = if starved { TOO_LITTLE_MEMORY.to_owned() } else { text };
                // A child that died before it could say so leaves its container waiting for a start.
                let _ = self.cgroups.signal_all(&cgroup_path(&self.record.config, id), Signal::SIGKILL);
                let _ = fs::remove_dir_all(self.paths.state_root().join(id));
                let exit = Exit {
                    started_at_ns: None,
                    finished_at_ns: nanoseconds(now),
                    code: NEVER_RAN,
                    signal: None,
                    oom_killed: false,
                    error: Some(text.clone()),
                };
                // If it cannot be written, the answer still tells it.
                let _ = durable::write(&self.paths.container(id).exit(), &exit, Durability::Synced);
                self.containers.remove(id);
                self.reply(client, call, Err(Failure::Start(text)), &[]);
            }
        }
    }

    /// Buries processes: containers, commands, children that reported, and orphans.
    fn reap(&mut self, buffer: &mut [u8], scratch: &mut Vec<u8>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            // Sent by a person or a tool; the pod ends by the daemon's word only.
            let _ = signal;
        }
        while let Some(Ended { pid, code, signal }) = process::bury_one() {
            // A helper's report names processes that may be next in line.
            self.finish_helper(pid);
            let id = self.containers.iter().find(|(_, c)| c.pid == pid.as_raw() && c.running()).map(|(id, _)| id);
            if let Some(id) = id.cloned() {
                self.container_ended(&id, code, signal, buffer, scratch);
            }
            if let Some(index) = self.commands.iter().position(|command| command.pid == pid.as_raw()) {
                let command = self.commands.swap_remove(index);
                self.send(command.client, &Message::ExecExited { exec: command.exec, code }, &[]);
            }
            // The kernel ends it after everything else in its namespace, so all ends are told by now. Nothing can
            // be started in that namespace any more: the sandbox has ended, and the daemon learns it from our end.
            self.done |= self.pause.as_ref().is_some_and(|pause| pause.pid() == pid);
        }
    }

    fn container_ended(&mut self, id: &str, code: i32, signal: Option<i32>, buffer: &mut [u8], scratch: &mut Vec<u8>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let cgroup = cgroup_path(&self.record.config, id);
        let guest = container.record.config.processes_of.is_some();
        if guest || self.pause.is_some() || self.record.config.host_pid {
            // Nobody else ends what a container leaves behind in a shared pid namespace.
            let _ = self.cgroups.signal_all(&cgroup, Signal::SIGKILL);
        }
        container.drain(buffer, scratch);
        let exit = Exit {
            started_at_ns: Some(container.started_at_ns),
            finished_at_ns: nanoseconds(Timestamp::now()),
            code,
            signal,
            oom_killed: self.cgroups.oom_kills(&cgroup) > 0,
            error: None,
        };
        container.exit = Some(exit.clone());
        let paths = self.paths.container(id);
        // On a full disk the daemon still learns it from us while we live.
        let _ = durable::write(&paths.exit(), &exit, Durability::Synced);
        let _ = fs::remove_dir_all(&paths.run);
        let _ = fs::remove_dir_all(self.paths.state_root().join(id));
        let message = Message::ContainerExited { container: id.to_owned(), exit };
        for client in self.clients.iter().map(|client| client.number).collect::<Vec<_>>() {
            self.send(client, &message, &[]);
        }
        self.untrimmed = true;
    }

    fn reply(&mut self, client: u64, id: u64, result: Result<Answer, Failure>, fds: &[OwnedFd]) {
        self.send(client, &Message::Reply { id, result }, fds);
    }

    /// A client that does not read is let go; it finds everything in `State` when it comes back.
    fn send(&mut self, number: u64, message: &Message, fds: &[OwnedFd]) {
        let Some(client) = self.clients.iter().find(|client| client.number == number) else { return };
        let bytes = serde_json::to_vec(message).expect("invariant: messages are plain data");
        let fds = fds.iter().map(AsFd::as_fd).collect::<Vec<BorrowedFd<'_>>>();
        if packet::send(client.fd.as_fd(), &bytes, &fds).is_err() {
            self.clients.retain(|client| client.number != number);
        }
    }
}

/// Descriptors in the order of the streams that they are for.
fn take(streams: Streams, fds: Vec<OwnedFd>) -> Stdio {
    let mut fds = fds.into_iter();
    let mut next = |wanted: bool| if wanted { fds.next() } else { None };
    Stdio { stdin: next(streams.stdin), stdout: next(streams.stdout), stderr: next(streams.stderr) }
}
