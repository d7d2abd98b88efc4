//! How components of this process reach the API server: reads straight from its watch cache, writes
//! through its router, without a socket between.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use apiserver::auth::User;
use apiserver::auth::user::act_as;
use apiserver::{ApiServer, Reader, ReaderEvent};
use client::{By, Change, Cluster, Identity, ObjectSource, Query, Subscription};
use http::Request;
use kube::client::Body;
use tower::ServiceExt;

/// The cluster as this process sees it.
pub(crate) fn cluster(server: &Arc<ApiServer>) -> Cluster {
    let router = server.router();
    Cluster::new(Arc::new(WatchCache(server.reader())), move |identity| connect(&router, identity))
}

/// A client whose requests carry the identity as an extension, which no request from outside can.
fn connect(router: &axum::Router, identity: Identity) -> kube::Client {
    let user =
        Arc::new(User { name: identity.name, uid: String::new(), groups: identity.groups, extra: BTreeMap::new() });
    let service = router.clone().map_request(move |mut request: Request<Body>| {
        act_as(request.extensions_mut(), Arc::clone(&user));
        request.map(axum::body::Body::new)
    });
    kube::Client::new(service, "default")
}

struct WatchCache(Reader);

impl ObjectSource for WatchCache {
    fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Option<Object> {
        self.0.get(resource, key)
    }

    fn is_unreadable(&self, resource: &GroupResource, key: &ObjectKey) -> bool {
        self.0.is_unreadable(resource, key)
    }

    fn list(&self, resource: &GroupResource, query: &Query<'_>) -> Vec<Object> {
        let mut found = match query.by {
            By::All => return self.0.list(resource, query.namespace),
            By::Owner(uid) => self.0.by_owner(resource, uid),
            By::Field(field, value) => self.0.by_field(resource, field, value),
        };
        if let Some(namespace) = query.namespace {
            found.retain(|o| *o.index.key.namespace == *namespace);
        }
        found
    }

    fn revision(&self, resource: &GroupResource) -> u64 {
        self.0.revision(resource)
    }

    fn subscribe(&self, resource: &GroupResource) -> Subscription {
        let changes = futures::stream::unfold(self.0.subscribe(resource), |mut subscription| async move {
            let change = match subscription.next().await? {
                ReaderEvent::Applied { object, old } => Change::Applied { object, old },
                ReaderEvent::Deleted { object } => Change::Deleted { object },
                ReaderEvent::Synced => Change::Synced,
                ReaderEvent::Lagged => Change::Resync,
            };
            Some((change, subscription))
        });
        Subscription::new(changes)
    }
}
