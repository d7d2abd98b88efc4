//! Which objects a controller object may call its own: upstream's ControllerRefManager.
//!
//! The decision is pure and needs only the index. Adoption and release are patches that carry the
//! uid of the object they were decided for, so that a namesake is never touched.

use api::object::{Object, ObjectIndex, ObjectKey};
use api::selector::LabelSelector as Selector;
use client::{Change, Cluster, Query, Writes, status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch};
use serde_json::json;

/// What one object is to a controller object that looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Owned,
    Adopt,
    Release,
    NotOurs,
}

/// Decides for one object; `selected` is whether the owner's selector matches its labels.
pub(crate) fn claim(index: &ObjectIndex, owner_uid: &str, owner_deleting: bool, selected: bool) -> Claim {
    match index.controller() {
        Some(owner) if &*owner.uid != owner_uid => Claim::NotOurs,
        Some(_) if selected => Claim::Owned,
        Some(_) if owner_deleting => Claim::NotOurs,
        Some(_) => Claim::Release,
        None if owner_deleting || !selected || index.deleting => Claim::NotOurs,
        None => Claim::Adopt,
    }
}

/// The controller reference that `K` puts on what it makes or adopts.
pub(crate) fn controller_ref<K: k8s_openapi::Resource>(meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owners of kind `O` that a change of a dependent concerns: the one that it has, the one that it
/// had, and for an orphan all that select it.
pub(crate) fn owners_of<O: client::Kind>(
    cluster: &Cluster,
    change: &Change,
    selector: impl Fn(O) -> Option<Selector>,
) -> Vec<ObjectKey> {
    let (object, old) = match change {
        Change::Applied { object, old } => (object, old.as_ref()),
        Change::Deleted { object } => (object, None),
        Change::Synced | Change::Resync => return Vec::new(),
    };
    let mut keys: Vec<ObjectKey> = [Some(object), old].into_iter().flatten().filter_map(owner_key::<O>).collect();
    let changed_hands = old.is_none_or(|o| o.index.controller().is_some() || o.index.labels != object.index.labels);
    let (index, gone) = (&object.index, matches!(change, Change::Deleted { .. }));
    if index.controller().is_none() && !index.deleting && !gone && changed_hands && !index.labels.is_empty() {
        let candidates = cluster.objects::<O>(&Query::namespace(&index.key.namespace));
        let selects = |o: &Object| {
            let selector = o.decode().ok().and_then(&selector);
            selector.is_some_and(|s| !s.is_everything() && s.matches(&index.labels))
        };
        keys.extend(candidates.iter().filter(|o| selects(o)).map(|o| o.index.key.clone()));
    }
    keys.dedup();
    keys
}

/// The controller of kind `O` that an object names, in whichever version of its group.
pub(crate) fn owner_key<O: k8s_openapi::Resource>(object: &Object) -> Option<ObjectKey> {
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let owner = object.index.controller().filter(|o| &*o.kind == O::KIND && group(&o.api_version) == O::GROUP)?;
    Some(ObjectKey { namespace: object.index.key.namespace.clone(), name: (&*owner.name).into() })
}

/// Carries out the claims of owner `O` on objects of kind `K`, and returns those that are its own
/// afterwards. An adopted object is given the finalizers too, and is returned as the source has it,
/// still without either.
pub(crate) async fn carry_out<O, K>(
    candidates: Vec<(Object, Claim)>,
    owner: &ObjectMeta,
    owners: &Api<O>,
    finalizers: &[&str],
    w: &Writes,
) -> Result<Vec<Object>, kube::Error>
where
    O: client::Kind,
    K: client::Kind,
{
    let mut owned = Vec::with_capacity(candidates.len());
    let mut rechecked = false;
    for (object, claim) in candidates {
        match claim {
            Claim::Owned => owned.push(object),
            Claim::NotOurs => {}
            Claim::Release => release::<K>(&object, owner, w).await?,
            Claim::Adopt => {
                if !rechecked {
                    if !may_adopt(owner, owners).await? {
                        continue;
                    }
                    rechecked = true;
                }
                if adopt::<O, K>(&object, owner, finalizers, w).await? {
                    owned.push(object);
                }
            }
        }
    }
    Ok(owned)
}

/// Asks the API server itself, past every cache, whether the owner still lives: an owner that is
/// being deleted with orphaned dependents must not adopt them again.
async fn may_adopt<O: client::Kind>(owner: &ObjectMeta, owners: &Api<O>) -> Result<bool, kube::Error> {
    let name = owner.name.as_deref().unwrap_or_default();
    let Some(fresh) = owners.get_opt(name).await? else { return Ok(false) };
    Ok(fresh.metadata().uid == owner.uid && fresh.metadata().deletion_timestamp.is_none())
}

async fn adopt<O: client::Kind, K: client::Kind>(
    object: &Object,
    owner: &ObjectMeta,
    finalizers: &[&str],
    w: &Writes,
) -> Result<bool, kube::Error> {
    let mut patch = json!({"metadata": {"ownerReferences": [controller_ref::<O>(owner)], "uid": &*object.index.uid}});
    if !finalizers.is_empty() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    patch_if_it_is_still_there::<K>(object, patch, w).await
}

async fn release<K: client::Kind>(object: &Object, owner: &ObjectMeta, w: &Writes) -> Result<(), kube::Error> {
    let reference = json!({"$patch": "delete", "uid": owner.uid});
    let patch = json!({"metadata": {"ownerReferences": [reference], "uid": &*object.index.uid}});
    patch_if_it_is_still_there::<K>(object, patch, w).await.map(|_| ())
}

/// An object that has gone, or has become another one of the same name, is nobody's to claim.
async fn patch_if_it_is_still_there<K: client::Kind>(
    object: &Object,
    patch: serde_json::Value,
    w: &Writes,
) -> Result<bool, kube::Error> {
    let key = &object.index.key;
    match w.patch::<K, _>(&key.namespace, &key.name, &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        Err(e) if status::is_not_found(&e) || status::is_invalid(&e) || status::is_conflict(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object::Owner;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::ReplicationController;

    #[test]
    fn an_owner_is_of_its_kind_and_group() {
        let owner = |api_version: &str, kind: &str| {
            let index = ObjectIndex {
                key: ObjectKey::new("prod", "web-0"),
                owners: vec![Owner {
                    api_version: api_version.into(),
                    kind: kind.into(),
                    name: "web".into(),
                    uid: "u".into(),
                    controller: true,
                    block_owner_deletion: true,
                }],
                ..ObjectIndex::default()
            };
            Object { json: "{}".to_owned().into(), index: std::sync::Arc::new(index) }
        };
        let web = Some(ObjectKey::new("prod", "web"));
        let deployment = |object: &Object| owner_key::<Deployment>(object);
        assert_eq!(deployment(&owner("apps/v1", "Deployment")), web);
        assert_eq!(deployment(&owner("apps/v1beta2", "Deployment")), web);
        assert_eq!(deployment(&owner("apps/v1", "ReplicaSet")), None);
        assert_eq!(deployment(&owner("example.com/v1", "Deployment")), None);
        assert_eq!(deployment(&owner("v1", "Deployment")), None);
        let controller = |object: &Object| owner_key::<ReplicationController>(object);
        assert_eq!(controller(&owner("v1", "ReplicationController")), web);
        assert_eq!(controller(&owner("apps/v1", "ReplicationController")), None);
    }

    fn object(controller: Option<&str>, deleting: bool) -> ObjectIndex {
        let owners = controller
            .map(|uid| Owner {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: "web".into(),
                uid: uid.into(),
                controller: true,
                block_owner_deletion: true,
            })
            .into_iter()
            .collect();
        ObjectIndex { owners, deleting, ..ObjectIndex::default() }
    }

    #[test]
    fn claims_follow_the_controller_reference_then_the_selector() {
        let rows = [
            (Some("me"), false, false, true, Claim::Owned),
            (Some("me"), false, false, false, Claim::Release),
            (Some("me"), false, true, false, Claim::NotOurs),
            (Some("me"), true, false, true, Claim::Owned),
            (Some("other"), false, false, true, Claim::NotOurs),
            (None, false, false, true, Claim::Adopt),
            (None, false, false, false, Claim::NotOurs),
            (None, true, false, true, Claim::NotOurs),
            (None, false, true, true, Claim::NotOurs),
        ];
        for (controller, deleting, owner_deleting, selected, expected) in rows {
            let got = claim(&object(controller, deleting), "me", owner_deleting, selected);
            assert_eq!(got, expected, "{controller:?} deleting={deleting} {owner_deleting} {selected}");
        }
    }
}
