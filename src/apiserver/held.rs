//! The body of an answer on its way to a client, and the places that its request holds until it is there.
//!
//! The connection gets one piece at a time, and the next when the last has left it. So a client that takes
//! nothing costs one piece beyond the answer itself, and the places are held until the last byte is out,
//! whatever the windows of its streams are. When the time of the answer is over the body ends with an error,
//! which resets its stream alone.
//!
//! A watch lasts, but holds its place among the requests, and has to keep their time, until its initial events
//! are out. Later it has to take each large event in that time: till then it holds an object that nothing else
//! may hold any more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use futures::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::connections::{Connection, Running};
use crate::in_flight::Passes;
use crate::shares::Pass;

/// What the connection has of an answer at the most: a window of HTTP/2 as clients open it.
const PIECE: usize = 64 * 1024;
/// The end of a larger answer follows its last byte: until then the body can still end with an error. Smaller
/// ones fit into any window that is meant to be used, and have their end with them.
const ENDS_APART: usize = 16 * 1024;

/// The client did not take its answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not taken in time")]
struct TooLate;

/// What a request holds until its answer is out.
struct Places {
    running: Running,
    _passes: Passes,
    /// A piece lies in the connection.
    is_under_way: AtomicBool,
    /// The body, which waits for that.
    body: AtomicWaker,
}

/// Says that the initial events of a watch have left; goes with its answer as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Initialized(Arc<AtomicBool>);

impl Initialized {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a watch holds until its initial events have left.
pub(crate) struct Initial {
    _running: Running,
    _place: Option<Pass>,
    /// Absent where the watch was refused: then all is held as for any answer.
    initialized: Option<Initialized>,
}

impl Initial {
    pub(crate) fn new(running: Running, place: Option<Pass>, initialized: Option<Initialized>) -> Self {
        Self { _running: running, _place: place, initialized }
    }

    fn is_over(&self) -> bool {
        self.initialized.as_ref().is_some_and(Initialized::is_set)
    }
}

/// The body of an answer.
pub(crate) struct Held {
    body: Body,
    /// Of the body's last piece of data, what has not been handed on.
    rest: Bytes,
    given: usize,
    places: Arc<Places>,
    watching: Option<Watching>,
}

/// What a watch has to keep to.
struct Watching {
    connection: Arc<Connection>,
    initial: Option<Initial>,
    /// A large event is on its way.
    event: Option<Running>,
}

/// Part of an answer, which is dropped when it has been sent.
pub(crate) struct Piece {
    data: Bytes,
    places: Arc<Places>,
}

impl Held {
    pub(crate) fn new(body: Body, running: Running, passes: Passes) -> Self {
        let places =
            Places { running, _passes: passes, is_under_way: AtomicBool::new(false), body: AtomicWaker::new() };
        Self { body, rest: Bytes::new(), given: 0, places: Arc::new(places), watching: None }
    }

    /// The same as the answer to a watch on a connection.
    pub(crate) fn of_watch(self, connection: Arc<Connection>, initial: Initial) -> Self {
        let initial = Some(initial).filter(|initial| !initial.is_over());
        Self { watching: Some(Watching { connection, initial, event: None }), ..self }
    }

    fn piece(&mut self) -> Piece {
        self.places.is_under_way.store(true, Ordering::Release);
        if self.rest.len() >= ENDS_APART
            && let Some(Watching { connection, initial: None, event: event @ None }) = &mut self.watching
        {
            *event = Some(connection.begin(true, Instant::now()));
        }
        let length = self.rest.len().min(PIECE);
        self.given = self.given.saturating_add(length);
        Piece { data: self.rest.split_to(length), places: Arc::clone(&self.places) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.places.is_under_way.store(false, Ordering::Release);
        self.places.body.wake();
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

impl HttpBody for Held {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.places.running.is_over() {
            return Poll::Ready(Some(Err(axum::Error::new(TooLate))));
        }
        // Only a body that waits is woken: most answers are one piece, after which the connection has no more to do.
        if self.places.is_under_way.load(Ordering::Acquire) {
            self.places.body.register(cx.waker());
            if self.places.is_under_way.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        if self.rest.is_empty() {
            if let Some(watching) = &mut self.watching {
                watching.event = None;
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            if let Some(watching) = &mut self.watching
                && watching.initial.as_ref().is_some_and(Initial::is_over)
            {
                watching.initial = None;
            }
            let frame = match ready!(polled) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) => self.rest = data,
                Err(Ok(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                // Of a kind that nobody sends.
                Err(Err(_)) => {}
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        let is_under_way = self.given >= ENDS_APART && self.places.is_under_way.load(Ordering::Acquire);
        self.rest.is_empty() && self.body.is_end_stream() && !is_under_way
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Connections, Limits};
    use futures::poll;
    use http_body_util::BodyExt;

    fn held(body: Body) -> Held {
        let connection = Connections::new(Limits::DEFAULT, tokio_util::sync::CancellationToken::new())
            .enter([127, 0, 0, 1].into(), Instant::now());
        Held::new(body, connection.begin(true, Instant::now()), Passes::default())
    }

    #[tokio::test]
    async fn large_answers_are_handed_on_in_pieces_one_at_a_time() {
        let text = Bytes::from(vec![b'x'; 3 * PIECE + 1]);
        let mut held = held(Body::from(text.clone()));
        assert_eq!(held.size_hint().exact(), Some(text.len() as u64));
        let mut sizes = Vec::new();
        while let Some(frame) = held.frame().await {
            let piece = frame.unwrap().into_data().ok().unwrap();
            sizes.push(piece.remaining());
            assert!(!held.is_end_stream(), "before the piece has left");
            assert!(poll!(Box::pin(held.frame())).is_pending());
            drop(piece);
            assert_eq!(held.is_end_stream(), sizes.iter().sum::<usize>() == text.len());
        }
        assert_eq!(sizes, [PIECE, PIECE, PIECE, 1]);
    }

    #[tokio::test]
    async fn places_are_held_until_the_last_piece_is_out() {
        let mut held = held(Body::from("text"));
        let places = Arc::downgrade(&held.places);
        let piece = held.frame().await.unwrap().unwrap().into_data().ok().unwrap();
        assert!(held.is_end_stream());
        drop(held);
        assert!(places.upgrade().is_some());
        drop(piece);
        assert!(places.upgrade().is_none());
    }
}
