//! StatefulSets: most of the spec is fixed for life.
//!
//! The pod template is validated as the controller completes it: with a volume for each claim template
//! and without host name and subdomain, which come from the pod and the set.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::{template_deadline, validate_selector};
use super::rolling_update::{magnitude, validate_at_most_all, validate_int_or_percent};
use crate::core::persistent_volume_claim::{claim_warnings, default_claim, validate_claim_spec};
use crate::core::pod::default_template;
use crate::core::pod_template::template_warnings;
use crate::core::replication_controller::validate_owned_template;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format::dns1123_label;

pub(crate) struct StatefulSet;

impl Kind for StatefulSet {
    type Object = api::StatefulSet;

    fn default(&self, obj: &mut api::StatefulSet) {
        let spec = obj.spec.get_or_insert_default();
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".to_owned());
        let strategy = spec.update_strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".to_owned());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.partition.get_or_insert(0);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".to_owned());
        retention.when_scaled.get_or_insert_with(|| "Retain".to_owned());
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            default_claim(claim);
        }
    }

    fn validate(&self, obj: &api::StatefulSet, errs: &mut ErrorList) {
        let empty = api::StatefulSetSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&empty), Checks::ALL, &Path::new("spec"), errs);
    }

    /// Parts that an update cannot change, or that were not valid before, do not stand in its way.
    fn validate_update(&self, new: &api::StatefulSet, old: &api::StatefulSet, errs: &mut ErrorList) {
        let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
        let path = Path::new("spec");
        let mut checks = Checks { service_name: false, claim_templates: false, ..Checks::ALL };
        let mut before = ErrorList::new();
        validate_spec(old, checks, &path, &mut before);
        checks.pod_template = before.is_empty();
        validate_spec(new, checks, &path, errs);
        let kept = api::StatefulSetSpec {
            replicas: old.replicas,
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ordinals: old.ordinals.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            ..new.clone()
        };
        if kept != *old {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errs.push(field::forbidden(&path, why));
        }
        let history = i64::from(new.revision_history_limit.unwrap_or(0));
        field::non_negative(&path.child("revisionHistoryLimit"), history, errs);
    }

    fn validate_status_update(&self, new: &api::StatefulSet, old: &api::StatefulSet, errs: &mut ErrorList) {
        let (new, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        validate_status(&new, &old, &Path::new("status"), errs);
    }

    fn warnings(&self, obj: &api::StatefulSet) -> Vec<String> {
        let mut out = template_warnings(obj.spec.as_ref().map(|s| &s.template), "spec.template");
        let history = obj.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(0);
        if history < 0 {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        let claims = obj.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
        for (i, claim) in claims.enumerate() {
            let at = format!("spec.volumeClaimTemplates[{i}]");
            out.extend(claim.spec.iter().flat_map(|spec| claim_warnings(spec, &Path::new(&at))));
        }
        out
    }
}

/// The parts of the spec that are validated; the rest always is.
#[derive(Clone, Copy)]
struct Checks {
    service_name: bool,
    claim_templates: bool,
    pod_template: bool,
}

impl Checks {
    const ALL: Self = Self { service_name: true, claim_templates: true, pod_template: true };
}

fn validate_spec(spec: &api::StatefulSetSpec, checks: Checks, path: &Path<'_>, errs: &mut ErrorList) {
    match spec.pod_management_policy.as_deref().unwrap_or("") {
        "" => errs.push(field::required(&path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let why = "must be 'OrderedReady' or 'Parallel'";
            errs.push(field::invalid(&path.child("podManagementPolicy"), other, why));
        }
    }
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    validate_strategy(&strategy, &path.child("updateStrategy"), errs);
    validate_retention(spec, &path.child("persistentVolumeClaimRetentionPolicy"), errs);
    if checks.claim_templates {
        let at = path.child("volumeClaimTemplates");
        for (i, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_claim_spec(&claim.spec.clone().unwrap_or_default(), &at.index(i).child("spec"), errs);
        }
    }
    field::non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or(0)), errs);
    field::non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or(0)), errs);
    if let Some(start) = spec.ordinals.as_ref().and_then(|o| o.start) {
        field::non_negative(&path.child("ordinals.start"), i64::from(start), errs);
    }
    let selector = validate_selector(Some(&spec.selector), "statefulset", &path.child("selector"), errs);
    if checks.pod_template {
        let template = completed_template(spec);
        validate_owned_template(&template, selector.as_ref(), &path.child("template"), errs);
        if template_deadline(&template) {
            let why = "activeDeadlineSeconds in StatefulSet is not Supported";
            errs.push(field::forbidden(&path.child("template.spec.activeDeadlineSeconds"), why));
        }
    }
    if let Some(name) = spec.service_name.as_deref().filter(|n| !n.is_empty() && checks.service_name) {
        field::invalid_each(&path.child("serviceName"), name, dns1123_label(name), errs);
    }
}

/// The template with what the controller adds to each pod: a claim's volume goes before one of the
/// same name.
fn completed_template(spec: &api::StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let Some(pod) = template.spec.as_mut() else { return template };
    (pod.hostname, pod.subdomain) = (None, None);
    let claims = spec.volume_claim_templates.iter().flatten();
    let names: BTreeSet<&str> = claims.map(|c| c.metadata.name.as_deref().unwrap_or("")).collect();
    if !names.is_empty() {
        let own = pod.volumes.take().unwrap_or_default();
        let claimed = names.iter().map(|name| claim_volume(name));
        pod.volumes = Some(claimed.chain(own.into_iter().filter(|v| !names.contains(v.name.as_str()))).collect());
    }
    template
}

fn claim_volume(name: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), read_only: None };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

fn validate_status(new: &api::StatefulSetStatus, old: &api::StatefulSetStatus, path: &Path<'_>, errs: &mut ErrorList) {
    let counts = [
        ("readyReplicas", new.ready_replicas.unwrap_or(0)),
        ("currentReplicas", new.current_replicas.unwrap_or(0)),
        ("updatedReplicas", new.updated_replicas.unwrap_or(0)),
        ("availableReplicas", new.available_replicas.unwrap_or(0)),
    ];
    for (name, count) in [("replicas", new.replicas)].into_iter().chain(counts) {
        field::non_negative(&path.child(name), i64::from(count), errs);
    }
    field::non_negative(&path.child("observedGeneration"), new.observed_generation.unwrap_or(0), errs);
    field::non_negative(&path.child("collisionCount"), i64::from(new.collision_count.unwrap_or(0)), errs);
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > new.replicas) {
        errs.push(field::invalid(&path.child(name), &count, "cannot be greater than status.replicas"));
    }
    let available = new.available_replicas.unwrap_or(0);
    if available > new.ready_replicas.unwrap_or(0) {
        let why = "cannot be greater than status.readyReplicas";
        errs.push(field::invalid(&path.child("availableReplicas"), &available, why));
    }
    if new.collision_count.unwrap_or(0) < old.collision_count.unwrap_or(0) {
        let at = path.child("collisionCount");
        errs.push(field::invalid(&at, &new.collision_count.unwrap_or(0), "cannot be decremented"));
    }
}

fn validate_strategy(strategy: &api::StatefulSetUpdateStrategy, path: &Path<'_>, errs: &mut ErrorList) {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or(""), strategy.rolling_update.as_ref()) {
        ("", _) => errs.push(field::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            let partition = i64::from(rolling.partition.unwrap_or(0));
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errs.push(field::invalid(&at, &serde_json::json!({ "partition": partition }), why));
        }
        ("RollingUpdate", Some(rolling)) => {
            field::non_negative(&at.child("partition"), i64::from(rolling.partition.unwrap_or(0)), errs);
            let Some(unavailable) = rolling.max_unavailable.as_ref() else { return };
            let at = at.child("maxUnavailable");
            validate_int_or_percent(unavailable, &at, errs);
            if magnitude(Some(unavailable)) == 0 {
                errs.push(field::invalid(&at, unavailable, "cannot be 0"));
            }
            validate_at_most_all(unavailable, &at, errs);
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        (other, _) => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            errs.push(field::invalid(path, &serde_json::json!({ "type": other }), why));
        }
    }
}

fn validate_retention(spec: &api::StatefulSetSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(policy) = spec.persistent_volume_claim_retention_policy.as_ref() else { return };
    for (name, value) in
        [("whenDeleted", policy.when_deleted.as_deref()), ("whenScaled", policy.when_scaled.as_deref())]
    {
        let value = value.unwrap_or("");
        if !["Delete", "Retain"].contains(&value) {
            errs.push(field::not_supported(&path.child(name), value, &["Retain", "Delete"]));
        }
    }
}
