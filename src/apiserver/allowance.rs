//! How much a stranger may send. Frames that ask for nothing (windows, priorities, pings, those that no
//! version knows) cost this server work and their sender nothing, so a connection on which nobody has
//! proved who they are ends when it brings more than requests need. Each request that arrives makes a fresh
//! start: a load balancer asks for the health of a server on one connection for years.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use wire::Gate;

use crate::connections::Connection;

/// Between requests, for the head of the next one. The longest that are answered are those of an exec,
/// whose arguments stand in them, and of these a kubelet takes 128 KiB.
const HEAD: usize = 256 * 1024;
/// While a request is under way: the largest body that is read, 3 MiB, and its frames.
const REQUEST: usize = 4 * 1024 * 1024;

/// What a connection may still bring before somebody on it has proved who they are.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: AtomicUsize,
    lifted: AtomicBool,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: AtomicUsize::new(HEAD), lifted: AtomicBool::new(false) }
    }
}

impl Allowance {
    /// A request has arrived.
    pub(crate) fn renew(&self) {
        self.left.store(REQUEST, Ordering::Relaxed);
    }

    /// No request is under way any more.
    pub(crate) fn reduce(&self) {
        self.left.fetch_min(HEAD, Ordering::Relaxed);
    }

    /// Somebody proved who they are.
    pub(crate) fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        if self.lifted.load(Ordering::Relaxed) { usize::MAX } else { self.left.load(Ordering::Relaxed) }
    }

    fn spend(&self, bytes: usize) {
        // Requests begin and end on other threads meanwhile. It cannot fail, as the closure always gives something.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
}

/// A stranger sent more than its requests need.
#[derive(Debug, thiserror::Error)]
#[error("a stranger sent too much without a request")]
struct TooMuch;

/// Lets so many bytes of a stranger pass, and all of others.
pub(crate) struct Toll(pub(crate) Arc<Connection>);

impl Gate for Toll {
    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(match self.0.allowance.left() {
            0 => Err(io::Error::other(TooMuch)),
            left => Ok(left),
        })
    }

    fn passed(&mut self, bytes: usize) {
        self.0.allowance.spend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;
    use wire::Gated;

    use super::*;
    use crate::connections::{Connections, Limits};

    #[tokio::test]
    async fn a_stranger_sends_so_much_for_each_request_and_others_what_they_like() {
        let all = Connections::new(Limits::DEFAULT, CancellationToken::new());
        let connection = all.enter(IpAddr::from([10, 0, 0, 1]), Instant::now());
        let mut io = Gated::new(tokio::io::repeat(0), Toll(Arc::clone(&connection)));
        let mut sent = async |bytes: usize| io.read_exact(&mut vec![0; bytes]).await.map_err(|e| e.to_string());
        // As long as requests begin, none is too many.
        for _ in 0..100 {
            assert_eq!(sent(HEAD).await, Ok(HEAD));
            drop(connection.arrive());
        }
        // Its body may all be there before its task has a thread, and whatever becomes of another request.
        let (arrived, other) = (connection.arrive(), connection.arrive());
        assert_eq!(sent(REQUEST / 2).await, Ok(REQUEST / 2));
        drop((connection.begin(true, Instant::now()), other));
        assert_eq!(sent(REQUEST / 4).await, Ok(REQUEST / 4));
        let upload = connection.begin(true, Instant::now());
        drop(arrived);
        assert_eq!(sent(REQUEST / 4).await, Ok(REQUEST / 4));
        let over = Err("a stranger sent too much without a request".to_owned());
        assert_eq!(sent(1).await, over);
        drop(upload);
        assert_eq!(sent(1).await, over, "the end of a request allows nothing");
        connection.prove();
        assert_eq!(sent(2 * REQUEST).await, Ok(2 * REQUEST));
    }
}
