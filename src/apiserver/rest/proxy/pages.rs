//! The pages that are held in memory to have their links put right: how many at a time, and whose.
//!
//! Requests through a proxy take as long as they like, so they are not counted in flight; their pages are.

use std::sync::Arc;

use axum::body::Bytes;

use crate::error::ApiError;
use crate::shares::{Pass, Pool};

/// Pages beyond this pass with the links that they have: no page that people read is so long. It bounds
/// what a packed page unpacks to, too.
pub(super) const PAGE: usize = 1024 * 1024;
/// What a page may become, since each link grows by the path of the proxy.
pub(super) const MENDED: usize = 2 * PAGE;
/// Smaller pages take no more than the connections on which they come.
pub(super) const COUNTED_FROM: usize = 16 * 1024;
/// Larger pages at a time. Each takes some 4 MB at the worst: 64 MB of a board's gigabyte.
const PAGES: usize = 16;
/// Those of one user: a quarter, so that nobody keeps all others out.
const PAGES_OF_ONE: usize = PAGES / 4;

/// The places for pages.
#[derive(Debug)]
pub(crate) struct Pages(Arc<Pool>);

impl Default for Pages {
    fn default() -> Self {
        Self(Pool::new(PAGES, PAGES_OF_ONE))
    }
}

impl Pages {
    /// A place for a page of whoever takes this turn.
    ///
    /// # Errors
    /// 429 where too many are held.
    pub(super) fn enter(&self, turn: &str) -> Result<Pass, ApiError> {
        self.0.enter(turn, 1).map_err(ApiError::from)
    }
}

/// A page and the place that it has for as long as anybody holds its bytes: the connection does, until the
/// client has taken them.
struct Held {
    bytes: Vec<u8>,
    _place: Option<Pass>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of a page, which keep its place.
pub(super) fn held(bytes: Vec<u8>, place: Option<Pass>) -> Bytes {
    Bytes::from_owner(Held { bytes, _place: place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_share_and_bytes_keep_their_place() {
        let pages = Pages::default();
        let bytes: Vec<_> = (0..4).map(|_| held(b"page".to_vec(), Some(pages.enter("ann").unwrap()))).collect();
        let refused = pages.enter("ann").unwrap_err();
        assert_eq!(refused.to_string(), "Too many requests, please try again later.");
        let others: Vec<_> = (0..12).map(|n| pages.enter(&format!("u{}", n % 3)).unwrap()).collect();
        assert!(pages.enter("bob").is_err() && pages.enter("root").is_err());
        let taken: Vec<_> = bytes.iter().map(|page| page.slice(1..2)).collect();
        drop(bytes);
        assert!(pages.enter("ann").is_err(), "a part of each is on its way");
        drop((taken, others));
        assert_eq!(pages.0.taken(), 0);
    }
}
