//! The first process of a pid namespace that a pod's containers share: it buries orphans.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Error, IoContext, Result};
use crate::sys::{packet, process};

/// Starts it and returns the namespace's path.
///
/// `unshare` moves only later children into the new namespace, so a short-lived process in between
/// keeps the shim's own children out of it.
pub(super) fn start() -> Result<PathBuf> {
    let at = PathBuf::from("/proc/self/ns/pid");
    let (ours, theirs) = packet::pair().at("make a socket for", &at)?;
    let middle = process::fork_child(|| {
        if unshare(CloneFlags::CLONE_NEWPID).is_err() {
            return 1;
        }
        let Ok(pid) = process::fork_child(|| run(&theirs)) else { return 1 };
        let sent = packet::send(std::os::fd::AsFd::as_fd(&theirs), &pid.as_raw().to_ne_bytes(), &[]);
        i32::from(sent.is_err())
    });
    let middle = middle.at("fork for", &at)?;
    drop(theirs);
    let mut pid = [0; 4];
    let received = packet::receive(std::os::fd::AsFd::as_fd(&ours), &mut pid).at("wait for", &at)?;
    waitpid(middle, None).at("wait for", &at)?;
    match received {
        Some(_) => Ok(PathBuf::from(format!("/proc/{}/ns/pid", i32::from_ne_bytes(pid)))),
        None => Err(Error::Start("cannot make the pod's pid namespace".to_owned())),
    }
}

fn run(socket: &std::os::fd::OwnedFd) -> i32 {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.add(Signal::SIGTERM);
    if wanted.thread_block().is_err() {
        return 1;
    }
    let _ = nix::sys::prctl::set_name(c"pause");
    let keep = std::os::fd::AsRawFd::as_raw_fd(socket);
    if process::close_others(&[keep]).is_err() || nix::unistd::close(keep).is_err() {
        return 1;
    }
    process::trim_memory();
    loop {
        match wanted.wait() {
            Ok(Signal::SIGTERM) => return 0,
            Ok(_) | Err(Errno::EINTR) => bury(),
            Err(_) => return 1,
        }
    }
}

fn bury() {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
