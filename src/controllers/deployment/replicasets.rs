//! Which ReplicaSet is the Deployment's new one, and how one is made.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::{claim, template_hash};

pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// A name is a DNS subdomain; the hash and its dash must fit behind the Deployment's name.
const MAX_NAME: usize = 253;

/// The size that is asked of a set.
pub(super) fn size(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

pub(super) fn actual(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().map_or(0, |s| s.replicas)
}

pub(super) fn ready(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

/// A number of pods, as an object can hold it.
pub(super) fn clamped(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(if count < 0 { i32::MIN } else { i32::MAX })
}

pub(super) fn name(rs: &ReplicaSet) -> &str {
    rs.metadata.name.as_deref().unwrap_or_default()
}

/// Parts the sets into the one whose template is the Deployment's and all others. Of several equal
/// ones the oldest is the new one, so that the choice does not waver.
pub(super) fn part(spec: &DeploymentSpec, mut sets: Vec<ReplicaSet>) -> (Option<ReplicaSet>, Vec<ReplicaSet>) {
    sets.sort_by(by_creation);
    let wanted = without_hash(&spec.template);
    let is_new = |rs: &ReplicaSet| {
        let template = rs.spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|t| template_hash::canonical(&without_hash(t)) == template_hash::canonical(&wanted))
    };
    match sets.iter().position(is_new) {
        Some(at) => (Some(sets.remove(at)), sets),
        None => (None, sets),
    }
}

pub(super) fn by_creation(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let created = |rs: &ReplicaSet| rs.metadata.creation_timestamp.clone();
    created(a).cmp(&created(b)).then_with(|| name(a).cmp(name(b)))
}

/// Whether two templates ask for the same pods, whatever hash labels they carry.
pub(super) fn is_same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    template_hash::canonical(&without_hash(a)) == template_hash::canonical(&without_hash(b))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    template
}

/// A new set for the current template; size, revision and other annotations come later.
pub(super) fn make(deployment: &Deployment, spec: &DeploymentSpec) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash::hash(&spec.template, collisions);
    let with_hash = |labels: Option<&BTreeMap<String, String>>| {
        let mut labels = labels.cloned().unwrap_or_default();
        labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_with(ObjectMeta::default);
    meta.labels = with_hash(meta.labels.as_ref());
    let labels = meta.labels.clone();
    let selector = LabelSelector {
        match_labels: with_hash(spec.selector.match_labels.as_ref()),
        match_expressions: spec.selector.match_expressions.clone(),
    };
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name_for(deployment.metadata.name.as_deref().unwrap_or_default(), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: Some(vec![claim::controller_ref::<Deployment>(&deployment.metadata)]),
            labels,
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds.filter(|&s| s != 0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn name_for(deployment: &str, hash: &str) -> String {
    let room = MAX_NAME - hash.len() - 1;
    let cut = &deployment[..deployment.len().min(room)];
    format!("{cut}-{hash}")
}
