//! ServiceAccount: every pod runs as a service account that exists, and its containers find a token
//! for it under the well-known path.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod, PodSpec,
    ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::auth::pod_references::{Referent, references_of};

const DEFAULT_NAME: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and the seven seconds by which upstream marks a token that may be extended.
pub(crate) const TOKEN_SECONDS: i64 = 3607;
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Sets what a pod needs to run as its service account.
///
/// `account` is the one that the pod names; `suffix` makes the volume's name unique.
///
/// # Errors
/// Why the pod is refused.
pub(super) fn admit(
    pod: &mut Pod,
    namespace: &str,
    account: Option<ServiceAccount>,
    suffix: &str,
) -> Result<(), String> {
    if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_ANNOTATION)) {
        return judge_mirror(pod);
    }
    let name = name_of(pod).to_owned();
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let account = account.ok_or_else(|| {
        format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found")
    })?;
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
    if spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true) {
        mount_token(spec, suffix);
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets = account.image_pull_secrets.filter(|s| !s.is_empty());
    }
    Ok(())
}

/// The account that a pod runs as.
pub(super) fn name_of(pod: &Pod) -> &str {
    let named = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref());
    named.filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAME)
}

/// The node made this pod from a file: it must not reach into the API by it.
fn judge_mirror(pod: &Pod) -> Result<(), String> {
    let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if references_of(pod).iter().any(|(kind, _)| *kind == Referent::Secret) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let projected = spec.volumes.iter().flatten().filter_map(|v| v.projected.as_ref());
    if projected.flat_map(|p| p.sources.iter().flatten()).any(|s| s.service_account_token.is_some()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    Ok(())
}

fn mount_token(spec: &mut PodSpec, suffix: &str) {
    let existing = spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME_PREFIX) && v.projected.is_some());
    let has_volume = existing.is_some();
    let volume_name = existing.map_or_else(|| format!("{VOLUME_PREFIX}{suffix}"), |v| v.name.clone());
    let mut needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|m| m.mount_path != MOUNT_PATH) {
            mounts.push(VolumeMount {
                name: volume_name.clone(),
                mount_path: MOUNT_PATH.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
            needed = true;
        }
    }
    if needed && !has_volume {
        spec.volumes.get_or_insert_default().push(token_volume(volume_name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        audience: None,
    };
    let ca = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(ca), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn admitted(spec: &Value, account: &Value) -> Result<Value, String> {
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        let account = (!account.is_null()).then(|| Deserialize::deserialize(account).unwrap());
        admit(&mut pod, "a", account, "x7k2p").map(|()| serde_json::to_value(pod).unwrap()["spec"].take())
    }

    #[test]
    fn a_bare_pod_gets_the_default_account_and_its_token() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
        let got = admitted(&spec, &json!({"metadata": {}, "imagePullSecrets": [{"name": "pull"}]})).unwrap();
        let mount = json!([{"name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": MOUNT_PATH}]);
        let volume = json!({"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
        assert_eq!(
            got,
            json!({
                "containers": [{"name": "c", "volumeMounts": mount}],
                "initContainers": [{"name": "i", "volumeMounts": mount}],
                "imagePullSecrets": [{"name": "pull"}],
                "serviceAccount": "default",
                "serviceAccountName": "default",
                "volumes": [volume],
            })
        );
    }

    #[test]
    fn the_pod_wins_over_the_account() {
        let spec = |auto: Option<bool>| json!({"containers": [{"name": "c"}], "automountServiceAccountToken": auto});
        let account = json!({"metadata": {}, "automountServiceAccountToken": false});
        assert_eq!(admitted(&spec(None), &account).unwrap()["volumes"], Value::Null);
        assert_eq!(admitted(&spec(Some(true)), &account).unwrap()["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(admitted(&spec(Some(false)), &json!({"metadata": {}})).unwrap()["volumes"], Value::Null);
    }

    #[test]
    fn a_mount_at_the_path_is_kept_and_a_volume_of_the_kind_used() {
        let spec = json!({
            "containers": [{"name": "c", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}, {"name": "d"}],
            "volumes": [{"name": "kube-api-access-abcde", "projected": {}}]});
        let got = admitted(&spec, &json!({"metadata": {}})).unwrap();
        assert_eq!(got["containers"][0]["volumeMounts"][0]["name"], "own");
        assert_eq!(got["containers"][1]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        assert_eq!(got["volumes"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_account_that_is_not_there_refuses_the_pod() {
        let spec = json!({"containers": [], "serviceAccountName": "x"});
        assert_eq!(
            admitted(&spec, &Value::Null),
            Err("error looking up service account a/x: serviceaccount \"x\" not found".into())
        );
    }

    #[test]
    fn a_mirror_pod_reaches_nothing() {
        #[track_caller]
        fn check(spec: &Value, expected: Result<(), &str>) {
            let metadata = json!({"annotations": {MIRROR_ANNOTATION: "x"}});
            let mut pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            let got = admit(&mut pod, "a", None, "");
            assert_eq!(got, expected.map_err(str::to_owned), "{spec}");
        }
        check(&json!({"containers": []}), Ok(()));
        check(
            &json!({"containers": [], "serviceAccountName": "x"}),
            Err("a mirror pod may not reference service accounts"),
        );
        check(
            &json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            Err("a mirror pod may not reference secrets"),
        );
    }
}
