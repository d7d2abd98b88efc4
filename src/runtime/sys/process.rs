//! Forking, descriptors and terminals of single-threaded processes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, SysconfVar, fork, sysconf};

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

/// How long a process has run, by the clock that nobody sets; `None` when there is no such process.
#[must_use]
pub fn process_age(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks_a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok())?;
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    Some(now.saturating_sub(since_boot(&stat, ticks_a_second)?))
}

/// When a process started, from its /proc/PID/stat. Its name, in brackets, may hold anything.
fn since_boot(stat: &str, ticks_a_second: u64) -> Option<Duration> {
    // The 22nd field in all.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<u64>().ok()?;
    let seconds = Duration::from_secs(ticks.checked_div(ticks_a_second)?);
    let rest = (ticks % ticks_a_second).saturating_mul(1_000_000_000) / ticks_a_second;
    Some(seconds + Duration::from_nanos(rest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_read_behind_its_name() {
        let stat = "4711 (a) b) (c) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 2 3";
        assert_eq!(since_boot(stat, 100), Some(Duration::from_millis(123_450)));
        assert_eq!(since_boot("4711 (a) S 1", 100), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process that starts now")]
    fn the_age_of_a_process_goes_by_the_kernels_own_clock() {
        let uptime = || {
            let text = fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split_whitespace().next().unwrap().parse().unwrap())
        };
        let grain = Duration::from_millis(20);
        let before = uptime();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let age = process_age(child.id());
        let took = uptime() - before;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(age.is_some_and(|age| age <= took + grain), "{age:?} {took:?}");
        assert_eq!(process_age(child.id()), None);
    }
}
