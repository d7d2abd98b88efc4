//! A connection whose reads pass a gate. Writes pass as they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

/// What decides over the reads of a connection.
pub trait Gate {
    /// How many bytes the next read may give, at least one.
    ///
    /// # Errors
    /// When the other end has sent too much: the connection is over.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// So many bytes were read.
    fn passed(&mut self, bytes: usize);

    /// There is nothing to read for now.
    fn waits(&mut self) {}
}

/// A connection and its gate.
#[derive(Debug)]
pub struct Gated<IO, G> {
    /// The limit is set anew before each read.
    io: Take<IO>,
    gate: G,
}

impl<IO: AsyncRead, G> Gated<IO, G> {
    pub fn new(io: IO, gate: G) -> Self {
        Self { io: io.take(0), gate }
    }
}

impl<IO: AsyncRead + Unpin, G: Gate + Unpin> AsyncRead for Gated<IO, G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, gate } = &mut *self;
        let limit = ready!(gate.poll_open(cx))?;
        io.set_limit(limit as u64);
        let before = buf.filled().len();
        let read = Pin::new(io).poll_read(cx, buf);
        match read {
            Poll::Ready(Ok(())) => gate.passed(buf.filled().len() - before),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => gate.waits(),
        }
        read
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, G: Unpin> AsyncWrite for Gated<IO, G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.io.get_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.io.get_mut()).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_shutdown(cx)
    }
}
