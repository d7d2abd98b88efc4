//! A client's bound on what a server sends before its answer: interim responses without end, or a head
//! without end.
//!
//! Upstream's client counts the same bytes, and allows 10 MiB of them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use crate::gate::{Gate, Gated};

/// Below the 400 KiB that hyper takes of one head, so that there is one limit and one error. Servers send
/// and proxies take heads of some 64 KiB at the most.
const HEAD: usize = 256 * 1024;

/// A server's answer does not begin. The words are those of upstream's client.
#[derive(Debug, thiserror::Error)]
#[error(
    "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded {HEAD} bytes; aborted"
)]
pub struct EndlessHead;

impl EndlessHead {
    /// This, or the error itself where it was something else: hyper's own words leave causes out.
    #[must_use]
    pub fn or(error: &(dyn Error + 'static)) -> String {
        let mut next = Some(error);
        while let Some(cause) = next {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if inner.is_some_and(|inner| inner.is::<Self>()) {
                return Self.to_string();
            }
            next = cause.source();
        }
        error.to_string()
    }
}

/// Tells a connection that its answer has begun.
#[derive(Debug)]
pub struct Answered(Arc<AtomicBool>);

impl Answered {
    /// What comes from now on has no bound here.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts what comes until the answer does.
#[derive(Debug)]
pub struct Unanswered {
    left: usize,
    answered: Arc<AtomicBool>,
}

/// A connection on which one request is made, and what lifts the bound.
pub fn until_answered<IO: AsyncRead>(io: IO) -> (Gated<IO, Unanswered>, Answered) {
    let answered = Arc::default();
    let gate = Unanswered { left: HEAD, answered: Arc::clone(&answered) };
    (Gated::new(io, gate), Answered(answered))
}

impl Gate for Unanswered {
    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.answered.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(usize::MAX));
        }
        Poll::Ready(if self.left > 0 { Ok(self.left) } else { Err(io::Error::other(EndlessHead)) })
    }

    fn passed(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_begins_soon_and_may_then_go_on() {
        let (mut io, answered) = until_answered(tokio::io::repeat(0));
        let mut some = vec![0; HEAD];
        io.read_exact(&mut some).await.unwrap();
        let error = io.read(&mut some).await.unwrap_err();
        let said = "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded \
                    262144 bytes; aborted";
        assert_eq!((EndlessHead::or(&error), error.to_string()), (said.to_owned(), said.to_owned()));
        answered.tell();
        io.read_exact(&mut some).await.unwrap();
        assert_eq!(EndlessHead::or(&io::Error::other("another")), "another");
    }
}
