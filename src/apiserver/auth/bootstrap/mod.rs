//! The roles and bindings that every cluster starts with, as upstream defines them.
//!
//! The tables state facts only; this module turns them into objects. At each start they are
//! reconciled: what is missing is created, permissions and subjects that were taken away are added
//! back, additions stay, and an object whose `rbac.authorization.kubernetes.io/autoupdate` annotation
//! is `false` is left alone.

mod cluster_roles;
mod controller_roles;
mod namespace_roles;
pub mod reconcile;
mod table;

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use table::{Bound, Named, Row};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const CONTROLLER_PREFIX: &str = "system:controller:";
/// `admin`, `edit` and `view` collect the rules of the roles that carry their label.
const AGGREGATION_PREFIX: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Every ClusterRole; the rules of `admin`, `edit` and `view` are aggregated already.
#[must_use]
pub fn cluster_roles() -> Vec<ClusterRole> {
    let mut roles: Vec<ClusterRole> = cluster_roles::ROLES.iter().map(cluster_role).collect();
    roles.extend(controller_roles::ROLES.iter().map(|named| ClusterRole {
        metadata: metadata(&format!("{CONTROLLER_PREFIX}{}", named.name), None, None),
        rules: Some(named.rows.iter().map(policy_rule).collect()),
        aggregation_rule: None,
    }));
    // `edit` takes in `view` and `admin` takes in `edit`, hence this order.
    for name in ["view", "edit", "admin"] {
        let role = aggregated(name, &roles);
        roles.push(role);
    }
    roles
}

/// Every ClusterRoleBinding.
#[must_use]
pub fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    let fixed = cluster_roles::BINDINGS.iter().map(|bound| ClusterRoleBinding {
        metadata: metadata(bound.name, None, None),
        role_ref: role_ref("ClusterRole", bound.role),
        subjects: subjects(bound),
    });
    let controllers = controller_roles::ROLES.iter().map(|named| {
        let role = format!("{CONTROLLER_PREFIX}{}", named.name);
        ClusterRoleBinding {
            metadata: metadata(&role, None, None),
            role_ref: role_ref("ClusterRole", &role),
            subjects: Some(vec![service_account("kube-system", named.name)]),
        }
    });
    fixed.chain(controllers).collect()
}

/// Every Role, in its namespace.
#[must_use]
pub fn roles() -> Vec<Role> {
    let of = |namespace: &'static str| {
        move |named: &Named| Role {
            metadata: metadata(named.name, Some(namespace), None),
            rules: Some(named.rows.iter().map(policy_rule).collect()),
        }
    };
    namespace_roles::SYSTEM_ROLES
        .iter()
        .map(of("kube-system"))
        .chain(namespace_roles::PUBLIC_ROLES.iter().map(of("kube-public")))
        .collect()
}

/// Every RoleBinding, in its namespace.
#[must_use]
pub fn role_bindings() -> Vec<RoleBinding> {
    let of = |namespace: &'static str| {
        move |bound: &Bound| RoleBinding {
            metadata: metadata(bound.name, Some(namespace), None),
            role_ref: role_ref("Role", bound.role),
            subjects: subjects(bound),
        }
    };
    namespace_roles::SYSTEM_BINDINGS
        .iter()
        .map(of("kube-system"))
        .chain(namespace_roles::PUBLIC_BINDINGS.iter().map(of("kube-public")))
        .collect()
}

/// The rules that hold for every node alike; what concerns single objects the node authorizer decides.
#[must_use]
pub fn node_rules() -> Vec<PolicyRule> {
    let node = cluster_roles::ROLES.iter().find(|r| r.name == "system:node");
    node.into_iter().flat_map(|r| r.rows).map(policy_rule).collect()
}

fn cluster_role(named: &Named) -> ClusterRole {
    let aggregates_to = named.name.strip_prefix("system:aggregate-to-");
    ClusterRole {
        metadata: metadata(named.name, None, aggregates_to),
        rules: Some(named.rows.iter().map(policy_rule).collect()),
        aggregation_rule: None,
    }
}

fn aggregated(name: &str, roles: &[ClusterRole]) -> ClusterRole {
    let label = format!("{AGGREGATION_PREFIX}{name}");
    let mut parts: Vec<&ClusterRole> =
        roles.iter().filter(|r| r.metadata.labels.as_ref().is_some_and(|l| l.contains_key(&label))).collect();
    parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.iter().flat_map(|r| r.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let next = match name {
        "view" => Some("edit"),
        "edit" => Some("admin"),
        _ => None,
    };
    let selector =
        LabelSelector { match_labels: Some([(label, "true".to_owned())].into()), ..LabelSelector::default() };
    ClusterRole {
        metadata: metadata(name, None, next),
        rules: Some(rules),
        aggregation_rule: Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) }),
    }
}

fn metadata(name: &str, namespace: Option<&str>, aggregates_to: Option<&str>) -> ObjectMeta {
    let mut labels = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())]);
    labels.extend(aggregates_to.map(|to| (format!("{AGGREGATION_PREFIX}{to}"), "true".to_owned())));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn subjects(bound: &Bound) -> Option<Vec<Subject>> {
    let of_group = |kind: &str, name: &str| Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    };
    let list: Vec<Subject> = words(bound.groups)
        .map(|name| of_group("Group", name))
        .chain(words(bound.users).map(|name| of_group("User", name)))
        .chain(words(bound.accounts).map(|name| service_account("kube-system", name)))
        .collect();
    (!list.is_empty()).then_some(list)
}

fn service_account(namespace: &str, name: &str) -> Subject {
    Subject {
        api_group: None,
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
    }
}

fn policy_rule(row: &Row) -> PolicyRule {
    let list = |text: &str| -> Vec<String> {
        words(text).map(|w| if w == "core" { String::new() } else { w.to_owned() }).collect()
    };
    let some = |text: &str| (!text.is_empty()).then(|| list(text));
    PolicyRule {
        verbs: list(row.verbs),
        api_groups: some(row.groups),
        resources: some(row.resources),
        resource_names: some(row.names),
        non_resource_urls: some(row.urls),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests;
