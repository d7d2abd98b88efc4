//! A PersistentVolume that is bound to a claim stays until it is not.

use api::object::{GroupResource, ObjectKey};
use client::{Cluster, Controller, Outcome, Reconcile, Writes};
use k8s_openapi::api::core::v1::PersistentVolume;
use tokio_util::sync::CancellationToken;

use crate::protection;

const ACCOUNT: &str = "pv-protection-controller";
const FINALIZER: &str = "kubernetes.io/pv-protection";

struct Reconciler(Cluster);

/// Runs the PersistentVolume protection controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    Controller::new(Reconciler(cluster.clone()), cluster, client).reconciles::<PersistentVolume>().run(token).await;
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "persistentvolume-protection-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let object = self.0.source().get(&GroupResource::of::<PersistentVolume>(), key);
        let Some(object) = object else { return Ok(Outcome::Done) };
        // One that cannot be read may be bound.
        let step = protection::step(&object.index, FINALIZER, || object.decode().map_or(true, |v| is_bound(&v)));
        protection::apply::<PersistentVolume>(w, &object, FINALIZER, step).await?;
        Ok(Outcome::Done)
    }
}

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolumeStatus;

    use super::*;

    #[test]
    fn only_a_bound_volume_is_in_use() {
        for (phase, expected) in
            [(None, false), (Some("Available"), false), (Some("Released"), false), (Some("Bound"), true)]
        {
            let status =
                PersistentVolumeStatus { phase: phase.map(str::to_owned), ..PersistentVolumeStatus::default() };
            assert_eq!(is_bound(&PersistentVolume { status: Some(status), ..PersistentVolume::default() }), expected);
        }
    }
}
