//! A process by descriptor (pidfd, Linux 5.3): a number may be reused, a descriptor never means another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that has closed its descriptors has little left to do: to give back its memory and namespaces.
const ENDING: Duration = Duration::from_secs(2);

/// A process that may have ended by now.
#[derive(Debug)]
pub(crate) struct ProcessFd(OwnedFd);

impl ProcessFd {
    /// `None` when there is no such process any more.
    #[expect(unsafe_code, reason = "pidfd_open has no safe wrapper")]
    pub(crate) fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: the call takes two integers and returns a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Some(fd) = i32::try_from(fd).ok().filter(|fd| *fd >= 0) else {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        };
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// An error means that it has ended already, or that the signal is not ours to send.
    #[expect(unsafe_code, reason = "pidfd_send_signal has no safe wrapper")]
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open; a null siginfo is what kill(2) would send.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Whether its number is still its own: nobody gets it before the process is buried.
    pub(crate) fn has_its_number(&self) -> bool {
        !self.signal(0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Whether it has ended, or is about to: a process closes its sockets before it counts as ended.
    pub(crate) async fn is_ending(&self) -> bool {
        self.ended(ENDING).await
    }

    /// Waits for its end; whether it came in time.
    #[expect(unsafe_code, reason = "tokio trusts the caller not to close the descriptor")]
    pub(crate) async fn ended(&self, within: Duration) -> bool {
        let Ok(fd) = self.0.try_clone() else { return false };
        // SAFETY: the descriptor is owned here and stays open until the registration is dropped.
        let Ok(fd) = (unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }) else { return false };
        tokio::time::timeout(within, fd.readable()).await.is_ok_and(|ready| ready.is_ok())
    }
}
