use serde_json::json;

use super::*;
use crate::auth::attributes::ResourceTarget;

fn index() -> Index {
    let mut index = Index::default();
    let role = serde_json::from_value(json!({"rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}))
    .unwrap();
    index.set_cluster_role(&ObjectKey::new("", "reader"), &role);
    let role = serde_json::from_value(json!({"rules": [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}]}))
    .unwrap();
    index.set_role(&ObjectKey::new("a", "deployer"), &role);
    bind(&mut index, "", "everywhere", "ClusterRole", "reader", &json!([{"kind": "Group", "name": "devs"}]));
    bind(&mut index, "a", "here", "ClusterRole", "reader", &json!([{"kind": "User", "name": "ann"}]));
    bind(&mut index, "a", "deploy", "Role", "deployer", &json!([{"kind": "ServiceAccount", "name": "ci"}]));
    bind(&mut index, "a", "lost", "Role", "gone", &json!([{"kind": "User", "name": "ann"}]));
    index
}

fn bind(index: &mut Index, namespace: &str, name: &str, kind: &str, role: &str, subjects: &serde_json::Value) {
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
    let binding = json!({"metadata": {}, "roleRef": role_ref, "subjects": subjects});
    let key = ObjectKey::new(namespace, name);
    if namespace.is_empty() {
        index.set_cluster_role_binding(&key, &serde_json::from_value(binding).unwrap());
    } else {
        index.set_role_binding(&key, &serde_json::from_value(binding).unwrap());
    }
}

#[track_caller]
fn check(index: &Index, user: &User, verb: &str, group: &str, namespace: &str, resource: &str, expected: &str) {
    let target = ResourceTarget { group, namespace, resource, ..ResourceTarget::default() };
    let got = match index.authorize(&Attributes::resource(user, verb, target)) {
        Decision::Allow { reason } => format!("yes {reason}"),
        Decision::NoOpinion { reason } => format!("no {reason}"),
    };
    assert_eq!(got, expected, "{} {verb} {namespace}/{resource}", user.name);
}

#[test]
fn bindings_grant_to_users_groups_and_service_accounts() {
    let index = index();
    let ann = User::authenticated("ann", &[]);
    let dev = User::authenticated("dev", &["devs"]);
    let ci = User::service_account("a", "ci");
    let by_group = r#"yes RBAC: allowed by ClusterRoleBinding "everywhere" of ClusterRole "reader" to Group "devs""#;
    let by_user = r#"yes RBAC: allowed by RoleBinding "here/a" of ClusterRole "reader" to User "ann""#;
    let by_account = r#"yes RBAC: allowed by RoleBinding "deploy/a" of Role "deployer" to ServiceAccount "ci/a""#;
    check(&index, &dev, "get", "", "a", "pods", by_group);
    check(&index, &dev, "list", "", "", "pods", by_group);
    check(&index, &dev, "delete", "", "a", "pods", "no ");
    check(&index, &ann, "get", "", "a", "pods", by_user);
    check(&index, &ann, "get", "", "b", "pods", "no ");
    check(&index, &ann, "get", "", "", "pods", "no ");
    check(&index, &ci, "create", "apps", "a", "deployments", by_account);
    check(&index, &User::service_account("b", "ci"), "create", "apps", "a", "deployments", "no ");
}

#[test]
fn a_binding_to_a_missing_role_is_told() {
    let ann = User::authenticated("ann", &[]);
    check(&index(), &ann, "watch", "", "a", "pods", r#"no RBAC: role.rbac.authorization.k8s.io "gone" not found"#);
}

#[test]
fn changes_take_effect_at_once() {
    let mut index = index();
    let dev = User::authenticated("dev", &["devs"]);
    index.remove_binding(&ObjectKey::new("", "everywhere"));
    check(&index, &dev, "get", "", "a", "pods", "no ");
    bind(&mut index, "", "everywhere", "ClusterRole", "reader", &json!([{"kind": "User", "name": "dev"}]));
    let by_user = r#"yes RBAC: allowed by ClusterRoleBinding "everywhere" of ClusterRole "reader" to User "dev""#;
    check(&index, &dev, "get", "", "a", "pods", by_user);
    index.remove_role(&ObjectKey::new("", "reader"));
    let missing = r#"no RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#;
    check(&index, &dev, "get", "", "a", "pods", missing);
    assert!(index.rules_for(&dev, "a").is_empty());
}
