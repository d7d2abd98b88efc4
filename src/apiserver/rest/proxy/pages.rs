//! The pages that are held in memory to have their links put right: how many at a time, and whose.
//!
//! Requests through a proxy take as long as they like, so they are not counted in flight; their pages are.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use parking_lot::Mutex;

use crate::auth::user;
use crate::error::ApiError;

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

/// How many pages are held, by whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Pages(Arc<Mutex<HashMap<String, usize>>>);

/// A place for one page, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pages: Arc<Mutex<HashMap<String, usize>>>,
    turn: String,
}

impl Pages {
    /// A place for a page of whoever takes this turn.
    ///
    /// # Errors
    /// 429 where too many are held.
    pub(super) fn enter(&self, turn: &str) -> Result<Place, ApiError> {
        let mut held = self.0.lock();
        let share = if turn == user::MASTERS { PAGES } else { PAGES_OF_ONE };
        let own = held.get(turn).copied().unwrap_or_default();
        if own >= share || held.values().sum::<usize>() >= PAGES {
            let message = "Too many requests, please try again later.".to_owned();
            return Err(ApiError::TooManyRequests { message, retry_after: 1, causes: Vec::new() });
        }
        *held.entry(turn.to_owned()).or_default() += 1;
        Ok(Place { pages: Arc::clone(&self.0), turn: turn.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.pages.lock();
        if let Some(own) = held.get_mut(&self.turn) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.turn);
            }
        }
    }
}

/// A page and the place that it has for as long as anybody holds its bytes: the connection does, until the
/// client has taken them.
struct Held {
    bytes: Vec<u8>,
    _place: Option<Place>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of a page, which keep its place.
pub(super) fn held(bytes: Vec<u8>, place: Option<Place>) -> Bytes {
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
        assert!(pages.enter("bob").is_err() && pages.enter(user::MASTERS).is_err());
        let taken: Vec<_> = bytes.iter().map(|page| page.slice(1..2)).collect();
        drop(bytes);
        assert!(pages.enter("ann").is_err(), "a part of each is on its way");
        drop((taken, others));
        assert!(pages.0.lock().is_empty());
        let masters: Vec<_> = (0..16).map(|_| pages.enter(user::MASTERS).unwrap()).collect();
        assert!(pages.enter(user::MASTERS).is_err());
        drop(masters);
    }
}
