//! The objects of a collection that a selection selects, as of one revision.
//!
//! Nothing is matched under the cache's lock: a slice of the collection is taken, then matched, and others
//! have their turn in between. What may cost much is done in the room. Later slices are of the revision of
//! the first, so that writes in between are not seen.

use std::ops::ControlFlow;
use std::sync::Arc;

use storage::{Gone, Scope};
use tokio::task::yield_now;

use super::context::Context;
use super::selection::Selection;
use crate::error::ApiError;
use crate::registry::{ObjectEntry, Registry};
use crate::room::{self, Load};

/// Objects that are matched before the lock is asked for again.
const SLICE: usize = 256;
/// As of an older revision each slice undoes what came after it, which may be thousands of changes.
const SLICE_OF_OLD: usize = 4_096;
/// Lookups in selectors after which others have their turn: some tenths of a millisecond.
pub(super) const TURN: usize = 4_096;

/// Which of the selected objects are wanted, and as of when.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    /// The first item; empty for the beginning.
    pub(super) start: String,
    /// Now, if it is none.
    pub(super) at: Option<u64>,
    /// All, if it is 0.
    pub(super) limit: usize,
}

/// Selected objects in key order.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Arc<ObjectEntry>>,
    pub(super) revision: u64,
    /// What there is beyond the limit: counted where all is selected, else 1 for any.
    pub(super) beyond: usize,
}

/// Finds the selected objects of a request's collection.
///
/// # Errors
/// When the room fails; [`Gone`] within when the revision is too old.
pub(super) async fn find(
    cx: &Context<'_>,
    selection: &Arc<Selection>,
    range: Range,
) -> Result<Result<Found, Gone>, ApiError> {
    let is_scattered = cx.resource.row.namespaced && selection.namespace.is_empty();
    let only = selection.name().filter(|_| !is_scattered).map(|name| cx.resource.item(&selection.namespace, name));
    let collection = &cx.resource.collection;
    let registry = cx.registry();
    if only.is_some() || selection.is_everything() {
        return Ok(at_once(registry, collection, selection, only.as_deref(), &range));
    }
    let lookups = registry.storage().collection_entries(collection) * selection.conditions();
    let load = Load { passing: lookups, ..Load::default() };
    let walk = Walk {
        registry: registry.clone(),
        collection: collection.clone(),
        prefix: selection.prefix(),
        selection: Arc::clone(selection),
        range,
    };
    if !load.is_heavy() {
        return Ok(walk.run().await);
    }
    cx.server.room.run(room::turn(cx.user), load, |_| async move { Ok(walk.run().await) }).await
}

/// All objects, or the only one that may be selected.
fn at_once(
    registry: &Registry,
    collection: &str,
    selection: &Selection,
    only: Option<&str>,
    range: &Range,
) -> Result<Found, Gone> {
    let mut found = Found::default();
    let prefix = selection.prefix();
    let scope = Scope { collection, prefix: &prefix, start: only.unwrap_or("").max(&range.start) };
    found.revision = registry.storage().scan(scope, range.at, |entry| {
        if only.is_some_and(|only| *entry.key.item != *only) {
            return ControlFlow::Break(());
        }
        if range.limit > 0 && found.entries.len() == range.limit {
            found.beyond += 1;
        } else if only.is_none() || selection.matches(&entry.index) {
            found.entries.push(Arc::clone(entry));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// A way through a collection.
struct Walk {
    registry: Registry,
    collection: String,
    prefix: String,
    selection: Arc<Selection>,
    range: Range,
}

impl Walk {
    async fn run(&self) -> Result<Found, Gone> {
        if self.range.at.is_some() {
            return self.in_slices(SLICE_OF_OLD).await;
        }
        match self.in_slices(SLICE).await {
            // So many changes in between that the first slice's revision is forgotten: all are taken at once.
            Err(Gone { .. }) => self.in_slices(usize::MAX).await,
            found => found,
        }
    }

    async fn in_slices(&self, size: usize) -> Result<Found, Gone> {
        let mut found = Found::default();
        let (mut start, mut at, mut lookups) = (self.range.start.clone(), self.range.at, 0);
        loop {
            let (slice, revision) = self.slice(&start, at, size)?;
            found.revision = revision;
            let is_last = slice.len() < size;
            if let Some(last) = slice.last() {
                start = format!("{}\0", last.key.item);
            }
            at = Some(revision);
            for entry in slice {
                lookups += self.selection.lookups(&entry.index);
                if self.selection.matches(&entry.index) {
                    if self.range.limit > 0 && found.entries.len() == self.range.limit {
                        found.beyond = 1;
                        return Ok(found);
                    }
                    found.entries.push(entry);
                }
                if lookups >= TURN {
                    lookups = 0;
                    yield_now().await;
                }
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    fn slice(&self, start: &str, at: Option<u64>, size: usize) -> Result<(Vec<Arc<ObjectEntry>>, u64), Gone> {
        let mut slice = Vec::new();
        let scope = Scope { collection: &self.collection, prefix: &self.prefix, start };
        let revision = self.registry.storage().scan(scope, at, |entry| {
            slice.push(Arc::clone(entry));
            if slice.len() == size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((slice, revision))
    }
}

#[cfg(test)]
mod tests;
