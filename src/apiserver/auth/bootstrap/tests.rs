use std::collections::BTreeSet;

use super::*;

#[test]
fn the_policy_is_complete() {
    assert_eq!(cluster_roles::ROLES.len(), 29, "roles beside admin, edit, view and the controllers'");
    assert_eq!(controller_roles::ROLES.len(), 38);
    assert_eq!(cluster_roles().len(), 29 + 38 + 3);
    assert_eq!(cluster_role_bindings().len(), 14 + 38);
    assert_eq!((roles().len(), role_bindings().len()), (7, 7));
}

#[test]
fn names_are_unique_and_every_binding_finds_its_role() {
    let names: BTreeSet<_> = cluster_roles().into_iter().filter_map(|r| r.metadata.name).collect();
    assert_eq!(names.len(), cluster_roles().len());
    for binding in cluster_role_bindings() {
        assert!(names.contains(&binding.role_ref.name), "{}", binding.role_ref.name);
    }
    let in_namespaces: BTreeSet<_> = roles().into_iter().map(|r| (r.metadata.namespace, r.metadata.name)).collect();
    for binding in role_bindings() {
        let role = (binding.metadata.namespace, Some(binding.role_ref.name));
        assert!(in_namespaces.contains(&role), "{role:?}");
    }
}

#[test]
fn admin_takes_in_edit_which_takes_in_view() {
    let all = cluster_roles();
    let rules = |name: &str| {
        let role = all.iter().find(|r| r.metadata.name.as_deref() == Some(name)).unwrap();
        role.rules.clone().unwrap()
    };
    let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
    assert!(view.iter().all(|r| edit.contains(r)) && edit.iter().all(|r| admin.contains(r)));
    assert_eq!(view.len(), rules("system:aggregate-to-view").len());
    assert_eq!(edit.len(), view.len() + rules("system:aggregate-to-edit").len());
    assert_eq!(admin.len(), edit.len() + rules("system:aggregate-to-admin").len());
    assert!(!view.iter().any(|r| r.resources.iter().flatten().any(|r| r == "secrets")));
}

#[test]
fn a_row_becomes_upstreams_rule() {
    let rule = policy_rule(&table::EVENTS);
    assert_eq!(
        serde_json::to_value(rule).unwrap(),
        serde_json::json!({
            "apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]})
    );
}

#[test]
fn a_controllers_account_is_bound_to_its_role() {
    let bindings = cluster_role_bindings();
    let name = Some("system:controller:job-controller".to_owned());
    let binding = bindings.iter().find(|b| b.metadata.name == name).unwrap();
    let subjects = binding.subjects.as_deref().unwrap_or_default();
    assert_eq!(subjects, [service_account("kube-system", "job-controller")]);
}
