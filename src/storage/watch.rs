//! A reader's position in the changes of one collection.
//!
//! A watch holds no queue: it is woken, reads what came after its position from the ring, and moves
//! on. A reader that falls behind the ring learns so by [`Gone`].

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::codec::Event;
use crate::error::Gone;

/// Events handed out at once: bounds what one slow connection keeps alive outside of the ring.
const BATCH: usize = 256;

/// The changes of one collection after a revision.
#[derive(Debug)]
pub struct Watch<I> {
    cache: Arc<RwLock<Cache<I>>>,
    collection: Arc<str>,
    position: u64,
    published: watch::Receiver<u64>,
}

impl<I> Watch<I> {
    /// Begins after `revision`, which may lie in the future.
    pub(crate) fn new(cache: Arc<RwLock<Cache<I>>>, collection: &str, revision: u64) -> Result<Self, Gone> {
        let known = cache.read().subscribe(collection);
        let published = known.unwrap_or_else(|| cache.write().ensure(collection));
        cache.read().events_after(collection, revision, 0, 0)?;
        Ok(Self { cache, collection: collection.into(), position: revision, published })
    }

    /// Every change up to this revision has been handed out.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The changes that are there now; may be none.
    ///
    /// # Errors
    /// [`Gone`] when the ring no longer reaches back to the position.
    pub fn ready(&mut self) -> Result<Vec<Arc<Event<I>>>, Gone> {
        self.take(usize::MAX)
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<Arc<Event<I>>>, Gone> {
        self.published.borrow_and_update();
        let (events, position) = self.cache.read().events_after(&self.collection, self.position, BATCH, bytes)?;
        self.position = position;
        Ok(events)
    }

    /// The next changes, at least one. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`Gone`] when the ring no longer reaches back to the position.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event<I>>>, Gone> {
        self.next_within(usize::MAX).await
    }

    /// The next changes, at least one and none beyond the one that reaches so many bytes. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`Gone`] when the ring no longer reaches back to the position.
    pub async fn next_within(&mut self, bytes: usize) -> Result<Vec<Arc<Event<I>>>, Gone> {
        loop {
            let events = self.take(bytes)?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.published.changed().await.expect("invariant: this watch keeps the sender's cache alive");
        }
    }
}
