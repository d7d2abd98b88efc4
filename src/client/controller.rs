//! The loop around a reconciler: changes become keys, keys are reconciled by a few workers, failures
//! come back after a growing delay.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::object::{GroupResource, ObjectKey};
use futures::StreamExt;
use futures::stream::select_all;
use kube::Client;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::source::{Change, Query};
use crate::writes::Pending;
use crate::{Backoff, Cluster, Kind, Tasks, WorkQueue, Writes, status};

/// How long to wait before asking again whether the source shows a key's own writes. Only a source
/// on another machine is ever behind.
const CATCH_UP: Duration = Duration::from_millis(10);

/// What to do with a key that was reconciled without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Look again after this time even if nothing changes.
    RequeueAfter(Duration),
}

/// One controller's work on one key; it may run at any time, twice, or late.
pub trait Reconcile: Send + Sync + 'static {
    /// As upstream names the controller, for logs.
    const NAME: &'static str;

    /// Brings the world one step closer to what the object asks for. A missing object is no error.
    fn reconcile(&self, key: &ObjectKey, writes: &mut Writes) -> impl Future<Output = kube::Result<Outcome>> + Send;
}

type Mapper = Arc<dyn Fn(&Change) -> Vec<ObjectKey> + Send + Sync>;

/// A reconciler with its watches.
pub struct Controller<R> {
    shared: Arc<Shared<R>>,
    watches: Vec<(GroupResource, Mapper)>,
    workers: usize,
}

struct Shared<R> {
    reconciler: R,
    cluster: Cluster,
    client: Client,
    queue: WorkQueue<ObjectKey>,
    /// What each key's last round wrote, until the source shows it.
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

impl<R: Reconcile> Controller<R> {
    /// `client` carries the controller's own identity.
    #[must_use]
    pub fn new(reconciler: R, cluster: Cluster, client: Client) -> Self {
        let queue = WorkQueue::new(Backoff::RECONCILE);
        let shared = Shared { reconciler, cluster, client, queue, pending: Mutex::default() };
        Self { shared: Arc::new(shared), watches: Vec::new(), workers: 1 }
    }

    /// Every change of a `K` enqueues the keys that `map` gives.
    #[must_use]
    pub fn watches<K: Kind>(self, map: impl Fn(&Change) -> Vec<ObjectKey> + Send + Sync + 'static) -> Self {
        self.watches_resource(GroupResource::of::<K>(), map)
    }

    /// The same for a resource without a type of ours.
    #[must_use]
    pub fn watches_resource(
        mut self,
        resource: GroupResource,
        map: impl Fn(&Change) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        self.watches.push((resource, Arc::new(map)));
        self
    }

    /// Every change of a `K` enqueues its own key.
    #[must_use]
    pub fn reconciles<K: Kind>(self) -> Self {
        self.watches::<K>(|change| change.key().cloned().into_iter().collect())
    }

    /// How many keys are worked on at a time.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The queue, for those who enqueue keys by other means.
    #[must_use]
    pub fn queue(&self) -> WorkQueue<ObjectKey> {
        self.shared.queue.clone()
    }

    /// Runs until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let mut tasks = Tasks::under(&token);
        let shared = self.shared.clone();
        tasks.spawn_cancellable(R::NAME, async move { feed(&shared, self.watches).await });
        for _ in 0..self.workers {
            let shared = self.shared.clone();
            tasks.spawn(R::NAME, async move { work(&shared).await });
        }
        token.cancelled().await;
        self.shared.queue.close();
        // The workers finish what they have begun.
        tasks.shutdown().await;
    }
}

async fn feed<R: Reconcile>(shared: &Shared<R>, watches: Vec<(GroupResource, Mapper)>) {
    let streams = watches.iter().enumerate().map(|(index, (resource, _))| {
        let subscription = shared.cluster.source().subscribe(resource);
        subscription.map(move |change| (index, change)).boxed()
    });
    let mut changes = select_all(streams);
    while let Some((index, change)) = changes.next().await {
        match change {
            Change::Synced => {}
            Change::Resync => relist(shared, &watches),
            change @ (Change::Applied { .. } | Change::Deleted { .. }) => {
                for key in (watches[index].1)(&change) {
                    shared.queue.add(key);
                }
            }
        }
    }
}

/// Changes were lost, also deletions: every key that any watched object maps to is due.
fn relist<R: Reconcile>(shared: &Shared<R>, watches: &[(GroupResource, Mapper)]) {
    for (resource, map) in watches {
        for object in shared.cluster.source().list(resource, &Query::ALL) {
            for key in map(&Change::Applied { object, old: None }) {
                shared.queue.add(key);
            }
        }
    }
}

async fn work<R: Reconcile>(shared: &Shared<R>) {
    while let Some(key) = shared.queue.get().await {
        if shared.is_caught_up(&key) {
            let mut writes = Writes::new(shared.client.clone());
            let result = shared.reconciler.reconcile(&key, &mut writes).await;
            let pending = writes.into_pending();
            if !pending.is_empty() {
                shared.pending.lock().insert(key.clone(), pending);
            }
            shared.settle(&key, result);
        } else {
            shared.queue.add_after(key.clone(), CATCH_UP);
        }
        shared.queue.done(&key);
    }
}

impl<R: Reconcile> Shared<R> {
    fn is_caught_up(&self, key: &ObjectKey) -> bool {
        let mut pending = self.pending.lock();
        match pending.get(key) {
            Some(p) if !p.is_seen_by(&**self.cluster.source()) => false,
            Some(_) => {
                pending.remove(key);
                true
            }
            None => true,
        }
    }

    fn settle(&self, key: &ObjectKey, result: kube::Result<Outcome>) {
        match result {
            Ok(Outcome::Done) => self.queue.forget(key),
            Ok(Outcome::RequeueAfter(delay)) => {
                self.queue.forget(key);
                self.queue.add_after(key.clone(), delay);
            }
            // Nothing more can be made there, and what is there goes by itself.
            Err(e) if status::is_namespace_terminating(&e) => {
                debug!(controller = R::NAME, %key, "the namespace is going away");
                self.queue.forget(key);
            }
            Err(e) => {
                let message = status::message(&e);
                if is_worth_a_warning(&e, self.queue.failures(key)) {
                    warn!(controller = R::NAME, %key, "will be tried again: {message}");
                } else {
                    debug!(controller = R::NAME, %key, "will be tried again: {message}");
                }
                self.queue.add_rate_limited(key.clone());
            }
        }
    }
}

/// A refusal is said once: each retry only meets it again, and an event tells of it. Of other failures
/// the first are the ordinary ones: conflicts and races with deletions.
fn is_worth_a_warning(error: &kube::Error, failures_before: u32) -> bool {
    if status::is_forbidden(error) || status::is_invalid(error) { failures_before == 0 } else { failures_before >= 3 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectSource, Subscription};
    use api::object::Object;
    use kube::core::Status;

    struct Nothing;

    impl ObjectSource for Nothing {
        fn get(&self, _: &GroupResource, _: &ObjectKey) -> Option<Object> {
            None
        }

        fn list(&self, _: &GroupResource, _: &Query<'_>) -> Vec<Object> {
            Vec::new()
        }

        fn revision(&self, _: &GroupResource) -> u64 {
            0
        }

        fn subscribe(&self, _: &GroupResource) -> Subscription {
            Subscription::new(futures::stream::empty())
        }
    }

    struct Idle;

    impl Reconcile for Idle {
        const NAME: &'static str = "idle";

        async fn reconcile(&self, _: &ObjectKey, _: &mut Writes) -> kube::Result<Outcome> {
            Ok(Outcome::Done)
        }
    }

    fn refusal(cause: &str) -> kube::Error {
        let status = serde_json::json!({
            "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403,
            "details": { "causes": [{ "reason": cause, "message": "no", "field": "metadata.namespace" }] },
        });
        kube::Error::Api(Box::new(serde_json::from_value::<Status>(status).unwrap()))
    }

    #[test]
    fn a_refusal_is_warned_of_once_and_other_failures_when_they_last() {
        let warned = |error: &kube::Error| (0..6).map(|n| is_worth_a_warning(error, n)).collect::<Vec<_>>();
        assert_eq!(warned(&refusal("SomethingElse")), [true, false, false, false, false, false]);
        let conflict = kube::Error::Api(Box::new(Status::failure("no", "Conflict").with_code(409)));
        assert_eq!(warned(&conflict), [false, false, false, true, true, true]);
    }

    #[tokio::test]
    async fn a_namespace_that_goes_is_not_tried_again() {
        let connect = |_| Client::try_from(kube::Config::new("http://localhost".parse().unwrap())).unwrap();
        let cluster = Cluster::new(Arc::new(Nothing), connect);
        let controller = Controller::new(Idle, cluster.clone(), cluster.as_user("x", &[]));
        let key = ObjectKey::new("shop", "web");
        controller.shared.settle(&key, Err(refusal("SomethingElse")));
        assert_eq!(controller.shared.queue.failures(&key), 1);
        controller.shared.settle(&key, Err(refusal("NamespaceTerminating")));
        assert_eq!(controller.shared.queue.failures(&key), 0);
    }
}
