//! Brings stored roles and bindings up to the bootstrap policy.
//!
//! The decisions are pure: given what is stored, what has to be written, if anything.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::AUTOUPDATE;
use crate::auth::rbac::{Rule, escalation};

/// What is to be done with one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<K> {
    Nothing,
    Create(K),
    Update(K),
    /// The reference to the role is immutable: the binding has to be made anew.
    Recreate(K),
}

/// A role of either scope.
pub trait RoleLike: Clone {
    fn metadata(&mut self) -> &mut ObjectMeta;
    fn rules(&mut self) -> &mut Option<Vec<PolicyRule>>;
}

/// A binding of either scope.
pub trait BindingLike: Clone {
    fn metadata(&mut self) -> &mut ObjectMeta;
    fn role_ref(&self) -> &RoleRef;
    fn subjects(&mut self) -> &mut Option<Vec<Subject>>;
}

/// Adds the rules, labels and annotations that the stored role lacks.
#[must_use]
pub fn role<R: RoleLike>(stored: Option<R>, mut wanted: R) -> Step<R> {
    let Some(mut stored) = stored else { return Step::Create(wanted) };
    if is_left_alone(stored.metadata()) {
        return Step::Nothing;
    }
    let mut changed = add_metadata(stored.metadata(), wanted.metadata());
    let own: Vec<Rule> = stored.rules().iter().flatten().map(Rule::from).collect();
    let missing: Vec<PolicyRule> = wanted
        .rules()
        .iter()
        .flatten()
        .filter(|rule| !escalation::uncovered(&own, &[Rule::from(*rule)]).is_empty())
        .cloned()
        .collect();
    if !missing.is_empty() {
        stored.rules().get_or_insert_default().extend(missing);
        changed = true;
    }
    if changed { Step::Update(stored) } else { Step::Nothing }
}

/// Adds the subjects, labels and annotations that the stored binding lacks.
#[must_use]
pub fn binding<B: BindingLike>(stored: Option<B>, mut wanted: B) -> Step<B> {
    let Some(mut stored) = stored else { return Step::Create(wanted) };
    if is_left_alone(stored.metadata()) {
        return Step::Nothing;
    }
    if stored.role_ref() != wanted.role_ref() {
        return Step::Recreate(wanted);
    }
    let mut changed = add_metadata(stored.metadata(), wanted.metadata());
    for subject in wanted.subjects().take().unwrap_or_default() {
        if !stored.subjects().iter().flatten().any(|s| same_subject(s, &subject)) {
            stored.subjects().get_or_insert_default().push(subject);
            changed = true;
        }
    }
    if changed { Step::Update(stored) } else { Step::Nothing }
}

fn same_subject(a: &Subject, b: &Subject) -> bool {
    a.kind == b.kind && a.name == b.name && a.namespace == b.namespace
}

fn is_left_alone(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v == "false")
}

/// Existing values win, as upstream has it.
fn add_metadata(stored: &mut ObjectMeta, wanted: &ObjectMeta) -> bool {
    let labels = add_missing(&mut stored.labels, wanted.labels.as_ref());
    let annotations = add_missing(&mut stored.annotations, wanted.annotations.as_ref());
    labels || annotations
}

fn add_missing(stored: &mut Option<BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>) -> bool {
    let mut changed = false;
    for (key, value) in wanted.into_iter().flatten() {
        let stored = stored.get_or_insert_default();
        if !stored.contains_key(key) {
            stored.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

impl RoleLike for ClusterRole {
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn rules(&mut self) -> &mut Option<Vec<PolicyRule>> {
        &mut self.rules
    }
}

impl RoleLike for Role {
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn rules(&mut self) -> &mut Option<Vec<PolicyRule>> {
        &mut self.rules
    }
}

impl BindingLike for ClusterRoleBinding {
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn role_ref(&self) -> &RoleRef {
        &self.role_ref
    }
    fn subjects(&mut self) -> &mut Option<Vec<Subject>> {
        &mut self.subjects
    }
}

impl BindingLike for RoleBinding {
    fn metadata(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn role_ref(&self) -> &RoleRef {
        &self.role_ref
    }
    fn subjects(&mut self) -> &mut Option<Vec<Subject>> {
        &mut self.subjects
    }
}

#[cfg(test)]
mod tests {
    use super::super::{cluster_role_bindings, cluster_roles};
    use super::*;

    #[test]
    fn a_role_that_lost_a_rule_gets_it_back_and_keeps_its_own() {
        let wanted = cluster_roles().into_iter().find(|r| r.metadata.name.as_deref() == Some("view")).unwrap();
        assert_eq!(role(None, wanted.clone()), Step::Create(wanted.clone()));
        assert_eq!(role(Some(wanted.clone()), wanted.clone()), Step::Nothing);
        let mut stored = wanted.clone();
        let lost = stored.rules.as_mut().unwrap().remove(0);
        let extra = PolicyRule {
            verbs: vec!["get".into()],
            api_groups: Some(vec!["x".into()]),
            resources: Some(vec!["y".into()]),
            ..PolicyRule::default()
        };
        stored.rules.as_mut().unwrap().push(extra.clone());
        let Step::Update(updated) = role(Some(stored.clone()), wanted.clone()) else { panic!("no update") };
        let rules = updated.rules.unwrap();
        assert!(rules.contains(&lost) && rules.contains(&extra));
        stored.metadata.annotations.as_mut().unwrap().insert(AUTOUPDATE.into(), "false".into());
        assert_eq!(role(Some(stored), wanted), Step::Nothing);
    }

    #[test]
    fn a_binding_gets_its_subjects_back_and_is_made_anew_for_another_role() {
        let wanted = cluster_role_bindings().remove(0);
        let mut stored = wanted.clone();
        stored.subjects = None;
        assert_eq!(binding(Some(stored.clone()), wanted.clone()), Step::Update(wanted.clone()));
        stored.role_ref.name = "view".into();
        assert_eq!(binding(Some(stored), wanted.clone()), Step::Recreate(wanted));
    }
}
