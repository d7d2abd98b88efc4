//! A revisioned key-value store with a watch cache, in one file on disk or in memory.
//!
//! Every key belongs to a collection. Each write gets a revision, in commit order; all waiting writes
//! share one transaction and one fsync, and are published to readers and watchers only after it, in
//! the order of their revisions. Readers never touch the disk: the newest version of each entry and
//! the recent changes are held in memory, as encoded bytes beside a small index that the caller's
//! [`Codec`] makes.
//!
//! It knows keys and bytes, not kinds.
//!
//! What is damaged on disk is told apart from what is not there: a store that was there is never
//! replaced by an empty one, a flipped bit is mended, an entry that cannot be read is set aside and
//! named, and where more is lost the store does not open.

mod cache;
mod codec;
mod disk;
mod error;
mod gap;
mod health;
mod history;
mod key;
mod limit;
mod marker;
mod ring;
mod store;
mod watch;
mod writer;

#[cfg(test)]
mod store_tests;

pub use cache::{CollectionStats, Scope, Stats};
pub use codec::{Codec, Content, Entry, Event};
pub use disk::{Backend, Report, SetAside, check, check_in_use};
pub use error::{Gone, OpenError, WriteError};
pub use gap::Gap;
pub use health::Health;
pub use key::Key;
pub use limit::Purpose;
pub use ring::RingLimits;
pub use store::{Options, Storage};
pub use watch::Watch;
pub use writer::{Action, Durability, Expect, Write};
