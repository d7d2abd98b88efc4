//! The byte streams of a running command or an attached container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Runtime;
use crate::error::{Error, Result};
use crate::sys::process;
use crate::sys::watch::watch;
use crate::types::TerminalSize;

pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// What connects the caller with a process in a container.
pub struct Streams {
    /// Dropping it ends the process's input.
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resize: Resizer,
    /// The exit code: of the command, or, when attached, of the container.
    pub exit: BoxFuture<'static, Result<i32>>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

/// Changes the size of the terminal, where there is one.
#[derive(Clone, Debug, Default)]
pub struct Resizer(pub(super) Target);

#[derive(Clone, Debug, Default)]
pub(super) enum Target {
    #[default]
    None,
    Command(Terminal),
    Container {
        runtime: Weak<Runtime>,
        id: String,
    },
}

impl Resizer {
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        match &self.0 {
            Target::None => Ok(()),
            Target::Command(terminal) => process::resize(terminal.0.as_fd(), size.columns, size.rows)
                .map_err(|error| Error::Invalid(format!("resize the terminal: {error}"))),
            Target::Container { runtime, id } => match runtime.upgrade() {
                Some(runtime) => runtime.resize_container(id, size).await,
                None => Ok(()),
            },
        }
    }
}

/// The master side of a pseudo-terminal.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(Arc::new(watch(fd)?)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.as_fd(), buffer.initialize_unfilled())?)) {
                Ok(Ok(len)) => {
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                // Nobody holds the other side any more: the end of the stream.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.as_fd(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
