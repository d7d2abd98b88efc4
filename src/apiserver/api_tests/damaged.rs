//! Objects that are in the store and cannot be read: nobody acts as if they were not there.

use std::path::Path;

use serde_json::{Value, json};

use super::fixtures::{Client, PODS};
use crate::auth::{User, user};
use crate::config::Store;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";

/// Makes each object, closes the store, and damages those whose annotation says so.
async fn with_damaged(directory: &Path, objects: &[(&str, Value)]) -> Client {
    let database = directory.join("store");
    let store = Store::File { database: database.clone(), marker: Some(directory.join("mark")) };
    let first = Client::with(store.clone()).await;
    for (path, object) in objects {
        first.post(path, object).await.expect(201);
    }
    first.server.close().await.unwrap();
    drop(first);
    let mut bytes = std::fs::read(&database).unwrap();
    let text = b"to be damaged";
    let found: Vec<usize> = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at..at + text.len()].fill(b'#');
    }
    std::fs::write(&database, bytes).unwrap();
    Client::with(store).await
}

fn damaged(name: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"note": "to be damaged"}}})
}

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

#[tokio::test]
async fn a_controller_does_not_put_something_empty_in_the_place_of_a_damaged_object() {
    let directory = tempfile::tempdir().unwrap();
    let client = with_damaged(directory.path(), &[(ACCOUNTS, damaged("default"))]).await;
    let controller = User::authenticated(
        "system:serviceaccount:kube-system:service-account-controller",
        &[user::SERVICE_ACCOUNTS, "system:serviceaccounts:kube-system"],
    );
    let account = json!({"metadata": {"name": "default"}});
    let message = "Internal error occurred: serviceaccounts \"default\" is damaged in the store and cannot be read; \
                   creating it anew replaces it";
    let refusal = (500, "InternalError".to_owned(), message.to_owned());
    assert_eq!(client.post_as(controller.clone(), ACCOUNTS, &account).await.failure(), refusal);
    assert_eq!(client.get(&format!("{ACCOUNTS}/default")).await.failure(), refusal);
    assert_eq!(client.delete(&format!("{ACCOUNTS}/default"), &Value::Null).await.failure(), refusal);
    // Another of the kind is made, and a person may replace what is lost.
    let other = json!({"metadata": {"name": "other"}});
    client.post_as(controller, ACCOUNTS, &other).await.expect(201);
    client.post(ACCOUNTS, &account).await.expect(201);
    client.get(&format!("{ACCOUNTS}/default")).await.expect(200);
}

#[tokio::test]
async fn no_pod_passes_by_a_damaged_limit_range() {
    let directory = tempfile::tempdir().unwrap();
    let account = json!({"metadata": {"name": "default"}});
    let client = with_damaged(directory.path(), &[(ACCOUNTS, account), (LIMITS, damaged("limits"))]).await;
    let (code, reason, message) = client.post(PODS, &pod()).await.failure();
    assert_eq!((code, reason.as_str()), (500, "InternalError"), "{message}");
    assert!(message.ends_with("/default/limits is damaged in the store and cannot be read"), "{message}");
    // It says nothing of other namespaces.
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let accounts = "/api/v1/namespaces/other/serviceaccounts";
    client.post(accounts, &json!({"metadata": {"name": "default"}})).await.expect(201);
    client.post("/api/v1/namespaces/other/pods", &pod()).await.expect(201);
    // Whoever writes it anew has pods again.
    client.post(LIMITS, &json!({"metadata": {"name": "limits"}, "spec": {"limits": []}})).await.expect(201);
    client.post(PODS, &pod()).await.expect(201);
}
