//! Roles and bindings are written only by those who hold what they grant.
//!
//! Upstream does this in the storage of these kinds; here it is one of the last validating steps.

use api::object::ObjectKey;
use k8s_openapi::api::rbac::v1::{AggregationRule, PolicyRule, RoleRef};
use serde::Deserialize;

use super::review::{Operation, Review};
use crate::auth::attributes::ResourceTarget;
use crate::auth::rbac::{Rule, escalation};
use crate::auth::{Attributes, Auth, user};
use crate::error::ApiError;
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role or ClusterRole, as far as it grants.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct AnyRole {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
}

api::decode!(AnyRole, AnyBinding);

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct AnyBinding {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<serde_json::Value>,
}

pub(super) fn validate(auth: &Auth, registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let writes = matches!(review.operation, Operation::Create | Operation::Update) && review.subresource.is_empty();
    if *review.resource.group != *GROUP || !writes || review.user.is_in(user::MASTERS) {
        return Ok(());
    }
    match &*review.resource.resource {
        "roles" | "clusterroles" => role(auth, registry, review),
        "rolebindings" | "clusterrolebindings" => binding(auth, registry, review),
        _ => Ok(()),
    }
}

fn role(auth: &Auth, registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let new: AnyRole = review.typed()?;
    if review.old.is_some() && review.typed_old::<AnyRole>()? == new {
        return Ok(());
    }
    let target = ResourceTarget {
        group: GROUP,
        namespace: review.namespace,
        resource: &review.resource.resource,
        name: review.name,
        ..ResourceTarget::default()
    };
    if auth.decide(registry, &Attributes::resource(review.user, "escalate", target)).is_allowed() {
        return Ok(());
    }
    let mut wanted: Vec<Rule> = new.rules.iter().flatten().map(Rule::from).collect();
    if new.aggregation_rule.is_some() {
        // What it will collect is unknown: it takes the right to everything.
        wanted.extend(full_authority().iter().map(Rule::from));
    }
    confirm(auth, registry, review, &wanted)
}

fn full_authority() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    [
        PolicyRule { verbs: vec!["*".to_owned()], api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: vec!["*".to_owned()], non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

fn binding(auth: &Auth, registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let new: AnyBinding = review.typed()?;
    if review.old.is_some() && review.typed_old::<AnyBinding>()? == new {
        return Ok(());
    }
    let (resource, namespace) =
        if new.role_ref.kind == "Role" { ("roles", review.namespace) } else { ("clusterroles", "") };
    let target = ResourceTarget {
        group: GROUP,
        namespace: review.namespace,
        resource,
        name: &new.role_ref.name,
        ..ResourceTarget::default()
    };
    if auth.decide(registry, &Attributes::resource(review.user, "bind", target)).is_allowed() {
        return Ok(());
    }
    let key = ObjectKey::new(namespace, &new.role_ref.name);
    let wanted = auth.policy().with(registry, |index| index.role_rules(&key));
    let Some(wanted) = wanted else {
        let roles = api::object::GroupResource::new(GROUP, resource);
        return Err(ApiError::not_found(&roles, &new.role_ref.name));
    };
    confirm(auth, registry, review, &wanted)
}

fn confirm(auth: &Auth, registry: &Registry, review: &Review<'_>, wanted: &[Rule]) -> Result<(), ApiError> {
    let held = auth.policy().rules_for(registry, review.user, review.namespace);
    let uncovered = escalation::uncovered(&held, wanted);
    if uncovered.is_empty() {
        return Ok(());
    }
    Err(review.forbidden(escalation::message(review.user, &uncovered)))
}
