//! Forking, descriptors and terminals of single-threaded processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks; the child runs `work` and exits with its result, without running the parent's destructors.
///
/// Only for processes with one thread: after the fork the child goes on using the allocator.
#[expect(unsafe_code, reason = "fork")]
pub(crate) fn fork_child(work: impl FnOnce() -> i32) -> nix::Result<Pid> {
    // SAFETY: the shim has a single thread, so no lock can be held by a thread that vanishes.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = work();
            // SAFETY: _exit never returns and touches nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

/// A child that has ended.
pub(crate) struct Ended {
    pub pid: Pid,
    /// 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
}

/// Buries the next child that has ended, if there is one. Unlike nix's `waitpid` it knows the ends by
/// real-time signals.
#[expect(unsafe_code, reason = "nix loses a child that a real-time signal ended")]
pub(crate) fn bury_one() -> Option<Ended> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one integer to the pointer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        let pid = Pid::from_raw(pid);
        if libc::WIFEXITED(status) {
            return Some(Ended { pid, code: libc::WEXITSTATUS(status), signal: None });
        }
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            return Some(Ended { pid, code: 128 + signal, signal: Some(signal) });
        }
    }
}

/// Sends any signal by number; nix's `kill` has no real-time ones.
#[expect(unsafe_code, reason = "nix has no real-time signals")]
pub(crate) fn send_signal(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two integers.
    if unsafe { libc::kill(pid.as_raw(), signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives signals the state that a new program expects: none blocked, SIGPIPE deadly again
/// (Rust ignores it, and ignored signals stay ignored across exec).
#[expect(unsafe_code, reason = "sigaction")]
pub(crate) fn reset_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: installs no handler of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default)? };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Closes every descriptor above stderr but `keep`, so that a container never holds another's pipes.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_others(keep: &[RawFd]) -> io::Result<()> {
    let mut keep = keep.iter().copied().filter(|fd| *fd > 2).collect::<Vec<_>>();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for next in keep.into_iter().map(Some).chain([None]) {
        let last = next.map_or(u32::MAX, |fd| (fd - 1).unsigned_abs());
        if last >= first {
            // SAFETY: the process is a fresh child that uses only the descriptors it keeps.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(fd) = next {
            first = (fd + 1).unsigned_abs();
        }
    }
    Ok(())
}

/// Sets a terminal's size.
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize from the pointer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings the loopback interface of the current network namespace up.
#[expect(unsafe_code, reason = "ioctl")]
pub(crate) fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("invariant: both flags fit 16 bits");
    // SAFETY: SIOCSIFFLAGS reads one ifreq from the pointer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
