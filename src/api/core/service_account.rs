//! Service accounts: nothing beyond their metadata is checked; secrets listed by hand draw a warning.

use k8s_openapi::api::core::v1 as api;

use crate::kinds::Kind;

pub(crate) struct ServiceAccount;

impl Kind for ServiceAccount {
    type Object = api::ServiceAccount;

    fn warnings(&self, obj: &api::ServiceAccount) -> Vec<String> {
        const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
        let annotated = obj.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MOUNTABLE));
        let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        annotated.then(|| format!("metadata.annotations[{MOUNTABLE}]: {why}")).into_iter().collect()
    }
}
