//! What a refused request leaves unread of its body is read before the answer.
//!
//! A stream of HTTP/2 whose body nobody reads is reset behind the answer; a client that is still
//! sending then loses the answer and reports a broken connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// How long the answer waits for the rest of the body.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// What is still read of a body that is too large, so that its sender gets to the answer: an HTTP/2
/// stream that is reset while the client writes looks like a broken connection to it.
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;

/// A body on loan: it comes back when its reader drops it.
struct Lent {
    body: Body,
    ended: bool,
    back: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let body = std::mem::replace(&mut self.body, Body::empty());
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }
}

/// What is left of a body that was lent.
pub(crate) struct Rest(Arc<Mutex<Option<Body>>>);

/// Lends a request's body to its handler.
pub(crate) fn lend(body: Body) -> (Body, Rest) {
    let back = Arc::new(Mutex::new(None));
    if body.is_end_stream() {
        return (body, Rest(back));
    }
    (Body::new(Lent { body, ended: false, back: Arc::clone(&back) }), Rest(back))
}

impl Rest {
    /// Reads and forgets what the handler has left.
    pub(crate) async fn forget(self) {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = body.filter(|body| !body.is_end_stream()) {
            // A client that does not get to the end within this time has to do without the answer.
            let _ = tokio::time::timeout(REST_WITHIN, drain(body)).await;
        }
    }
}

/// Reads and forgets a body, up to a limit.
pub(crate) async fn drain(mut body: Body) {
    let mut read = 0;
    while read < DRAIN_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
