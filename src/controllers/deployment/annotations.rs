//! The annotations by which revisions and sizes are remembered on ReplicaSets and Deployments.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Bounds the history annotation; upstream's figure.
const MAX_HISTORY: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

pub(super) fn get<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(super) fn number(meta: &ObjectMeta, key: &str) -> Option<i32> {
    get(meta, key)?.parse().ok()
}

pub(super) fn set(meta: &mut ObjectMeta, key: &str, value: String) {
    meta.annotations.get_or_insert_with(BTreeMap::new).insert(key.to_owned(), value);
}

pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    get(meta, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub(super) fn max_revision(sets: &[ReplicaSet]) -> i64 {
    sets.iter().map(|rs| revision(&rs.metadata)).max().unwrap_or(0)
}

/// Copies what a ReplicaSet takes over from its Deployment.
pub(super) fn copy(from: &ObjectMeta, to: &mut ObjectMeta) {
    for (key, value) in from.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) && get(to, key) != Some(value) {
            set(to, key, value.clone());
        }
    }
}

/// Gives the set a higher revision, and remembers the one that it had: a rollback makes an old set
/// new again.
pub(super) fn raise_revision(meta: &mut ObjectMeta, new: i64) {
    let old = get(meta, REVISION).map(str::to_owned);
    if old.as_deref().and_then(|o| o.parse::<i64>().ok()).unwrap_or(0) >= new {
        return;
    }
    set(meta, REVISION, new.to_string());
    if let Some(old) = old {
        let history = match get(meta, REVISION_HISTORY) {
            None | Some("") => old,
            Some(earlier) => shortened(&format!("{earlier},{old}")).to_owned(),
        };
        set(meta, REVISION_HISTORY, history);
    }
}

/// Drops the oldest entries of a history that has grown too long.
fn shortened(history: &str) -> &str {
    if history.len() <= MAX_HISTORY {
        return history;
    }
    let tail = &history[history.len() - MAX_HISTORY..];
    tail.split_once(',').map_or(tail, |(_, rest)| rest)
}

/// Notes the size that the Deployment wants, for telling scaling from rolling later.
pub(super) fn set_sizes(meta: &mut ObjectMeta, desired: i32, max: i32) {
    set(meta, DESIRED_REPLICAS, desired.to_string());
    set(meta, MAX_REPLICAS, max.to_string());
}

pub(super) fn sizes_are(meta: &ObjectMeta, desired: i32, max: i32) -> bool {
    number(meta, DESIRED_REPLICAS) == Some(desired) && number(meta, MAX_REPLICAS) == Some(max)
}
