//! The pods of a StatefulSet: their names, identity and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use super::claims;
use crate::claim;
use crate::pod_control;

pub(super) const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// The ordinal in a pod's name, if the name is one that this set gives.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

pub(super) fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// A pod of the given revision's template.
pub(super) fn new_pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let meta = &set.metadata;
    let name = pod_name(meta.name.as_deref().unwrap_or_default(), ordinal);
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_control::from_template(template, namespace, claim::controller_ref::<StatefulSet>(meta));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.hostname = Some(name.clone());
        pod_spec.subdomain = spec.service_name.clone().filter(|s| !s.is_empty());
        let templates = spec.volume_claim_templates.iter().flatten();
        let claimed: BTreeMap<String, Volume> =
            templates.map(|t| volume(t, &name)).map(|volume| (volume.name.clone(), volume)).collect();
        let volumes = pod_spec.volumes.get_or_insert_default();
        // A claim takes the place of a volume of the same name in the template.
        volumes.retain(|v| !claimed.contains_key(&v.name));
        volumes.extend(claimed.into_values());
    }
    pod.metadata.name = Some(name);
    pod
}

fn volume(template: &PersistentVolumeClaim, pod: &str) -> Volume {
    Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claims::name(template, pod),
            read_only: None,
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_read_from_names_that_the_set_gives() {
        let rows = [("web-0", Some(0)), ("web-12", Some(12)), ("web-01", None), ("web-a-1", None), ("webs-1", None)];
        for (name, expected) in rows {
            assert_eq!(ordinal("web", name), expected, "{name}");
        }
    }

    #[test]
    fn each_claim_template_becomes_one_volume_in_the_place_of_its_namesake() {
        let template = |name: &str| serde_json::json!({"metadata": {"name": name}});
        let set: StatefulSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "db", "namespace": "prod"},
            "spec": {
                "selector": {}, "serviceName": "dbs",
                "volumeClaimTemplates": [template("data"), template("data"), template("log")],
                "template": {"spec": {"hostname": "x", "containers": [],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}]}},
            },
        }))
        .unwrap();
        let spec = set.spec.as_ref().unwrap();
        let pod = new_pod(&set, spec, &spec.template, "r", 2).spec.unwrap();
        let claim = |v: &Volume| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
        let volumes: Vec<_> = pod.volumes.iter().flatten().map(|v| (v.name.as_str(), claim(v))).collect();
        let of = |name: &str| Some(name.to_owned());
        assert_eq!(volumes, [("run", None), ("data", of("data-db-2")), ("log", of("log-db-2"))]);
        assert_eq!((pod.hostname, pod.subdomain), (of("db-2"), of("dbs")));
    }
}
