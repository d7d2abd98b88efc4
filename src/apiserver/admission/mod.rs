//! Admission: what the built-in plugins change in a request and which requests they refuse.
//!
//! Each plugin is a file that decides purely; this module gives it what it asks about and runs the
//! plugins in upstream's order and for upstream's operations. A pod is decoded once for all of them.
//!
//! | plugin | create | update | delete |
//! |---|---|---|---|
//! | NamespaceLifecycle, NodeRestriction | all | all | all |
//! | LimitRanger | pods, claims | `pods/resize`, claims | |
//! | ServiceAccount, RuntimeClass | pods | | |
//! | Priority | pods, classes | pods: kept; classes | |
//! | DefaultTolerationSeconds | pods | pods | |
//! | PodSecurity | pods, templates, namespaces | pods, `pods/ephemeralcontainers`, `pods/resize`, templates, namespaces | |
//! | TaintNodesByCondition | nodes | | |
//! | StorageObjectInUseProtection | volumes, claims | | |
//! | DefaultStorageClass, DefaultIngressClass | claims; ingresses | | |
//! | PersistentVolumeClaimResize | | claims | |
//! | CertificateApproval, CertificateSigning, CertificateSubjectRestriction | requests | `approval`, `status` | |

mod certificates;
mod default_ingress_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod rbac_escalation;
mod review;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes_by_condition;

use std::time::Duration;

use api::codec::{Decode, Encode};
use api::object::{GroupResource, Object, ObjectKey};
use k8s_openapi::api::core::v1::{LimitRange, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use rand::Rng;

pub use review::{Operation, Review};
pub(crate) use service_account::TOKEN_SECONDS;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::registry::{Registry, Resource};
use crate::request::RequestInfo;

/// The letters of generated names: no vowels, so that no words come out.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Upstream looks ten times for a default service account, 100 to 200 ms apart.
const ACCOUNT_LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);

/// The plugins in order.
#[derive(Debug, Default)]
pub struct Chain {}

impl Chain {
    /// Bytes of other objects that the plugins may read for a change.
    pub(crate) fn passing_bytes(&self, registry: &Registry, resource: &Resource, info: &RequestInfo) -> usize {
        let is_namespace = &*resource.collection == "core/namespaces" && info.subresource.is_empty();
        if is_namespace { pod_security::scanned_bytes(registry) } else { 0 }
    }

    /// Whether a mutating plugin looks at more of such an object than its metadata.
    pub(crate) fn edits(resource: &GroupResource) -> bool {
        matches!(
            (&*resource.group, &*resource.resource),
            ("", "pods" | "nodes" | "persistentvolumes" | "persistentvolumeclaims")
                | ("networking.k8s.io", "ingresses")
        )
    }

    /// Lets the mutating plugins change the object.
    ///
    /// # Errors
    /// When a plugin refuses the request.
    pub async fn mutate(&self, registry: &Registry, review: &mut Review<'_>) -> Result<(), ApiError> {
        namespace_lifecycle::admit(registry, review)?;
        node_restriction::admit(registry, review)?;
        if !review.subresource.is_empty() || !Self::edits(review.resource) {
            return Ok(());
        }
        match (review.operation, &*review.resource.group, &*review.resource.resource) {
            (Operation::Create, "", "pods") => {
                wait_for_account(registry, review).await;
                create_pod(registry, review)
            }
            (Operation::Update, "", "pods") => {
                let old: Pod = review.typed_old()?;
                edit(review, |pod| {
                    priority::keep(pod, &old);
                    default_toleration_seconds::admit(pod);
                })
            }
            (Operation::Create, "", "nodes") => edit(review, taint_nodes_by_condition::admit),
            (Operation::Create, "", "persistentvolumes") => edit(review, |volume: &mut PersistentVolume| {
                storage::protect(&mut volume.metadata, storage::VOLUME_PROTECTION);
            }),
            (Operation::Create, "", "persistentvolumeclaims") => {
                let classes = all(registry, "storage.k8s.io", "storageclasses", None)?;
                edit(review, |claim: &mut PersistentVolumeClaim| {
                    storage::default_class(claim, &classes);
                    storage::protect(&mut claim.metadata, storage::CLAIM_PROTECTION);
                })
            }
            (Operation::Create, "networking.k8s.io", "ingresses") => {
                let classes = all(registry, "networking.k8s.io", "ingressclasses", None)?;
                edit(review, |ingress| default_ingress_class::admit(ingress, &classes))
            }
            _ => Ok(()),
        }
    }

    /// Lets the validating plugins judge the final object.
    ///
    /// # Errors
    /// When a plugin refuses the request.
    pub async fn validate(&self, auth: &Auth, registry: &Registry, review: &mut Review<'_>) -> Result<(), ApiError> {
        rbac_escalation::validate(auth, registry, review)?;
        certificates::validate(auth, registry, review)?;
        if !matches!(review.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let creates = review.operation == Operation::Create;
        match (&*review.resource.group, &*review.resource.resource, review.subresource) {
            ("", "pods", "" | "ephemeralcontainers" | "resize") => {
                let pod: Pod = review.typed()?;
                if creates && review.subresource.is_empty() || review.subresource == "resize" {
                    let ranges = all(registry, "", "limitranges", Some(review.namespace))?;
                    limit_ranger::judge_pod(&pod, &ranges).map_err(|e| review.forbidden(e))?;
                }
                pod_security::admit_pod(registry, review, &pod)
            }
            ("", "persistentvolumeclaims", "") => validate_claim(registry, review),
            ("scheduling.k8s.io", "priorityclasses", "") => {
                let classes: Vec<PriorityClass> = all(registry, "scheduling.k8s.io", "priorityclasses", None)?;
                priority::judge_class(&review.typed()?, &classes).map_err(|e| review.forbidden(e))
            }
            ("", "namespaces", "") => pod_security::admit_namespace(registry, review),
            (group, resource, "") => pod_security::warn_of_template(registry, review, group, resource),
            _ => Ok(()),
        }
    }
}

fn validate_claim(registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let claim: PersistentVolumeClaim = review.typed()?;
    let old: Option<PersistentVolumeClaim> = review.old.map(|_| review.typed_old()).transpose()?;
    if old.as_ref().is_none_or(|old| old.metadata.deletion_timestamp.is_none()) {
        let ranges = all(registry, "", "limitranges", Some(review.namespace))?;
        limit_ranger::judge_claim(&claim, &ranges).map_err(|e| review.forbidden(e))?;
    }
    let Some(old) = old else { return Ok(()) };
    let classes = all(registry, "storage.k8s.io", "storageclasses", None)?;
    storage::validate_growth(&claim, &old, &classes).map_err(|e| review.forbidden(e))
}

fn create_pod(registry: &Registry, review: &mut Review<'_>) -> Result<(), ApiError> {
    let mut pod: Pod = review.take()?;
    let namespace = review.namespace;
    let ranges: Vec<LimitRange> = all(registry, "", "limitranges", Some(namespace))?;
    limit_ranger::apply_defaults(&mut pod, &ranges);
    let account = one(registry, "", "serviceaccounts", &ObjectKey::new(namespace, service_account::name_of(&pod)))?;
    service_account::admit(&mut pod, namespace, account, &random_suffix()).map_err(|e| review.forbidden(e))?;
    let classes: Vec<PriorityClass> = all(registry, "scheduling.k8s.io", "priorityclasses", None)?;
    priority::admit(&mut pod, &classes).map_err(|e| review.forbidden(e))?;
    default_toleration_seconds::admit(&mut pod);
    let class = pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone()).unwrap_or_default();
    let class = one(registry, "node.k8s.io", "runtimeclasses", &ObjectKey::new("", &class))?;
    runtime_class::admit(&mut pod, class).map_err(|e| review.forbidden(e))?;
    review.replace(&pod)
}

/// A pod may follow its namespace so closely that the controller has not made the default account yet.
async fn wait_for_account(registry: &Registry, review: &Review<'_>) {
    let named = review.object.as_ref().and_then(|o| o.pointer("/spec/serviceAccountName")).and_then(|n| n.as_str());
    if !matches!(named, None | Some("" | "default")) {
        return;
    }
    let accounts = GroupResource::new("", "serviceaccounts");
    let key = ObjectKey::new(review.namespace, "default");
    for _ in 0..ACCOUNT_LOOKS {
        if registry.get(&accounts, &key).is_some() {
            return;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Decodes the object, changes it and puts it back.
fn edit<K>(review: &mut Review<'_>, change: impl FnOnce(&mut K)) -> Result<(), ApiError>
where
    K: Decode + Encode,
{
    let mut object: K = review.take()?;
    change(&mut object);
    review.replace(&object)
}

/// Every stored object of a kind. One that cannot be read is no reason to admit more than it would.
fn all<K: Decode>(
    registry: &Registry,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Result<Vec<K>, ApiError> {
    let resource = GroupResource::new(group, resource);
    if let Some(damaged) = registry.set_aside_of(&resource, namespace) {
        return Err(ApiError::internal(format!("{damaged} is damaged in the store and cannot be read")));
    }
    registry.list(&resource, namespace).iter().map(|object| decode(&resource, object)).collect()
}

/// A stored object, if it is there.
fn one<K: Decode>(registry: &Registry, group: &str, resource: &str, key: &ObjectKey) -> Result<Option<K>, ApiError> {
    let resource = GroupResource::new(group, resource);
    registry.get(&resource, key).map(|object| decode(&resource, &object)).transpose()
}

fn decode<K: Decode>(resource: &GroupResource, object: &Object) -> Result<K, ApiError> {
    let name = &object.index.key.name;
    object.decode().map_err(|error| ApiError::internal(format!("{resource} {name:?} cannot be read: {error}")))
}

/// Five letters as upstream appends them to generated names.
pub(crate) fn random_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::Value;

    use super::*;
    use crate::auth::User;

    /// A request by `system:masters`, its place written as `namespace/name`.
    pub(super) fn review<'a>(
        operation: Operation,
        resource: &str,
        place: &'a str,
        object: &'a mut Option<Value>,
    ) -> Review<'a> {
        static USER: LazyLock<User> = LazyLock::new(User::loopback);
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let resource = Box::leak(Box::new(GroupResource::new("", resource)));
        Review {
            operation,
            resource,
            kind: "",
            subresource: "",
            namespace,
            name,
            user: &USER,
            object,
            old: None,
            dry_run: false,
            options: &Value::Null,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_suffix_is_five_letters_of_the_alphabet() {
        let suffix = random_suffix();
        assert!(suffix.len() == 5 && suffix.bytes().all(|b| SUFFIX_LETTERS.contains(&b)), "{suffix}");
    }
}
