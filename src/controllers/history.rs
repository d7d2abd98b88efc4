//! ControllerRevisions: what a StatefulSet or DaemonSet looked like before, for rolling and undoing.

use api::object::ObjectKey;
use client::{Change, Cluster, Kind, Query, Writes, status};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use kube::api::Api;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{claim, pod_control, template_hash};

/// How one kind keeps its history.
pub(crate) struct Keeper<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) client: &'a Client,
    /// The label of a revision that carries its hash.
    pub(crate) hash_label: &'static str,
}

/// The owner of a history, as far as that matters.
pub(crate) struct Owner<'a> {
    pub(crate) meta: &'a ObjectMeta,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) collision_count: Option<i32>,
}

/// A history with the current template in it.
pub(crate) enum Synced {
    /// Oldest first; the last one is the current template's.
    Revisions(Vec<ControllerRevision>),
    /// The name was taken by something else: try again with this collision count.
    Collision(i32),
}

pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn hash<'a>(revision: &'a ControllerRevision, label: &str) -> &'a str {
    revision.metadata.labels.as_ref().and_then(|l| l.get(label)).map_or("", String::as_str)
}

/// The pod template that a revision holds, if it holds one.
///
/// # Errors
/// When it cannot be read: a pod made from another template would pass for one of this revision.
pub(crate) fn template(revision: &ControllerRevision) -> kube::Result<Option<PodTemplateSpec>> {
    let template = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template"));
    template.map(PodTemplateSpec::deserialize).transpose().map_err(kube::Error::SerdeError)
}

/// Whose history somebody has taken a revision out of: the current one must be made anew.
pub(crate) fn owner_of_lost<K: Kind>(change: &Change) -> Vec<ObjectKey> {
    match change {
        Change::Deleted { object } => claim::owner_key::<K>(object).into_iter().collect(),
        Change::Applied { .. } | Change::Synced | Change::Resync => Vec::new(),
    }
}

/// A patch that makes an owner's template this one; `kubectl rollout undo` applies it.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = template_hash::canonical(template);
    if let Value::Object(map) = &mut template {
        map.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

fn is_equal(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|d| template_hash::canonical(&d.0) == template_hash::canonical(data))
}

fn in_order(mut revisions: Vec<ControllerRevision>) -> Vec<ControllerRevision> {
    revisions.sort_by(|a, b| {
        let key = |r: &ControllerRevision| (r.revision, r.metadata.creation_timestamp.clone(), name(r).to_owned());
        key(a).cmp(&key(b))
    });
    revisions
}

impl Keeper<'_> {
    pub(crate) async fn sync<K: Kind>(&self, owner: &Owner<'_>, w: &Writes) -> kube::Result<Synced> {
        let uid = owner.meta.uid.as_deref().unwrap_or_default();
        let mut revisions = in_order(self.cluster.list::<ControllerRevision>(&Query::owner(uid))?);
        let wanted = data(owner.template);
        let next = revisions.last().map_or(0, |r| r.revision) + 1;
        match revisions.iter().rposition(|r| is_equal(r, &wanted)) {
            Some(at) if at + 1 == revisions.len() => {}
            // An undo makes an old revision the newest again.
            Some(at) => {
                let mut raised = revisions.remove(at);
                raised.revision = next;
                revisions.push(w.update(&raised).await?);
            }
            None => match self.create::<K>(owner, wanted, next, w).await? {
                Ok(made) => revisions.push(made),
                Err(collisions) => return Ok(Synced::Collision(collisions)),
            },
        }
        Ok(Synced::Revisions(revisions))
    }

    async fn create<K: Kind>(
        &self,
        owner: &Owner<'_>,
        data: Value,
        revision: i64,
        w: &Writes,
    ) -> kube::Result<Result<ControllerRevision, i32>> {
        let hash = template_hash::hash(owner.template, owner.collision_count);
        let parent = owner.meta.name.as_deref().unwrap_or_default();
        let mut labels = owner.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        let new = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{parent}-{hash}")),
                namespace: owner.meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![claim::controller_ref::<K>(owner.meta)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data.clone())),
            revision,
        };
        match w.create(&new).await {
            Ok(made) => Ok(Ok(made)),
            Err(e) if status::is_already_exists(&e) => {
                let api: Api<ControllerRevision> =
                    Api::namespaced(self.client.clone(), owner.meta.namespace.as_deref().unwrap_or_default());
                let taken = api.get_opt(name(&new)).await?;
                let is_ours = |r: &ControllerRevision| {
                    is_equal(r, &data)
                        && r.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == owner.meta.uid.as_ref())
                };
                match taken.filter(is_ours) {
                    Some(same) => Ok(Ok(same)),
                    None => Ok(Err(owner.collision_count.unwrap_or(0) + 1)),
                }
            }
            Err(e) => Err(e),
        }
    }

    /// Deletes the oldest revisions beyond the limit that no pod and no status names.
    pub(crate) async fn truncate(
        &self,
        revisions: &[ControllerRevision],
        limit: i32,
        is_live: impl Fn(&ControllerRevision) -> bool,
        w: &Writes,
    ) -> kube::Result<()> {
        for old in outdated(revisions, limit, is_live) {
            delete(old, w).await?;
        }
        Ok(())
    }
}

pub(crate) async fn delete(revision: &ControllerRevision, w: &Writes) -> kube::Result<()> {
    let meta = &revision.metadata;
    let only = pod_control::only(meta.uid.as_deref().unwrap_or_default());
    match w.delete::<ControllerRevision>(meta.namespace.as_deref().unwrap_or_default(), name(revision), &only).await {
        Err(e) if !status::is_not_found(&e) => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The revisions before the last one that say the same as it.
pub(crate) fn duplicates(revisions: &[ControllerRevision]) -> Vec<&ControllerRevision> {
    let Some((last, earlier)) = revisions.split_last() else { return Vec::new() };
    let Some(data) = &last.data else { return Vec::new() };
    earlier.iter().filter(|r| is_equal(r, &data.0)).collect()
}

fn outdated(
    revisions: &[ControllerRevision],
    limit: i32,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<&ControllerRevision> {
    // The current one, which stands last, is always kept.
    let idle: Vec<_> = revisions.iter().take(revisions.len().saturating_sub(1)).filter(|r| !is_live(r)).collect();
    let excess = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.into_iter().take(excess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64) -> ControllerRevision {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        ControllerRevision { metadata, data: None, revision: number }
    }

    #[test]
    fn live_and_current_revisions_are_kept() {
        let all = [revision("a", 1), revision("b", 2), revision("c", 3), revision("d", 4)];
        let gone = |limit, live: &str| -> Vec<&str> {
            outdated(&all, limit, |r| name(r) == live).into_iter().map(name).collect()
        };
        assert_eq!(gone(0, "a"), ["b", "c"]);
        assert_eq!(gone(1, "none"), ["a", "b"]);
        assert!(gone(10, "none").is_empty());
    }

    #[test]
    fn only_what_equals_the_last_revision_is_a_duplicate() {
        let with = |name: &str, number, image: &str| ControllerRevision {
            data: Some(RawExtension(json!({ "spec": { "image": image } }))),
            ..revision(name, number)
        };
        let all = [with("a", 1, "x"), with("b", 2, "y"), with("c", 3, "x"), with("d", 4, "x")];
        assert_eq!(duplicates(&all).into_iter().map(name).collect::<Vec<_>>(), ["a", "c"]);
        assert!(duplicates(&all[..2]).is_empty());
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let wanted = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
            spec: None,
        };
        let stored = ControllerRevision { data: Some(RawExtension(data(&wanted))), ..revision("a", 1) };
        assert_eq!(template(&stored).unwrap(), Some(wanted.clone()));
        assert!(is_equal(&stored, &data(&wanted)));
        assert!(!is_equal(&stored, &data(&PodTemplateSpec::default())));
    }
}
