//! Old events go: an hour after their last write, as with upstream's `--event-ttl`, and earlier when
//! a storm makes more of them than a small machine should keep.
//!
//! The age of an event is told by its revision, not by the times in it: those come from clients, and
//! from clocks that a board without a battery sets long after it booted. Revisions that were given out
//! an hour ago belong to writes of an hour ago. After a restart the hour begins anew, as a lease of
//! etcd does when its leader changes.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use storage::Scope;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::registry::{ObjectEntry, Refusal, Registry, Resource};
use crate::server::ApiServer;

const TTL: Duration = Duration::from_secs(60 * 60);
/// Upstream's leases are as exact.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Removed together; the writes of clients come in between.
const BATCH: usize = 100;

/// How many events there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// With this many, the oldest go.
    most: usize,
    /// Until so many are left.
    kept: usize,
}

/// An hour of a busy cluster of some dozen nodes; at about a kilobyte each, 10 MB of memory and card.
const LIMITS: Limits = Limits { most: 10_000, kept: 9_000 };

impl ApiServer {
    /// Removes old events until cancelled.
    pub async fn expire_events(self: Arc<Self>, cancel: CancellationToken) {
        let Some(events) = self.registry.resources().get("", "events") else { return };
        let mut marks = Marks::default();
        loop {
            sweep(&self.registry, events, &mut marks, LIMITS, Instant::now()).await;
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = many_new(&self.registry, events, LIMITS.most - LIMITS.kept) => {}
            }
        }
    }
}

/// Returns when so many events were written that the limit may be passed.
async fn many_new(registry: &Registry, events: &Resource, many: usize) {
    let Ok(mut watch) = registry.watch(events, registry.storage().revision()) else { return };
    let mut seen = 0;
    while seen < many {
        match watch.next().await {
            Ok(changes) => seen += changes.iter().filter(|c| !c.deleted).count(),
            // More than the ring holds: certainly many.
            Err(_) => return,
        }
    }
}

/// Which revision was the newest at which time.
#[derive(Debug, Default)]
struct Marks {
    recent: VecDeque<(Instant, u64)>,
    /// Everything up to this revision has expired.
    expired: u64,
}

impl Marks {
    fn note(&mut self, now: Instant, revision: u64) {
        if self.recent.back().is_none_or(|(_, newest)| *newest < revision) && revision > self.expired {
            self.recent.push_back((now, revision));
        }
        while let Some((at, revision)) = self.recent.front()
            && *at + TTL <= now
        {
            self.expired = *revision;
            self.recent.pop_front();
        }
    }
}

async fn sweep(registry: &Registry, events: &Resource, marks: &mut Marks, limits: Limits, now: Instant) {
    marks.note(now, registry.storage().revision());
    let all = all_of(registry, events);
    for batch in doomed(all, marks.expired, limits).chunks(BATCH) {
        let removals = batch.iter().map(|event| {
            let key = &event.index.key;
            registry.delete(events, &key.namespace, &key.name, Some(event.revision))
        });
        for result in join_all(removals).await {
            if let Err(Refusal::Failed(error)) = result {
                return tracing::warn!(%error, "cannot remove old events");
            }
            // One that was written or deleted meanwhile is not old, or not there.
        }
    }
}

fn all_of(registry: &Registry, events: &Resource) -> Vec<Arc<ObjectEntry>> {
    let mut all = Vec::new();
    let scope = Scope { collection: &events.collection, prefix: "", start: "" };
    let scan = registry.storage().scan(scope, None, |entry| {
        all.push(Arc::clone(entry));
        ControlFlow::Continue(())
    });
    debug_assert!(scan.is_ok(), "invariant: the present is always known");
    all
}

/// The events that must go, oldest first.
fn doomed(mut all: Vec<Arc<ObjectEntry>>, expired: u64, limits: Limits) -> Vec<Arc<ObjectEntry>> {
    let excess = if all.len() > limits.most { all.len() - limits.kept } else { 0 };
    if excess > 0 {
        tracing::warn!(events = all.len(), removed = excess, "too many events: the oldest are removed early");
    }
    all.sort_unstable_by_key(|event| event.revision);
    let old = all.partition_point(|event| event.revision <= expired);
    all.truncate(old.max(excess));
    all
}

#[cfg(test)]
mod tests;
