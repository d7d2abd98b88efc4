//! What a refused request leaves unread of its body is read before the answer.
//!
//! A stream of HTTP/2 whose body nobody reads is reset behind the answer; a client that is still
//! sending then loses the answer and reports a broken connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures::stream::Fuse;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

/// How long the answer waits for the rest of the body.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// What is still read of a body that is too large, so that its sender gets to the answer: an HTTP/2
/// stream that is reset while the client writes looks like a broken connection to it.
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;

/// A body that its handler reads, and whose rest is read when the handler is done.
#[derive(Clone)]
struct Lent(Arc<Mutex<Fuse<BodyDataStream>>>);

impl Lent {
    fn stream(self) -> impl Stream<Item = Result<Bytes, axum::Error>> + Unpin {
        futures::stream::poll_fn(move |cx| self.0.lock().poll_next_unpin(cx))
    }
}

/// What is left of a body that was lent; none of one that was empty.
pub(crate) struct Rest(Option<Lent>);

/// Lends a request's body to its handler.
pub(crate) fn lend(body: Body) -> (Body, Rest) {
    if body.is_end_stream() {
        return (body, Rest(None));
    }
    let lent = Lent(Arc::new(Mutex::new(body.into_data_stream().fuse())));
    (Body::from_stream(lent.clone().stream()), Rest(Some(lent)))
}

impl Rest {
    /// Reads and forgets what the handler has left.
    pub(crate) async fn forget(self) {
        if let Some(lent) = self.0 {
            // A client that does not get to the end within this time has to do without the answer.
            let _ = tokio::time::timeout(REST_WITHIN, drain(lent.stream())).await;
        }
    }
}

/// Reads and forgets a body, up to a limit.
pub(crate) async fn drain(mut body: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let mut read = 0;
    while read < DRAIN_LIMIT
        && let Some(Ok(data)) = body.next().await
    {
        read += data.len();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_nobody_read_is_read_to_its_end() {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let chunks = std::iter::repeat_n("x", 5).map(move |chunk| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(chunk)
        });
        let (mut lent, rest) = lend(Body::from_stream(futures::stream::iter(chunks)));
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        assert_eq!(sent.load(Ordering::Relaxed), 1);
        rest.forget().await;
        assert_eq!(sent.load(Ordering::Relaxed), 5);
    }
}
