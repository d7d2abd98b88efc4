//! The claims of a StatefulSet's pods: their names, and with whom they go.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::pods::{ordinal, pod_name};
use crate::claim;
use crate::pods::PodView;

pub(super) fn name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The claims of the pod with this ordinal; they belong to the set if they are to go with it.
pub(super) fn wanted(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let pod = pod_name(set.metadata.name.as_deref().unwrap_or_default(), ordinal);
    let make = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let owner = go_when_deleted(spec).then(|| claim::controller_ref::<StatefulSet>(&set.metadata));
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name(template, &pod)),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels).filter(|l| !l.is_empty()),
                annotations: template.metadata.annotations.clone(),
                owner_references: owner.map(|o| vec![o]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    spec.volume_claim_templates.iter().flatten().map(make).collect()
}

fn go_when_deleted(spec: &StatefulSetSpec) -> bool {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    policy.and_then(|p| p.when_deleted.as_deref()) == Some("Delete")
}

fn go_when_scaled(spec: &StatefulSetSpec) -> bool {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    policy.and_then(|p| p.when_scaled.as_deref()) == Some("Delete")
}

/// The owners that a claim of this pod should have, if they are not those that it has: the pod, once
/// it is to be scaled away and its claims with it, else the set where claims go with that. Owners
/// that are neither stay; beside another controller nothing is changed.
pub(super) fn changed_owners(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    pod: &PodView,
    current: &[OwnerReference],
) -> Option<Vec<OwnerReference>> {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let wanted = start..start.saturating_add(spec.replicas.unwrap_or(1));
    let scaled_away = ordinal(set_name, pod.name()).is_none_or(|n| !wanted.contains(&n));
    let is_ours = |o: &&OwnerReference| {
        (o.kind == "StatefulSet" && o.name == set_name)
            || (o.kind == "Pod" && o.api_version == "v1" && o.name == pod.name())
    };
    let (ours, mut owners): (Vec<&OwnerReference>, Vec<&OwnerReference>) = current.iter().partition(is_ours);
    if owners.iter().any(|o| o.controller == Some(true)) {
        return None;
    }
    let owner = if scaled_away && go_when_scaled(spec) {
        let meta = ObjectMeta {
            name: Some(pod.name().to_owned()),
            uid: Some(pod.index.uid.to_string()),
            ..ObjectMeta::default()
        };
        Some(claim::controller_ref::<Pod>(&meta))
    } else {
        go_when_deleted(spec).then(|| claim::controller_ref::<StatefulSet>(&set.metadata))
    };
    let uids = |owners: &[&OwnerReference]| owners.iter().map(|o| o.uid.clone()).collect::<Vec<_>>();
    if uids(&ours) == uids(&owner.iter().collect::<Vec<_>>()) {
        return None;
    }
    owners.extend(&owner);
    Some(owners.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy as Policy;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        let policy = Policy { when_deleted: Some(deleted.into()), when_scaled: Some(scaled.into()) };
        StatefulSet {
            metadata: ObjectMeta { name: Some("web".into()), uid: Some("uid-set".into()), ..ObjectMeta::default() },
            spec: Some(StatefulSetSpec {
                replicas: Some(1),
                persistent_volume_claim_retention_policy: Some(policy),
                ..StatefulSetSpec::default()
            }),
            status: None,
        }
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> OwnerReference {
        OwnerReference {
            api_version: if kind == "Pod" { "v1" } else { "apps/v1" }.into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: Some(controller),
            block_owner_deletion: None,
        }
    }

    /// `Some` uids of the owners that the claim of a pod gets; `web-0` stays, `web-1` is scaled away.
    #[track_caller]
    fn check(policy: (&str, &str), name: &str, current: &[OwnerReference], expected: Option<&[&str]>) {
        let set = set(policy.0, policy.1);
        let got = changed_owners(&set, set.spec.as_ref().unwrap(), &pod(name).view(), current);
        let uids = got.map(|owners| owners.into_iter().map(|o| o.uid).collect::<Vec<_>>());
        assert_eq!(uids, expected.map(|e| e.iter().map(|u| (*u).to_owned()).collect()), "{policy:?} {name}");
    }

    #[test]
    fn claims_go_with_whom_the_policy_says() {
        let of_set = [owner("StatefulSet", "web", "uid-set", true)];
        let of_pod = [owner("Pod", "web-1", "uid-web-1", true)];
        check(("Retain", "Retain"), "web-0", &[], None);
        check(("Retain", "Retain"), "web-0", &of_set, Some(&[]));
        check(("Delete", "Retain"), "web-0", &[], Some(&["uid-set"]));
        check(("Delete", "Retain"), "web-1", &of_set, None);
        check(("Retain", "Delete"), "web-0", &[], None);
        check(("Retain", "Delete"), "web-1", &[], Some(&["uid-web-1"]));
        check(("Delete", "Delete"), "web-1", &of_set, Some(&["uid-web-1"]));
        check(("Delete", "Delete"), "web-1", &of_pod, None);
        let lost = owner("Pod", "web-1", "uid-of-an-earlier-web-1", true);
        check(("Delete", "Delete"), "web-1", &[lost], Some(&["uid-web-1"]));
    }

    #[test]
    fn other_owners_stay_and_another_controller_rules() {
        let other = |controller| owner("Backup", "nightly", "uid-backup", controller);
        check(("Delete", "Retain"), "web-0", &[other(false)], Some(&["uid-backup", "uid-set"]));
        check(("Delete", "Retain"), "web-0", &[other(true)], None);
    }
}
