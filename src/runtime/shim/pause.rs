//! The first process of a pid namespace that a pod's containers share: it buries orphans, and ends
//! when the shim does, which ends everything in the namespace.
//!
//! The namespace is held open: should its first process die, containers that join it fail, instead of
//! entering the namespace of whoever got its number. The kernel ends everything in a namespace with its first
//! process and makes nothing in it afterwards, so the shim ends then (`server`), and the pod gets another sandbox.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::launch::set_oom_score;
use crate::error::{Error, IoContext, Result};
use crate::sys::{memory, packet, process};

/// As other runtimes give the process that holds a pod: after all containers, before its shim.
const OOM_SCORE: i32 = -998;

/// Keeps the namespace's first process alive.
pub(super) struct Pause {
    pid: Pid,
    namespace: OwnedFd,
    _life: OwnedFd,
}

impl Pause {
    /// Starts it.
    ///
    /// `unshare` moves only later children into the new namespace, so a short-lived process in
    /// between keeps the shim's own children out of it.
    pub(super) fn start() -> Result<Self> {
        let at = Path::new("/proc/self/ns/pid");
        let (ours, theirs) = packet::pair().at("make a socket for", at)?;
        let (death, life) = pipe2(OFlag::O_CLOEXEC).at("make a pipe for", at)?;
        let middle = process::fork_child(|| {
            if unshare(CloneFlags::CLONE_NEWPID).is_err() {
                return 1;
            }
            let Ok(pid) = process::fork_child(|| run(&death)) else { return 1 };
            i32::from(packet::send(theirs.as_fd(), &pid.as_raw().to_ne_bytes(), &[]).is_err())
        });
        let middle = middle.at("fork for", at)?;
        drop(theirs);
        let mut pid = [0; 4];
        let received = packet::receive(ours.as_fd(), &mut pid).at("wait for", at)?;
        waitpid(middle, None).at("wait for", at)?;
        if received.is_none() {
            return Err(Error::Start("cannot make the pod's pid namespace".to_owned()));
        }
        // It is our child by now and not buried yet, so the number is still its own.
        let pid = Pid::from_raw(i32::from_ne_bytes(pid));
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/pid"));
        Ok(Self { pid, namespace: File::open(&namespace).at("open", &namespace)?.into(), _life: life })
    }

    /// The namespace's first process, a child of the shim.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

fn run(death: &OwnedFd) -> i32 {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    let prepared = process::close_others(&[death.as_raw_fd()]).is_ok() && wanted.thread_block().is_ok();
    let Ok(signals) = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK) else { return 1 };
    if !prepared || nix::sys::prctl::set_name(c"pause").is_err() {
        return 1;
    }
    set_oom_score("self", OOM_SCORE);
    memory::trim_memory();
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(death.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
        if fds[1].any().unwrap_or(false) {
            return 0;
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        while process::bury_one().is_some() {}
    }
}
