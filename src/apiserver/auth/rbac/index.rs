//! The compiled policy: rules by role and grants by subject, changed one object at a time.
//!
//! A question touches only the grants of its user and groups. Nothing is decoded while one is
//! answered; an object is compiled when it changes and never again.

use std::collections::HashMap;
use std::sync::Arc;

use api::object::ObjectKey;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::rule::Rule;
use crate::auth::attributes::{Attributes, Target};
use crate::auth::user::service_account_name;
use crate::auth::{Decision, User};

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(Box<str>),
    Group(Box<str>),
}

/// A role as a binding refers to it; a ClusterRole has the namespace `""`.
type RoleKey = ObjectKey;

/// One binding's effect on one of its subjects.
#[derive(Clone, Debug)]
struct Grant {
    /// The binding's own key; a ClusterRoleBinding has the namespace `""` and counts everywhere.
    binding: ObjectKey,
    role: RoleKey,
    /// For the reason only: `Group "system:masters"`, or a service account in upstream's words.
    subject: Box<str>,
}

/// All roles and bindings of the cluster.
#[derive(Debug, Default)]
pub struct Index {
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    grants: HashMap<Who, Vec<Grant>>,
    /// Which subjects a binding stands under, to take it out again.
    subjects: HashMap<ObjectKey, Vec<Who>>,
}

impl Index {
    pub fn set_cluster_role(&mut self, key: &ObjectKey, role: &ClusterRole) {
        self.roles.insert(key.clone(), compile(role.rules.as_deref()));
    }

    pub fn set_role(&mut self, key: &ObjectKey, role: &Role) {
        self.roles.insert(key.clone(), compile(role.rules.as_deref()));
    }

    pub fn remove_role(&mut self, key: &ObjectKey) {
        self.roles.remove(key);
    }

    pub fn set_cluster_role_binding(&mut self, key: &ObjectKey, binding: &ClusterRoleBinding) {
        self.set_binding(key, &binding.role_ref, binding.subjects.as_deref());
    }

    pub fn set_role_binding(&mut self, key: &ObjectKey, binding: &RoleBinding) {
        self.set_binding(key, &binding.role_ref, binding.subjects.as_deref());
    }

    fn set_binding(&mut self, key: &ObjectKey, role: &RoleRef, subjects: Option<&[Subject]>) {
        self.remove_binding(key);
        let namespace = if role.kind == "Role" { &*key.namespace } else { "" };
        let role = ObjectKey::new(namespace, &role.name);
        let mut placed = Vec::new();
        for subject in subjects.unwrap_or_default() {
            let Some((who, description)) = read_subject(subject, &key.namespace) else { continue };
            let grant = Grant { binding: key.clone(), role: role.clone(), subject: description };
            self.grants.entry(who.clone()).or_default().push(grant);
            placed.push(who);
        }
        self.subjects.insert(key.clone(), placed);
    }

    pub fn remove_binding(&mut self, key: &ObjectKey) {
        for who in self.subjects.remove(key).unwrap_or_default() {
            if let Some(grants) = self.grants.get_mut(&who) {
                grants.retain(|g| g.binding != *key);
                if grants.is_empty() {
                    self.grants.remove(&who);
                }
            }
        }
    }

    /// Answers one question: cluster-wide bindings first, then those of the namespace.
    #[must_use]
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = match attributes.target {
            Target::Resource(target) => target.namespace,
            Target::Path(_) => "",
        };
        let mut missing = Vec::new();
        for grant in self.grants_of(attributes.user, namespace) {
            match self.roles.get(&grant.role) {
                Some(rules) if rules.iter().any(|r| r.allows(attributes)) => {
                    return Decision::Allow { reason: grant.reason() };
                }
                Some(_) => {}
                None => missing.push(missing_role(&grant.role)),
            }
        }
        missing.sort();
        missing.dedup();
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::NoOpinion { reason }
    }

    /// Every rule that holds for the user in the namespace.
    #[must_use]
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.grants_of(user, namespace)
            .into_iter()
            .filter_map(|g| self.roles.get(&g.role))
            .flat_map(|rules| rules.iter().cloned())
            .collect()
    }

    /// The rules of a role, as a binding would refer to it.
    #[must_use]
    pub fn role_rules(&self, key: &ObjectKey) -> Option<Arc<[Rule]>> {
        self.roles.get(key).cloned()
    }

    fn grants_of<'i>(&'i self, user: &User, namespace: &str) -> Vec<&'i Grant> {
        let whos = std::iter::once(Who::User(user.name.as_str().into()))
            .chain(user.groups.iter().map(|g| Who::Group(g.as_str().into())));
        let mut grants: Vec<&Grant> = whos
            .filter_map(|who| self.grants.get(&who))
            .flatten()
            .filter(|g| g.binding.namespace.is_empty() || *g.binding.namespace == *namespace)
            .collect();
        grants.sort_by(|a, b| a.binding.cmp(&b.binding));
        grants
    }
}

impl Grant {
    fn reason(&self) -> String {
        let binding = if self.binding.namespace.is_empty() {
            format!("ClusterRoleBinding {:?}", &*self.binding.name)
        } else {
            // Upstream writes the name before the namespace here.
            format!("RoleBinding {:?}", format!("{}/{}", self.binding.name, self.binding.namespace))
        };
        let kind = if self.role.namespace.is_empty() { "ClusterRole" } else { "Role" };
        format!("RBAC: allowed by {binding} of {kind} {:?} to {}", &*self.role.name, self.subject)
    }
}

fn missing_role(role: &RoleKey) -> String {
    let resource = if role.namespace.is_empty() { "clusterrole" } else { "role" };
    format!("{resource}.rbac.authorization.k8s.io {:?} not found", &*role.name)
}

fn compile(rules: Option<&[PolicyRule]>) -> Arc<[Rule]> {
    rules.unwrap_or_default().iter().map(Rule::from).collect()
}

/// A subject and its description; `None` for kinds that upstream does not know either.
fn read_subject(subject: &Subject, binding_namespace: &str) -> Option<(Who, Box<str>)> {
    let name = subject.name.as_str();
    match subject.kind.as_str() {
        "User" => Some((Who::User(name.into()), format!("User {name:?}").into())),
        "Group" => Some((Who::Group(name.into()), format!("Group {name:?}").into())),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
            let description = format!("ServiceAccount {:?}", format!("{name}/{namespace}"));
            (!namespace.is_empty())
                .then(|| (Who::User(service_account_name(namespace, name).into()), description.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
