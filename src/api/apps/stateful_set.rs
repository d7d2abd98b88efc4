//! StatefulSets: most of the spec is fixed for life.

use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::{template_deadline, validate_selector};
use super::rolling_update::{magnitude, validate_at_most_all, validate_int_or_percent};
use crate::core::persistent_volume_claim::{default_claim, validate_claim_spec};
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
        let path = Path::new("spec");
        let empty = api::StatefulSetSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&empty);
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
        field::non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or(0)), errs);
        field::non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or(0)), errs);
        if let Some(start) = spec.ordinals.as_ref().and_then(|o| o.start) {
            field::non_negative(&path.child("ordinals.start"), i64::from(start), errs);
        }
        let selector = validate_selector(Some(&spec.selector), "statefulset", &path.child("selector"), errs);
        validate_owned_template(&spec.template, selector.as_ref(), &path.child("template"), errs);
        if template_deadline(&spec.template) {
            let why = "activeDeadlineSeconds in StatefulSet is not Supported";
            errs.push(field::forbidden(&path.child("template.spec.activeDeadlineSeconds"), why));
        }
        if let Some(name) = spec.service_name.as_deref().filter(|n| !n.is_empty()) {
            field::invalid_each(&path.child("serviceName"), name, dns1123_label(name), errs);
        }
    }

    fn validate_update(&self, new: &api::StatefulSet, old: &api::StatefulSet, errs: &mut ErrorList) {
        self.validate(new, errs);
        let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
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
            errs.push(field::forbidden(&Path::new("spec"), why));
        }
        let history = i64::from(new.revision_history_limit.unwrap_or(0));
        field::non_negative(&Path::new("spec.revisionHistoryLimit"), history, errs);
    }

    fn warnings(&self, obj: &api::StatefulSet) -> Vec<String> {
        let mut out = template_warnings(obj.spec.as_ref().map(|s| &s.template), "spec.template");
        let history = obj.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(0);
        if history < 0 {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        let claims = obj.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
        for (i, claim) in claims.enumerate() {
            let at = format!("spec.volumeClaimTemplates[{i}].spec");
            let mut errs = ErrorList::new();
            if let Some(spec) = claim.spec.as_ref() {
                validate_claim_spec(spec, &Path::new(&at), &mut errs);
            }
            out.extend(errs.iter().map(ToString::to_string));
        }
        out
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
