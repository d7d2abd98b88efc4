//! ClusterRoles that collect the rules of others, such as `admin`, `edit` and `view`.

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Controller, Outcome, Query, Reconcile, Writes, decode_all};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::Patch;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use api::selector::LabelSelector as Selector;

const ACCOUNT: &str = "clusterrole-aggregation-controller";

struct Reconciler {
    cluster: Cluster,
}

/// Runs the ClusterRole aggregation controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let roles = cluster.clone();
    Controller::new(Reconciler { cluster: cluster.clone() }, cluster, client)
        .watches::<ClusterRole>(move |change| aggregating(&roles, change))
        .run(token)
        .await;
}

/// Any role may be collected by any aggregating one.
fn aggregating(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    if change.object().is_none() {
        return Vec::new();
    }
    let all = cluster.objects::<ClusterRole>(&Query::ALL);
    all.iter().filter(|o| aggregates(o)).map(|o| o.index.key.clone()).collect()
}

/// Few roles aggregate; the word in the stored bytes rules the others out without decoding.
fn aggregates(role: &Object) -> bool {
    const WORD: &[u8] = b"\"aggregationRule\"";
    role.json.windows(WORD.len()).any(|w| w == WORD)
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "clusterrole-aggregation-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(role) = self.cluster.get::<ClusterRole>("", &key.name)? else { return Ok(Outcome::Done) };
        let Some(rule) = &role.aggregation_rule else { return Ok(Outcome::Done) };
        let selectors: Vec<_> =
            rule.cluster_role_selectors.iter().flatten().filter_map(|s| Selector::from_meta(Some(s)).ok()).collect();
        let all = self.cluster.objects::<ClusterRole>(&Query::ALL);
        let is_collected = |o: &&Object| o.index.key != *key && selectors.iter().any(|s| s.matches(&o.index.labels));
        let collected: Vec<ClusterRole> = decode_all(all.iter().filter(is_collected))?;
        let rules = union(&collected);
        if role.rules.as_deref().unwrap_or_default() != rules.as_slice() {
            let meta = json!({"uid": role.metadata.uid});
            let patch = Patch::Merge(json!({"metadata": meta, "rules": rules}));
            w.patch::<ClusterRole, _>("", &key.name, &patch).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Rules in the order of the roles' names, each once.
fn union(roles: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut roles: Vec<_> = roles.iter().collect();
    roles.sort_by_key(|r| r.metadata.name.clone());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in roles.into_iter().flat_map(|r| r.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn rules_are_joined_by_role_name_without_doubles() {
        let rule = |verb: &str| PolicyRule { verbs: vec![verb.to_owned()], ..PolicyRule::default() };
        let role = |name: &str, verbs: &[&str]| ClusterRole {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            rules: Some(verbs.iter().map(|v| rule(v)).collect()),
            aggregation_rule: None,
        };
        let got = union(&[role("b", &["get", "list"]), role("a", &["watch", "get"])]);
        assert_eq!(got, [rule("watch"), rule("get"), rule("list")]);
    }
}
