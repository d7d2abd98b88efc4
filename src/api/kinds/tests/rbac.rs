//! The rbac group, row by row against upstream.

use super::*;

const GROUP: &str = "rbac.authorization.k8s.io";

fn object(kind: &str, mut body: Value) -> (String, Value) {
    body["metadata"] = json!({"name": "a:b"});
    if !kind.starts_with("Cluster") {
        body["metadata"]["namespace"] = json!("default");
    }
    (kind.to_owned(), body)
}

fn binding(role: &str, subject: &Value) -> Value {
    json!({"roleRef": {"kind": role, "name": "r"}, "subjects": [subject]})
}

#[track_caller]
fn check_all(rows: &[((String, Value), &[&str])]) {
    for ((kind, body), expected) in rows {
        check(GROUP, kind, body.clone(), expected);
    }
}

#[test]
fn rules_name_resources_or_urls() {
    let rule = |rule: Value| json!({"rules": [rule]});
    let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
    check_all(&[
        (object("Role", rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))), &[]),
        (
            object("Role", rule(json!({"verbs": []}))),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (
            object("Role", rule(urls.clone())),
            &["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"],
        ),
        (object("ClusterRole", rule(urls)), &[]),
        (
            object("ClusterRole", rule(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resourceNames": ["a"]}))),
            &[
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
            ],
        ),
        (
            object("ClusterRole", json!({"aggregationRule": {}})),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        ),
        (
            object(
                "ClusterRole",
                json!({"aggregationRule": {"clusterRoleSelectors": [
                {"matchExpressions": [{"key": "a", "operator": "X"}]}]}}),
            ),
            &[
                "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
                "aggregationRule.clusterRoleSelectors[0]: Invalid value: null: invalid label selector.",
            ],
        ),
    ]);
}

#[test]
fn bindings_name_a_role_and_subjects() {
    let account = json!({"kind": "ServiceAccount", "name": "default"});
    check_all(&[
        (object("RoleBinding", binding("Role", &account)), &[]),
        (object("RoleBinding", binding("ClusterRole", &account)), &[]),
        (object("ClusterRoleBinding", binding("ClusterRole", &account)), &["subjects[0].namespace: Required value"]),
        (
            object("ClusterRoleBinding", binding("Role", &json!({"kind": "User", "name": "a"}))),
            &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
        ),
        (object("RoleBinding", binding("Role", &json!({"kind": "Group"}))), &["subjects[0].name: Required value"]),
        (
            object("RoleBinding", binding("Role", &json!({"kind": "ServiceAccount", "name": "A", "apiGroup": "x"}))),
            &[
                "subjects[0].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"\"",
            ],
        ),
        (
            object("RoleBinding", binding("Role", &json!({"kind": "Robot", "name": "a"}))),
            &[
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
        (
            object("RoleBinding", json!({"roleRef": {"kind": "Role", "name": "", "apiGroup": "x"}})),
            &[
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.name: Required value",
            ],
        ),
        (
            object("RoleBinding", json!({"roleRef": {"kind": "Role", "name": "a/b"}})),
            &["roleRef.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
    ]);
    let old = stored(GROUP, "RoleBinding", object("RoleBinding", binding("Role", &account)).1);
    check_update(
        GROUP,
        "RoleBinding",
        &old,
        "/roleRef/name",
        json!("other"),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"other\"}: cannot change roleRef",
        ],
    );
}
