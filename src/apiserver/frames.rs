//! Events as watches are told them, encoded once for all who want the same form.
//!
//! A write that thousands watch costs one encoding in each form, and a reference for each watch. The newest
//! changes are kept, up to so many bytes; whoever lags behind them encodes for themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::ApiError;
use crate::handlers::EventKind;
use crate::negotiate::Output;

/// The frames of one change: a hundred of the largest pods, or two of the largest objects.
const MOST_BYTES: usize = 4 << 20;
/// What a frame takes beside its bytes.
const BOOKKEEPING: usize = 256;

/// A frame among those of one change. Together with the kind of the event the revision says what is told: the new
/// version, or the old one to whoever no longer sees the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) kind: EventKind,
    /// How objects of the version begin.
    pub(crate) type_prefix: Arc<str>,
    pub(crate) output: Output,
}

type Cell = Arc<OnceCell<Bytes>>;

/// The frames of the newest changes.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_revision: BTreeMap<u64, Vec<Slot>>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    form: Form,
    frame: Cell,
    bytes: usize,
}

impl Frames {
    /// The frame of the change at a revision in this form. While one watch encodes it, the others wait; if its
    /// client vanishes, the next one encodes.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(crate) async fn get(
        &self,
        revision: u64,
        form: &Form,
        encode: impl Future<Output = Result<Bytes, ApiError>>,
    ) -> Result<Bytes, ApiError> {
        let cell = self.0.lock().cell(revision, form);
        if let Some(frame) = cell.get() {
            return Ok(frame.clone());
        }
        let encoded = || async {
            let frame = encode.await?;
            self.0.lock().charge(revision, &cell, frame.len());
            Ok(frame)
        };
        cell.get_or_try_init(encoded).await.cloned()
    }

    /// How many frames are kept.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().by_revision.values().flatten().filter(|slot| slot.frame.initialized()).count()
    }
}

impl Kept {
    fn cell(&mut self, revision: u64, form: &Form) -> Cell {
        let slots = self.by_revision.entry(revision).or_default();
        if let Some(slot) = slots.iter().find(|slot| slot.form == *form) {
            return Arc::clone(&slot.frame);
        }
        let frame = Cell::default();
        slots.push(Slot { form: form.clone(), frame: Arc::clone(&frame), bytes: BOOKKEEPING });
        self.bytes += BOOKKEEPING;
        self.trim();
        frame
    }

    /// Counts the bytes of a frame, unless it was let go meanwhile.
    fn charge(&mut self, revision: u64, frame: &Cell, bytes: usize) {
        let slots = self.by_revision.get_mut(&revision);
        if let Some(slot) = slots.and_then(|slots| slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.frame, frame))) {
            slot.bytes += bytes;
            self.bytes += bytes;
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.bytes > MOST_BYTES
            && let Some((_, slots)) = self.by_revision.pop_first()
        {
            self.bytes -= slots.iter().map(|slot| slot.bytes).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    fn form(kind: EventKind) -> Form {
        Form { kind, type_prefix: "{".into(), output: Output::JSON }
    }

    #[tokio::test]
    async fn many_wait_for_one_encoding_and_share_it() {
        let (frames, encoded) = (Frames::default(), AtomicUsize::new(0));
        let encode = || async {
            tokio::task::yield_now().await;
            encoded.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![b'x'; 100]))
        };
        let (added, modified) = (form(EventKind::Added), form(EventKind::Modified));
        let all = join_all((0..2_000).map(|_| frames.get(7, &modified, encode()))).await;
        let first = all[0].as_ref().unwrap();
        assert!(all.iter().all(|frame| frame.as_ref().unwrap().as_ptr() == first.as_ptr()), "not a copy each");
        frames.get(7, &added, encode()).await.unwrap();
        frames.get(8, &modified, encode()).await.unwrap();
        assert_eq!((encoded.load(Ordering::Relaxed), frames.count()), (3, 3));
    }

    #[tokio::test]
    async fn whoever_vanishes_or_fails_leaves_the_encoding_to_the_next() {
        let (frames, form) = (Frames::default(), form(EventKind::Added));
        {
            let mut vanishes = Box::pin(frames.get(1, &form, std::future::pending()));
            assert!(futures::poll!(&mut vanishes).is_pending());
        }
        let fails = frames.get(1, &form, async { Err(ApiError::internal("as meant")) }).await;
        assert!(fails.is_err());
        assert_eq!(frames.get(1, &form, async { Ok("x".into()) }).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn the_newest_changes_are_kept_within_the_bytes() {
        let (frames, form) = (Frames::default(), form(EventKind::Added));
        let large = || async { Ok(Bytes::from(vec![b'x'; MOST_BYTES / 4])) };
        for revision in 1..=10 {
            frames.get(revision, &form, large()).await.unwrap();
            assert!(frames.0.lock().bytes <= MOST_BYTES);
        }
        let kept: Vec<u64> = frames.0.lock().by_revision.keys().copied().collect();
        assert_eq!(kept, [8, 9, 10]);
        frames.get(1, &form, large()).await.unwrap();
        assert_eq!(
            frames.0.lock().by_revision.keys().copied().collect::<Vec<_>>(),
            [8, 9, 10],
            "who lags evicts nobody"
        );
        frames.get(11, &form, async { Ok(Bytes::from(vec![b'x'; 2 * MOST_BYTES])) }).await.unwrap();
        let kept = frames.0.lock();
        assert_eq!((kept.bytes, kept.by_revision.len()), (0, 0));
    }
}
