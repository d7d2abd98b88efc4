//! Bodies of requests while they are being received.
//!
//! A body is copied into one buffer: what a client sends byte by byte takes no more memory than what it sends at
//! once. All bodies that are under way have a bounded amount of memory together, of which a user gets a share;
//! beyond it the answer is 429. The buffer grows with what has come, not with what is announced. A request that is
//! given up, by its deadline at the latest, gives its memory back.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;

use crate::auth::{User, user};
use crate::error::ApiError;
use crate::room;
use crate::shares::{Full, Pass, Pool};
use crate::unread::drain;

/// Upstream's limit on request bodies.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// All bodies that are being received. The threads wait for none of them, so only a slow network fills this.
const ALL: usize = 32 * 1024 * 1024;
/// Those of one user: two of the largest, or a few hundred of the usual size.
const OF_ONE: usize = ALL / 4;
/// A buffer begins so large at the most, whatever its length is announced to be.
const FIRST: usize = 16 * 1024;

/// The memory for bodies that are being received.
pub(crate) fn pool() -> Arc<Pool> {
    Pool::new(ALL, OF_ONE)
}

/// A body that somebody is about to read.
pub(crate) struct Receiving {
    body: Body,
    /// None for those whose requests always find a place.
    share: Option<Pass>,
}

impl Receiving {
    /// The body of a client's request.
    pub(crate) fn from_client(pool: &Arc<Pool>, user: &User, body: Body) -> Self {
        let turn = room::turn(user);
        let share = (turn != user::MASTERS).then(|| Pass::none(pool, turn));
        Self { body, share }
    }

    /// The body of a request of this process.
    pub(crate) fn from_component(body: Body) -> Self {
        Self { body, share: None }
    }

    /// Passes the body on as it comes.
    pub(crate) fn into_body(self) -> Body {
        self.body
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// When it is too large, breaks off, or there is no memory for it.
    pub(crate) async fn read(mut self) -> Result<Bytes, ApiError> {
        match gather(&mut self.body, BODY_LIMIT, &mut self.share).await {
            Ok(bytes) => Ok(bytes),
            Err(Unread::TooLarge) => {
                drop(self.share);
                drain(self.body.into_data_stream()).await;
                Err(ApiError::RequestEntityTooLarge(format!("limit is {BODY_LIMIT}")))
            }
            Err(Unread::NoMemory) => Err(Full.into()),
            Err(Unread::Broken(error)) => Err(ApiError::BadRequest(error.to_string())),
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    TooLarge,
    NoMemory,
    Broken(axum::Error),
}

/// Reads a whole body of a bounded size, such as an answer.
///
/// # Errors
/// When it is larger, or breaks off.
pub(crate) async fn read_bounded(mut body: Body, limit: usize) -> Result<Bytes, Unread> {
    gather(&mut body, limit, &mut None).await
}

async fn gather(body: &mut Body, limit: usize, share: &mut Option<Pass>) -> Result<Bytes, Unread> {
    let announced = body.size_hint().exact().map_or(limit, |exact| usize::try_from(exact).unwrap_or(limit));
    let most = announced.min(limit);
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        // Frames that lie there already are taken without a pause; others are to have their turn meanwhile.
        tokio::task::consume_budget().await;
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        let length = buffer.len() + data.len();
        if length > limit {
            return Err(Unread::TooLarge);
        }
        // A whole body in one piece, as this process sends it.
        if buffer.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        if length > buffer.capacity() {
            let larger = (2 * buffer.capacity()).max(FIRST).min(most).max(length);
            if let Some(share) = share {
                share.grow(larger).map_err(|Full| Unread::NoMemory)?;
            }
            buffer.reserve_exact(larger - buffer.len());
        }
        buffer.extend_from_slice(&data);
    }
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt, StreamExt};

    use super::*;

    fn pieces(size: usize, count: usize) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
        let piece = Bytes::from(vec![b'x'; size]);
        futures::stream::iter(std::iter::repeat_n(piece, count)).map(Ok)
    }

    fn user(name: &str) -> User {
        User::authenticated(name, &[])
    }

    /// A body of which so much has come, and no more for now.
    fn stuck(size: usize) -> Body {
        Body::from_stream(pieces(1000, size / 1000).chain(futures::stream::pending()))
    }

    #[tokio::test]
    async fn a_body_is_read_into_one_buffer_whatever_its_pieces() {
        for (size, count) in [(1, 100_000), (7, 5), (100_000, 20), (0, 3)] {
            let mut body = Body::from_stream(pieces(size, count));
            let bytes = gather(&mut body, BODY_LIMIT, &mut None).await.unwrap();
            assert_eq!(bytes.len(), size * count);
            let buffer = Vec::from(bytes);
            assert!(buffer.capacity() < FIRST + 2 * size * count, "{} for {size}", buffer.capacity());
        }
        let whole = Bytes::from(vec![b'x'; 1000]);
        let bytes = read_bounded(Body::from(whole.clone()), 1000).await.unwrap();
        assert_eq!(bytes.as_ptr(), whole.as_ptr());
        assert!(matches!(read_bounded(Body::from(whole), 999).await, Err(Unread::TooLarge)));
        assert!(matches!(read_bounded(Body::from_stream(pieces(10, 101)), 1000).await, Err(Unread::TooLarge)));
        let large = Receiving::from_component(Body::from_stream(pieces(1 << 20, 4)));
        assert!(matches!(large.read().await, Err(ApiError::RequestEntityTooLarge(_))));
    }

    #[tokio::test]
    async fn bodies_under_way_have_so_much_memory_and_a_user_a_share() {
        let pool = pool();
        let receive = |name: &str, body: Body| Receiving::from_client(&pool, &user(name), body).read();
        let full = || Body::from_stream(pieces(1 << 20, 3));
        let mut under_way = Vec::new();
        for (name, expected) in [("a", 8), ("b", 8), ("c", 8), ("d", 8), ("e", 0)] {
            let mut held = 0;
            for _ in 0..9 {
                let mut reading = Box::pin(tokio::task::unconstrained(receive(name, stuck(1_000_000))));
                match (&mut reading).now_or_never() {
                    None => {
                        held += 1;
                        under_way.push(reading);
                    }
                    Some(refused) => assert!(matches!(refused, Err(ApiError::TooManyRequests { retry_after: 1, .. }))),
                }
            }
            assert_eq!(held, expected, "{name}");
        }
        assert!(matches!(receive("f", full()).await, Err(ApiError::TooManyRequests { .. })));
        // Those who are exempt from other limits.
        let master = User::authenticated("root", &[user::MASTERS]);
        assert_eq!(Receiving::from_client(&pool, &master, full()).read().await.unwrap().len(), 3 << 20);
        assert_eq!(Receiving::from_component(full()).read().await.unwrap().len(), 3 << 20);
        drop(under_way);
        assert_eq!(receive("f", full()).await.unwrap().len(), 3 << 20);
        assert_eq!(pool.taken(), 0);
    }
}
