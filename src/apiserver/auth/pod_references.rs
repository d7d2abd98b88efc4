//! What a pod refers to: the one walk over all places in it that name another object.
//!
//! The node authorizer opens to a node what its pods refer to; admission refuses mirror pods that refer
//! to anything. Both ask here, so that a place which one of them knows is known to the other.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, LocalObjectReference, Pod, PodSpec, Volume};

/// The kinds of object that a pod refers to, and a node reaches through its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Referent {
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    Volume,
    Attachment,
    TrustBundle,
}

pub(crate) type References = HashSet<(Referent, Box<str>)>;

/// Everything that a pod refers to, in its namespace but for trust bundles.
pub(crate) fn references_of(pod: &Pod) -> References {
    let mut found = References::new();
    let Some(spec) = pod.spec.as_ref() else { return found };
    let mut add = |kind, name: Option<&str>| {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            found.insert((kind, name.into()));
        }
    };
    add(Referent::ServiceAccount, spec.service_account_name.as_deref());
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Referent::Secret, Some(&secret.name));
    }
    visit_environment(spec, &mut add);
    for volume in spec.volumes.iter().flatten() {
        visit_volume(volume, pod.metadata.name.as_deref().unwrap_or_default(), &mut add);
    }
    let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    for claim in statuses {
        add(Referent::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    for claim in spec.resource_claims.iter().flatten() {
        // One from a template gets a name of its own, which the status tells.
        add(Referent::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    found
}

fn visit_environment(spec: &PodSpec, add: &mut impl FnMut(Referent, Option<&str>)) {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let sources = containers
        .map(|Container { env, env_from, .. }| (env, env_from))
        .chain(spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from)));
    for (env, env_from) in sources {
        for EnvVar { value_from, .. } in env.iter().flatten() {
            let source = value_from.as_ref();
            add(Referent::Secret, source.and_then(|s| Some(s.secret_key_ref.as_ref()?.name.as_str())));
            add(Referent::ConfigMap, source.and_then(|s| Some(s.config_map_key_ref.as_ref()?.name.as_str())));
        }
        for EnvFromSource { secret_ref, config_map_ref, .. } in env_from.iter().flatten() {
            add(Referent::Secret, secret_ref.as_ref().map(|r| r.name.as_str()));
            add(Referent::ConfigMap, config_map_ref.as_ref().map(|r| r.name.as_str()));
        }
    }
}

fn visit_volume(volume: &Volume, pod: &str, add: &mut impl FnMut(Referent, Option<&str>)) {
    add(Referent::Secret, volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
    add(Referent::ConfigMap, volume.config_map.as_ref().map(|c| c.name.as_str()));
    add(Referent::Claim, volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str()));
    if volume.ephemeral.is_some() {
        add(Referent::Claim, Some(&format!("{pod}-{}", volume.name)));
    }
    for name in driver_secrets(volume).into_iter().flatten() {
        add(Referent::Secret, Some(name));
    }
    let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    for source in projected {
        add(Referent::Secret, source.secret.as_ref().map(|s| s.name.as_str()));
        add(Referent::ConfigMap, source.config_map.as_ref().map(|c| c.name.as_str()));
        let bundle = source.cluster_trust_bundle.as_ref();
        add(Referent::TrustBundle, bundle.and_then(|b| b.name.as_deref().or(b.signer_name.as_deref())));
    }
}

/// The secrets that a volume's driver needs.
fn driver_secrets(volume: &Volume) -> [Option<&str>; 9] {
    fn local(reference: Option<&LocalObjectReference>) -> Option<&str> {
        reference.map(|r| r.name.as_str())
    }
    [
        volume.azure_file.as_ref().map(|a| a.secret_name.as_str()),
        local(volume.cephfs.as_ref().and_then(|c| c.secret_ref.as_ref())),
        local(volume.cinder.as_ref().and_then(|c| c.secret_ref.as_ref())),
        local(volume.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref())),
        local(volume.flex_volume.as_ref().and_then(|f| f.secret_ref.as_ref())),
        local(volume.iscsi.as_ref().and_then(|i| i.secret_ref.as_ref())),
        local(volume.rbd.as_ref().and_then(|r| r.secret_ref.as_ref())),
        local(volume.scale_io.as_ref().map(|s| &s.secret_ref)),
        local(volume.storageos.as_ref().and_then(|s| s.secret_ref.as_ref())),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "serviceAccountName": "sa",
                "imagePullSecrets": [{"name": "pull"}],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "card"}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "debug-secret"}}]}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from-map"}}]}],
                "containers": [{"name": "c", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}}]}],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "vol-secret"}},
                    {"name": "v2", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "v3", "ephemeral": {}},
                    {"name": "v4", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}},
                        {"secret": {"name": "part"}}, {"clusterTrustBundle": {"name": "roots", "path": "p"}}]}},
                    {"name": "v5", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi-secret"}}},
                    {"name": "v6", "cephfs": {"monitors": [], "secretRef": {"name": "ceph-secret"}}},
                    {"name": "v7", "azureFile": {"shareName": "s", "secretName": "azure-secret"}},
                    {"name": "v8", "rbd": {"image": "i", "monitors": [], "secretRef": {"name": "rbd-secret"}}},
                    {"name": "v9", "flexVolume": {"driver": "d", "secretRef": {"name": "flex-secret"}}},
                    {"name": "v10", "iscsi": {"targetPortal": "p", "iqn": "i", "lun": 0,
                        "secretRef": {"name": "iscsi-secret"}}},
                    {"name": "v11", "scaleIO": {"gateway": "g", "system": "s", "secretRef": {"name": "scale-secret"}}},
                    {"name": "v12", "storageos": {"secretRef": {"name": "os-secret"}}},
                    {"name": "v13", "cinder": {"volumeID": "v", "secretRef": {"name": "cinder-secret"}}}
                ]
            }
        }))
        .unwrap()
    }

    #[test]
    fn every_place_of_a_reference_is_found() {
        let mut found: Vec<String> =
            references_of(&pod()).into_iter().map(|(kind, name)| format!("{kind:?} {name}")).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "Claim claim",
                "Claim web-v3",
                "ConfigMap from-map",
                "ConfigMap kube-root-ca.crt",
                "ResourceClaim card",
                "Secret azure-secret",
                "Secret ceph-secret",
                "Secret cinder-secret",
                "Secret csi-secret",
                "Secret debug-secret",
                "Secret env-secret",
                "Secret flex-secret",
                "Secret iscsi-secret",
                "Secret os-secret",
                "Secret part",
                "Secret pull",
                "Secret rbd-secret",
                "Secret scale-secret",
                "Secret vol-secret",
                "ServiceAccount sa",
                "TrustBundle roots",
            ]
        );
    }
}
