//! The bytes of a watch that the connection has not taken yet: those of one step.

use std::collections::VecDeque;

use axum::body::Bytes;

use crate::handlers::respond::{FRAME_END, Kind, begin_frame, watch_frame};
use crate::negotiate::Media;

/// Smaller frames are copied, which is cheaper than to look for one that others have made.
pub(super) const SHARED_FROM: usize = 4 * 1024;
/// Larger objects are sent from where they are stored, as a piece of their own.
const LARGE: usize = 16 * 1024;
/// What a frame adds to an object, about.
pub(super) const FRAME: usize = 48;

#[derive(Default)]
pub(super) struct Out {
    ready: VecDeque<Bytes>,
    /// Behind what is ready.
    text: Vec<u8>,
}

impl Out {
    /// Whether there is so much.
    pub(super) fn has(&self, bytes: usize) -> bool {
        !self.ready.is_empty() || self.text.len() >= bytes
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        if frame.len() < SHARED_FROM {
            self.text.extend_from_slice(&frame);
        } else {
            self.end_text();
            self.ready.push_back(frame);
        }
    }

    /// An event in JSON, whose object is sent as it is stored.
    pub(super) fn push_stored(&mut self, kind: Kind, json: &Bytes) {
        if json.len() < LARGE {
            self.text.reserve(json.len() + FRAME);
            watch_frame(Media::Json, kind, json, &mut self.text);
            return;
        }
        begin_frame(kind, &mut self.text);
        self.end_text();
        self.ready.push_back(json.clone());
        self.text.extend_from_slice(FRAME_END);
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.text).into());
        }
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        let ready = self.ready.pop_front();
        ready.or_else(|| (!self.text.is_empty()).then(|| std::mem::take(&mut self.text).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_are_put_together_and_large_ones_are_not_copied() {
        let mut out = Out::default();
        let (small, large) = (Bytes::from("{}"), Bytes::from(vec![b' '; LARGE]));
        out.push_stored(Kind::Added, &small);
        out.push_stored(Kind::Deleted, &small);
        out.push_stored(Kind::Added, &large);
        out.push("frame".into());
        let shared = Bytes::from(vec![b'f'; SHARED_FROM]);
        out.push(shared.clone());
        let pieces: Vec<Bytes> = std::iter::from_fn(|| out.next()).collect();
        let head =
            "{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"DELETED\",\"object\":{}}\n{\"type\":\"ADDED\",\"object\":";
        assert_eq!(pieces.len(), 4);
        assert_eq!((&pieces[0][..], &pieces[2][..]), (head.as_bytes(), &b"}\nframe"[..]));
        assert_eq!((pieces[1].as_ptr(), pieces[3].as_ptr()), (large.as_ptr(), shared.as_ptr()));
    }
}
