//! Admission through the whole router: what it cannot read it does not wave through.

use api::object::GroupResource;
use serde_json::{Value, json};

use super::fixtures::{Client, PODS};

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

async fn with_account() -> Client {
    let client = Client::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    client.post(accounts, &json!({"metadata": {"name": "default"}})).await.expect(201);
    client
}

/// Stores an object that no client could have written.
async fn store(client: &Client, group: &str, resource: &str, object: Value) {
    client.server.registry.create(&GroupResource::new(group, resource), object).await.unwrap();
}

#[tokio::test]
async fn policy_that_cannot_be_read_admits_nothing() {
    let damaged = [
        ("", "limitranges", "default", json!({"spec": {"limits": "x"}})),
        ("scheduling.k8s.io", "priorityclasses", "", json!({"value": "x"})),
    ];
    for (group, resource, namespace, mut object) in damaged {
        let client = with_account().await;
        object["metadata"] = json!({"name": "damaged"});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        store(&client, group, resource, object).await;
        let (code, reason, message) = client.post(PODS, &pod()).await.failure();
        assert_eq!((code, reason.as_str()), (500, "InternalError"), "{message}");
        assert!(message.contains(resource) && message.contains("\"damaged\" cannot be read"), "{message}");
    }
    let client = Client::new().await;
    let account = json!({"metadata": {"name": "default", "namespace": "default"}, "imagePullSecrets": "x"});
    store(&client, "", "serviceaccounts", account).await;
    assert_eq!(client.post(PODS, &pod()).await.code.as_u16(), 500);
    let client = with_account().await;
    store(&client, "node.k8s.io", "runtimeclasses", json!({"metadata": {"name": "vm"}, "scheduling": "x"})).await;
    let mut with_class = pod();
    with_class["spec"]["runtimeClassName"] = json!("vm");
    assert_eq!(client.post(PODS, &with_class).await.code.as_u16(), 500);
}

#[tokio::test]
async fn a_namespaces_level_is_one_that_there_is() {
    let client = with_account().await;
    let enforce = "pod-security.kubernetes.io/enforce";
    let made = |level: &str| json!({"metadata": {"name": "n", "labels": {enforce: level}}});
    let refused = client.post("/api/v1/namespaces", &made("baseline2")).await.failure();
    let message = "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
                   \"baseline2\": must be one of privileged, baseline, restricted";
    assert_eq!(refused, (422, "Invalid".into(), message.into()));
    client.post("/api/v1/namespaces", &made("baseline")).await.expect(201);
    let version = json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn-version": "x"}}});
    let refused = client.patch("/api/v1/namespaces/n", "merge-patch", &version).await.failure();
    assert_eq!((refused.0, refused.2.ends_with("\"x\": must be \"latest\" or \"v1.x\"")), (422, true), "{refused:?}");
    // Pods that are there already are told of.
    client.post(PODS, &pod()).await.expect(201);
    let strict = json!({"metadata": {"labels": {enforce: "restricted"}}});
    let answer = client.patch("/api/v1/namespaces/default", "merge-patch", &strict).await;
    answer.expect(200);
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \
             \\\"restricted:latest\\\"\"",
            "299 - \"web: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, \
             seccompProfile\"",
        ]
    );
}
