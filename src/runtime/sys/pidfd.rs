//! A process by descriptor (pidfd, Linux 5.3): a number may be reused, a descriptor never means another.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that may have ended by now.
pub(crate) struct ProcessFd(OwnedFd);

impl ProcessFd {
    /// `None` when there is no such process any more.
    #[expect(unsafe_code, reason = "pidfd_open has no safe wrapper")]
    pub(crate) fn open(pid: u32) -> Option<Self> {
        // SAFETY: the call takes two integers and returns a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the descriptor is new and nobody else's.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends SIGKILL; an error means that it has ended already.
    #[expect(unsafe_code, reason = "pidfd_send_signal has no safe wrapper")]
    pub(crate) fn kill(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open; a null siginfo is what kill(2) would send.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), libc::SIGKILL, std::ptr::null::<u8>(), 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for its end; whether it came in time.
    #[expect(unsafe_code, reason = "tokio trusts the caller not to close the descriptor")]
    pub(crate) async fn ended(self, within: Duration) -> bool {
        // SAFETY: the descriptor is owned here and stays open until the registration is dropped.
        let Ok(fd) = (unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }) else { return false };
        tokio::time::timeout(within, fd.readable()).await.is_ok_and(|ready| ready.is_ok())
    }
}
