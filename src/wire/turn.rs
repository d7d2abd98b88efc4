//! The turn of a task: how much it takes of a source that never runs dry before others are served.

use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use crate::gate::{Gate, Gated};

/// A few hundred of the smallest frames of HTTP/2: a fraction of a millisecond on a board. An upload of
/// 3 MB takes some 750 turns, of a microsecond each where nobody else waits.
const TURN: usize = 4 * 1024;

/// A connection that is read in turns.
pub type Paced<IO> = Gated<IO, Turn>;

impl<IO: AsyncRead> Paced<IO> {
    /// Below TLS it bounds the records that are decrypted in a turn, above it the frames that are handled.
    pub fn turns(io: IO) -> Self {
        Self::new(io, Turn::of(TURN))
    }
}

/// How much of a task's turn is left.
#[derive(Debug)]
pub struct Turn {
    whole: usize,
    left: usize,
}

impl Turn {
    /// Turns in which so much is taken.
    #[must_use]
    pub const fn of(whole: usize) -> Self {
        Self { whole, left: whole }
    }

    /// How much may be taken now. At the end of a turn the task is woken at once: a task that wakes itself
    /// is polled again behind all that are ready.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.left > 0 {
            return Poll::Ready(self.left);
        }
        self.left = self.whole;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub fn take(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
    }

    /// The task waits for something else, so its next turn is a whole one.
    pub fn renew(&mut self) {
        self.left = self.whole;
    }
}

impl Gate for Turn {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_left(cx).map(Ok)
    }

    fn passed(&mut self, bytes: usize) {
        self.take(bytes);
    }

    fn waits(&mut self) {
        self.renew();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, join, sink};
    use tokio::task::JoinSet;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a read of so much gave something, how much, and whether the task was woken.
    fn read(io: &mut (impl AsyncRead + Unpin), buffer: usize) -> (Poll<usize>, usize) {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut space = vec![0; buffer];
        let mut buffer = tokio::io::ReadBuf::new(&mut space);
        let polled = std::pin::Pin::new(io).poll_read(&mut Context::from_waker(&waker), &mut buffer);
        (polled.map(|done| done.map(|()| buffer.filled().len()).unwrap()), wakes.0.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_source_that_is_always_ready_starves_nobody() {
        const SENT: usize = 1024 * 1024;
        let flood = vec![0; SENT];
        let turns = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Paced::turns(&flood[..]).read_to_end(&mut Vec::new()).await.unwrap() });
        let counted = Arc::clone(&turns);
        tasks.spawn(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), SENT);
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= SENT / TURN, "others had {turns} turns");
    }

    #[test]
    fn a_turn_ends_after_so_many_bytes_and_with_each_wait() {
        let flood = [0; 3 * TURN];
        let mut io = Paced::turns(&flood[..]);
        assert_eq!(read(&mut io, 10), (Poll::Ready(10), 0));
        assert_eq!(read(&mut io, 2 * TURN), (Poll::Ready(TURN - 10), 0));
        assert_eq!(read(&mut io, 1), (Poll::Pending, 1), "woken once, to line up again");
        assert_eq!(read(&mut io, 2 * TURN), (Poll::Ready(TURN), 0));
    }

    #[tokio::test]
    async fn a_request_costs_no_turn_of_its_own() {
        let (mut client, server) = tokio::io::duplex(2 * TURN);
        let mut io = Paced::turns(server);
        for _ in 0..10 {
            client.write_all(&[0; TURN - 1]).await.unwrap();
            assert_eq!(read(&mut io, 2 * TURN), (Poll::Ready(TURN - 1), 0));
            assert_eq!(read(&mut io, 2 * TURN), (Poll::Pending, 0), "it waits for the client alone");
        }
        drop(client);
        assert_eq!(read(&mut io, 1), (Poll::Ready(0), 0));
    }

    #[tokio::test]
    async fn writes_pass_as_they_are() {
        let mut io = Paced::turns(join(tokio::io::empty(), sink()));
        io.write_all(&[0; 4 * TURN]).await.unwrap();
        io.flush().await.unwrap();
        io.shutdown().await.unwrap();
    }
}
