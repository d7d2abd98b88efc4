//! Every namespace has the ServiceAccount `default`.

use api::object::{GroupResource, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Reconcile, Writes, status};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "service-account-controller";
const DEFAULT: &str = "default";

struct Reconciler {
    cluster: Cluster,
}

/// Runs the ServiceAccount controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    Controller::new(Reconciler { cluster: cluster.clone() }, cluster, client)
        .reconciles::<Namespace>()
        .watches::<ServiceAccount>(|change| namespace_of_deleted(change, DEFAULT))
        .run(token)
        .await;
}

/// The namespace whose object of this name has gone.
pub(crate) fn namespace_of_deleted(change: &Change, name: &str) -> Vec<ObjectKey> {
    match change {
        Change::Deleted { object } if *object.index.key.name == *name => {
            vec![ObjectKey { namespace: "".into(), name: object.index.key.namespace.clone() }]
        }
        Change::Deleted { .. } | Change::Applied { .. } | Change::Synced | Change::Resync => Vec::new(),
    }
}

/// Whether things may still be made in the namespace.
pub(crate) fn is_active(cluster: &Cluster, namespace: &ObjectKey) -> bool {
    let found = cluster.source().get(&GroupResource::of::<Namespace>(), namespace);
    found.is_some_and(|n| !n.index.deleting)
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "serviceaccount-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let account = ObjectKey { namespace: key.name.clone(), name: DEFAULT.into() };
        let exists = self.cluster.source().get(&GroupResource::of::<ServiceAccount>(), &account).is_some();
        if exists || !is_active(&self.cluster, key) {
            return Ok(Outcome::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.to_owned()),
                namespace: Some(key.name.to_string()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match w.create(&account).await {
            Err(e) if !status::is_already_exists(&e) && !status::is_namespace_terminating(&e) => Err(e),
            Ok(_) | Err(_) => Ok(Outcome::Done),
        }
    }
}
