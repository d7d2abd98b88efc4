//! Who gets in, as whom, and what they may do.

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fixtures::{Answer, Client, PODS};
use crate::auth::User;
use crate::auth::user::act_as;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";

/// Sends a request as somebody else than the administrator, or as nobody.
async fn send(client: &Client, user: Option<User>, method: Method, path: &str, token: &str, body: &Value) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut request = request.body(axum::body::Body::from(text)).unwrap();
    if let Some(user) = user {
        act_as(request.extensions_mut(), Arc::new(user));
    }
    let response = tower::ServiceExt::oneshot(client.server.router(), request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { code: parts.status, headers: parts.headers, body }
}

async fn get(client: &Client, user: User, path: &str) -> Answer {
    send(client, Some(user), Method::GET, path, "", &Value::Null).await
}

fn forbidden(message: &str) -> (u16, String, String) {
    (403, "Forbidden".into(), message.into())
}

fn binding(name: &str, role_kind: &str, role: &str, subject: &Value) -> Value {
    json!({"metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}})
}

fn user_subject(name: &str) -> Value {
    json!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"})
}

#[tokio::test]
async fn nobody_reads_more_than_health_and_version() {
    let client = Client::new().await;
    for (path, code) in [("/version", 200), ("/healthz", 200), ("/readyz", 200), ("/api", 401), ("/metrics", 401)] {
        let answer = send(&client, None, Method::GET, path, "", &Value::Null).await;
        assert_eq!(answer.code.as_u16(), code, "{path}");
    }
    let answer = send(&client, None, Method::GET, PODS, "wrong", &Value::Null).await;
    assert_eq!(
        answer.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
            "reason": "Unauthorized", "code": 401})
    );
}

#[tokio::test]
async fn a_service_account_lives_by_its_token_and_its_bindings() {
    let client = Client::new().await;
    client.post(ACCOUNTS, &json!({"metadata": {"name": "ci"}})).await.expect(201);
    let path = format!("{ACCOUNTS}/ci/token");
    let granted = client.post(&path, &json!({"spec": {"audiences": []}})).await.expect(201);
    let token = granted["status"]["token"].as_str().unwrap();
    assert_eq!(granted["spec"]["expirationSeconds"], json!(3600));
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = send(&client, None, Method::POST, whoami, token, &json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], json!("system:serviceaccount:default:ci"));
    let list = || send(&client, None, Method::GET, PODS, token, &Value::Null);
    let message = "pods is forbidden: User \"system:serviceaccount:default:ci\" cannot list resource \"pods\" in API \
                   group \"\" in the namespace \"default\"";
    assert_eq!(list().await.failure(), forbidden(message));
    let subject = json!({"kind": "ServiceAccount", "name": "ci", "namespace": "default"});
    client.post(BINDINGS, &binding("ci", "ClusterRole", "view", &subject)).await.expect(201);
    list().await.expect(200);
    client.delete(&format!("{ACCOUNTS}/ci"), &Value::Null).await.expect(200);
    assert_eq!(list().await.code.as_u16(), 401);
}

#[tokio::test]
async fn a_token_is_judged_for_others_too() {
    let client = Client::new().await;
    client.post(ACCOUNTS, &json!({"metadata": {"name": "ci"}})).await.expect(201);
    let granted = client.post(&format!("{ACCOUNTS}/ci/token"), &json!({"spec": {"audiences": ["vault"]}})).await;
    let token = granted.expect(201)["status"]["token"].clone();
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let ask = |audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let yes = client.post(reviews, &ask(json!(["vault"]))).await.expect(201);
    assert_eq!(yes["status"]["user"]["username"], json!("system:serviceaccount:default:ci"));
    assert_eq!(yes["status"]["audiences"], json!(["vault"]));
    let no = client.post(reviews, &ask(json!(null))).await.expect(201);
    assert_ne!(no["status"]["authenticated"], json!(true));
}

#[tokio::test]
async fn reviews_answer_with_the_reason() {
    let client = Client::new().await;
    client.post(BINDINGS, &binding("ann", "ClusterRole", "view", &user_subject("ann"))).await.expect(201);
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = |verb: &str| {
        let attributes = json!({"namespace": "default", "verb": verb, "resource": "pods"});
        json!({"spec": {"user": "ann", "resourceAttributes": attributes}})
    };
    let yes = client.post(reviews, &ask("list")).await.expect(201);
    let reason = "RBAC: allowed by RoleBinding \"ann/default\" of ClusterRole \"view\" to User \"ann\"";
    assert_eq!(yes["status"], json!({"allowed": true, "reason": reason}));
    let no = client.post(reviews, &ask("delete")).await.expect(201);
    assert_eq!(no["status"], json!({"allowed": false}));
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let ann = User::authenticated("ann", &[]);
    let list = send(&client, Some(ann), Method::POST, rules, "", &json!({"spec": {"namespace": "default"}})).await;
    let list = list.expect(201);
    assert!(list["status"]["resourceRules"].as_array().is_some_and(|r| r.len() > 10), "{list}");
}

#[tokio::test]
async fn acting_as_another_has_their_rights_only() {
    let client = Client::new().await;
    let answer = client.send(Method::GET, PODS, &[("impersonate-user", "ann")], Vec::new()).await;
    // The administrator's identity is this process's own: headers do not apply to it.
    answer.expect(200);
    let minimal = json!({"metadata": {"name": "ci"}});
    client.post(ACCOUNTS, &minimal).await.expect(201);
    let token = client.post(&format!("{ACCOUNTS}/ci/token"), &json!({"spec": {"audiences": []}})).await.expect(201);
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let request = Request::get(PODS)
        .header("authorization", &bearer)
        .header("impersonate-user", "ann")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = tower::ServiceExt::oneshot(client.server.router(), request).await.unwrap();
    assert_eq!(response.status().as_u16(), 403);
    let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let message = "users \"ann\" is forbidden: User \"system:serviceaccount:default:ci\" cannot impersonate resource \
                   \"users\" in API group \"\" at the cluster scope";
    assert_eq!(body["message"], json!(message));
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let client = Client::new().await;
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"],
        "verbs": ["create"]}, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    client.post(ROLES, &json!({"metadata": {"name": "granter"}, "rules": rules})).await.expect(201);
    client.post(BINDINGS, &binding("ann", "Role", "granter", &user_subject("ann"))).await.expect(201);
    let ann = || Some(User::authenticated("ann", &[]));
    let role = |name: &str, verbs: Value| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]});
    send(&client, ann(), Method::POST, ROLES, "", &role("ok", json!(["get"]))).await.expect(201);
    let refused = send(&client, ann(), Method::POST, ROLES, "", &role("no", json!(["get", "delete"]))).await;
    let message = "roles.rbac.authorization.k8s.io \"no\" is forbidden: user \"ann\" \
                   (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
                   {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}";
    assert_eq!(refused.failure(), forbidden(message));
    let bind = |role: &str| binding(role, "ClusterRole", role, &user_subject("bob"));
    let refused = send(&client, ann(), Method::POST, BINDINGS, "", &bind("cluster-admin")).await;
    assert_eq!(refused.code.as_u16(), 403);
    let missing = send(&client, ann(), Method::POST, BINDINGS, "", &bind("nothing")).await;
    assert_eq!(missing.code.as_u16(), 404);
}

#[tokio::test]
async fn a_node_reads_the_secrets_of_its_own_pods() {
    let client = Client::new().await;
    let secret = json!({"metadata": {"name": "s"}});
    client.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    client.post(ACCOUNTS, &json!({"metadata": {"name": "plain"}})).await.expect(201);
    let path = "/api/v1/namespaces/default/secrets/s";
    let message = "secrets \"s\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \
                   \"\" in the namespace \"default\": no relationship found between node 'n1' and this object";
    assert_eq!(get(&client, User::node("n1"), path).await.failure(), forbidden(message));
    let spec = json!({"nodeName": "n1", "serviceAccountName": "plain",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]});
    client.post(PODS, &json!({"metadata": {"name": "web"}, "spec": spec})).await.expect(201);
    get(&client, User::node("n1"), path).await.expect(200);
    assert_eq!(get(&client, User::node("n2"), path).await.code.as_u16(), 403);
}
