//! Every namespace has the ConfigMap `kube-root-ca.crt`, by which pods know the API server.

use std::collections::BTreeMap;

use api::object::ObjectKey;
use client::{Change, Cluster, Controller, Outcome, Reconcile, Writes, status};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use crate::serviceaccount::is_active;

const ACCOUNT: &str = "root-ca-cert-publisher";
const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

struct Reconciler {
    cluster: Cluster,
    root_ca: String,
}

/// Runs the root CA publisher until cancelled.
pub(crate) async fn run(cluster: Cluster, root_ca: String, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    Controller::new(Reconciler { cluster: cluster.clone(), root_ca }, cluster, client)
        .reconciles::<Namespace>()
        .watches::<ConfigMap>(namespace_of)
        .run(token)
        .await;
}

fn namespace_of(change: &Change) -> Vec<ObjectKey> {
    let ours = change.key().filter(|k| &*k.name == NAME);
    ours.map(|k| ObjectKey { namespace: "".into(), name: k.namespace.clone() }).into_iter().collect()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "root-ca-certificate-publisher-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        if !is_active(&self.cluster, key) {
            return Ok(Outcome::Done);
        }
        let current = self.cluster.get::<ConfigMap>(&key.name, NAME)?;
        let Some(wanted) = wanted(&key.name, &self.root_ca, current.as_ref()) else { return Ok(Outcome::Done) };
        let result = if current.is_some() { w.update(&wanted).await } else { w.create(&wanted).await };
        match result {
            Err(e) if !status::is_already_exists(&e) && !status::is_namespace_terminating(&e) => Err(e),
            Ok(_) | Err(_) => Ok(Outcome::Done),
        }
    }
}

/// The map to write, or nothing when the one that stands carries exactly the CA.
fn wanted(namespace: &str, root_ca: &str, current: Option<&ConfigMap>) -> Option<ConfigMap> {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let described = |m: &ConfigMap| m.metadata.annotations.iter().flatten().any(|(k, _)| k == DESCRIPTION_KEY);
    if current.is_some_and(|m| m.data.as_ref() == Some(&data) && described(m)) {
        return None;
    }
    let mut map = current.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    map.data = Some(data);
    let annotations = map.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(DESCRIPTION_KEY.to_owned(), DESCRIPTION.to_owned());
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_map_is_set_right_and_a_right_one_is_left() {
        let made = wanted("default", "PEM", None).unwrap();
        assert_eq!(wanted("default", "PEM", Some(&made)), None);
        let renewed = wanted("default", "PEM2", Some(&made)).unwrap();
        assert_eq!(renewed.data.unwrap()[KEY], "PEM2");
        let mut spoiled = made.clone();
        spoiled.data.as_mut().unwrap().insert("extra".into(), "x".into());
        assert_eq!(wanted("default", "PEM", Some(&spoiled)), Some(made));
    }
}
