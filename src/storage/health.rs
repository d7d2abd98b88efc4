//! What the store can do at the moment, as the writer finds out and everybody may read.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// The disk is full: only writes that make room are done.
    Full,
    /// Closed, or found damaged while it was in use: nothing is written any more.
    Closed,
}

/// Shared between the writer and the readers.
#[derive(Debug, Default)]
pub(crate) struct HealthCell(AtomicU8);

impl HealthCell {
    pub(crate) fn get(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            0 => Health::Good,
            1 => Health::Full,
            _ => Health::Closed,
        }
    }

    pub(crate) fn set(&self, health: Health) {
        let number = match health {
            Health::Good => 0,
            Health::Full => 1,
            Health::Closed => 2,
        };
        self.0.store(number, Ordering::Relaxed);
    }
}
