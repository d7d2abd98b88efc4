//! The garbage collector: objects whose owners are gone go too.
//!
//! It keeps no graph of its own. The source answers who names an owner, and only the index of an
//! object is ever looked at. Events say what to look at:
//! an object that has gone, its dependents; one that waits for its dependents, those and itself;
//! one whose owners are not there, itself.

mod plan;
mod requests;

use std::collections::HashMap;
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey, Owner};
use client::{Backoff, Change, Cluster, Query, Tasks, WorkQueue, status};
use futures::stream::{StreamExt, select_all};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::ServedResource;
use plan::{Action, Seen};
use requests::Requests;

const ACCOUNT: &str = "generic-garbage-collector";
const WORKERS: usize = 4;

/// An object to look at: the resource's place in the table, its key, and its UID, for a namesake is
/// another object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    resource: usize,
    key: ObjectKey,
    uid: Arc<str>,
}

struct Collector {
    cluster: Cluster,
    requests: Requests,
    resources: Arc<[ServedResource]>,
    /// Places in the table by API group and kind, as owner references name them.
    kinds: HashMap<(String, String), usize>,
    queue: WorkQueue<Item>,
}

/// Runs the garbage collector until cancelled.
pub(crate) async fn run(cluster: Cluster, resources: Arc<[ServedResource]>, token: CancellationToken) {
    let requests = Requests::new(cluster.as_service_account("kube-system", ACCOUNT));
    let kinds = resources.iter().enumerate().map(|(at, r)| ((r.group.clone(), r.kind.clone()), at)).collect();
    let queue = WorkQueue::new(Backoff::RECONCILE);
    let collector = Arc::new(Collector { cluster, requests, resources, kinds, queue });
    let mut tasks = Tasks::under(&token);
    let feeding = collector.clone();
    tasks.spawn_cancellable("garbage-collector", async move { feeding.feed().await });
    for _ in 0..WORKERS {
        let working = collector.clone();
        tasks.spawn("garbage-collector", async move { working.work().await });
    }
    token.cancelled().await;
    collector.queue.close();
    tasks.shutdown().await;
}

impl Collector {
    fn collected(&self) -> impl Iterator<Item = (usize, &ServedResource)> {
        // Events own nothing and come in numbers.
        self.resources.iter().enumerate().filter(|(_, r)| r.stored && r.resource != "events")
    }

    async fn feed(&self) {
        let streams = self.collected().map(|(at, resource)| {
            self.cluster.source().subscribe(&resource.group_resource()).map(move |change| (at, change)).boxed()
        });
        let mut changes = select_all(streams);
        while let Some((resource, change)) = changes.next().await {
            match change {
                Change::Applied { object, old } => self.see_applied(resource, &object, old.as_ref()),
                Change::Deleted { object } => self.see_deleted(&object),
                Change::Synced => {}
                Change::Resync => self.see_all(),
            }
        }
    }

    fn see_all(&self) {
        for (at, resource) in self.collected() {
            for object in self.cluster.source().list(&resource.group_resource(), &Query::ALL) {
                self.see_applied(at, &object, None);
            }
        }
    }

    fn see_applied(&self, resource: usize, object: &Object, old: Option<&Object>) {
        let index = &object.index;
        let owners_changed = old.is_none_or(|o| o.index.owners != index.owners);
        if (owners_changed && !index.owners.is_empty()) || plan::waits(index) {
            self.add(resource, object);
        }
        // A dependent that was let go may be the last that an owner waited for.
        let lost = old.iter().flat_map(|o| &o.index.owners).filter(|o| !index.owners.contains(o));
        for owner in lost {
            self.add_waiting_owner(owner, &index.key);
        }
    }

    fn see_deleted(&self, object: &Object) {
        for (resource, dependent) in self.dependents(&object.index.uid) {
            self.add(resource, &dependent);
        }
        for owner in &object.index.owners {
            self.add_waiting_owner(owner, &object.index.key);
        }
    }

    fn add(&self, resource: usize, object: &Object) {
        self.queue.add(Item { resource, key: object.index.key.clone(), uid: object.index.uid.clone() });
    }

    fn add_waiting_owner(&self, owner: &Owner, dependent: &ObjectKey) {
        if let Some((resource, object)) = self.find_owner(owner, dependent)
            && plan::waits(&object.index)
        {
            self.add(resource, &object);
        }
    }

    fn dependents(&self, uid: &str) -> Vec<(usize, Object)> {
        self.collected()
            .flat_map(|(at, r)| {
                let found = self.cluster.source().list(&r.group_resource(), &Query::owner(uid));
                found.into_iter().map(move |o| (at, o))
            })
            .collect()
    }

    fn owner_place(&self, owner: &Owner, dependent: &ObjectKey) -> Option<(usize, ObjectKey)> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let at = *self.kinds.get(&(group.to_owned(), owner.kind.to_string()))?;
        let namespace = if self.resources[at].namespaced { dependent.namespace.clone() } else { "".into() };
        Some((at, ObjectKey { namespace, name: (&*owner.name).into() }))
    }

    fn find_owner(&self, owner: &Owner, dependent: &ObjectKey) -> Option<(usize, Object)> {
        let (at, key) = self.owner_place(owner, dependent)?;
        let found = self.cluster.source().get(&self.group_resource(at), &key)?;
        (found.index.uid == owner.uid).then_some((at, found))
    }

    fn group_resource(&self, at: usize) -> GroupResource {
        self.resources[at].group_resource()
    }

    async fn work(&self) {
        while let Some(item) = self.queue.get().await {
            match self.collect(&item).await {
                Ok(()) => self.queue.forget(&item),
                Err(e) if status::is_conflict(&e) || status::is_not_found(&e) => {
                    debug!(key = %item.key, "garbage collector looks again: {}", status::message(&e));
                    self.queue.add_rate_limited(item.clone());
                }
                Err(e) => {
                    warn!(key = %item.key, "garbage collector looks again: {}", status::message(&e));
                    self.queue.add_rate_limited(item.clone());
                }
            }
            self.queue.done(&item);
        }
    }

    async fn collect(&self, item: &Item) -> kube::Result<()> {
        let resource = &self.resources[item.resource];
        let Some(object) = self.cluster.source().get(&resource.group_resource(), &item.key) else { return Ok(()) };
        if object.index.uid != item.uid {
            return Ok(());
        }
        if plan::orphans(&object.index) {
            return self.orphan_dependents(resource, &object).await;
        }
        if plan::waits_for_dependents(&object.index) {
            return self.wait_for_dependents(resource, &object).await;
        }
        if object.index.deleting || object.index.owners.is_empty() {
            return Ok(());
        }
        let owners = self.see_owners(&object).await?;
        let has_dependents = || !self.dependents(&object.index.uid).is_empty();
        match plan::decide(&object.index, &owners, has_dependents) {
            Action::Keep => Ok(()),
            Action::DropReferences(uids) => self.requests.drop_references(resource, &object, &uids).await,
            Action::Delete(propagation) => {
                debug!(resource = %resource.group_resource(), key = %item.key, ?propagation, "collected");
                self.requests.delete(resource, &object, propagation).await
            }
        }
    }

    /// What has become of each owner. That one is gone is believed only of the API server itself.
    async fn see_owners(&self, object: &Object) -> kube::Result<Vec<Seen>> {
        let mut seen = Vec::with_capacity(object.index.owners.len());
        for owner in &object.index.owners {
            seen.push(match self.owner_place(owner, &object.index.key) {
                // Of a kind that is not served nothing is known; its dependents stay.
                None => Seen::Solid,
                Some((at, key)) => match self.find_owner(owner, &object.index.key) {
                    Some((_, found)) if plan::waits_for_dependents(&found.index) => Seen::Waiting,
                    Some(_) => Seen::Solid,
                    None if self.requests.exists(&self.resources[at], &key, &owner.uid).await? => Seen::Solid,
                    None => Seen::Absent,
                },
            });
        }
        Ok(seen)
    }

    async fn orphan_dependents(&self, resource: &ServedResource, owner: &Object) -> kube::Result<()> {
        for (at, dependent) in self.dependents(&owner.index.uid) {
            let dropped = self
                .requests
                .drop_references(&self.resources[at], &dependent, std::slice::from_ref(&owner.index.uid))
                .await;
            match dropped {
                Err(e) if !status::is_not_found(&e) => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        self.requests.drop_finalizer(resource, owner, plan::ORPHAN).await
    }

    async fn wait_for_dependents(&self, resource: &ServedResource, owner: &Object) -> kube::Result<()> {
        let mut blocked = false;
        for (at, dependent) in self.dependents(&owner.index.uid) {
            blocked |= plan::blocks(&dependent.index, &owner.index.uid)
                && !plan::is_circular(&owner.index.uid, &dependent.index, |uid| {
                    self.dependents(uid).into_iter().map(|(_, o)| o.index).collect()
                });
            if !dependent.index.deleting {
                self.add(at, &dependent);
            }
        }
        if blocked { Ok(()) } else { self.requests.drop_finalizer(resource, owner, plan::FOREGROUND).await }
    }
}
