//! The streams of HTTP/2: each answers one request in a task of its own, which can end without its
//! connection.
//!
//! Only that task holds what hyper has of the stream. Where it ends early, the stream is reset.

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static STREAM: CancellationToken;
}

/// Starts the tasks of a connection's streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = CancellationToken::new();
        let stream = STREAM.scope(end.clone(), stream);
        TokioExecutor::new().execute(async move {
            tokio::select! {
                // A body that is asked once more resets the stream together with what lies in its queue.
                biased;
                () = stream => {}
                () = end.cancelled() => {}
            }
        });
    }
}

/// Ends the stream on which the caller answers; none where the connection has no streams.
pub(crate) fn current() -> Option<CancellationToken> {
    STREAM.try_with(Clone::clone).ok()
}

#[cfg(test)]
pub(crate) fn scope<T>(end: CancellationToken, answer: impl FnOnce() -> T) -> T {
    STREAM.sync_scope(end, answer)
}
