//! Objects that are in the store and cannot be read: nobody acts as if they were not there.

use std::path::Path;

use serde_json::{Value, json};

use super::fixtures::{Client, PODS};
use crate::auth::{User, user};
use crate::config::Store;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";

const NOTE: &[u8] = b"to be damaged";
const PAGE: usize = 4096;

/// Makes each object, closes the store, and damages those whose annotation says so.
async fn with_damaged(directory: &Path, objects: &[(&str, Value)]) -> Client {
    with(directory, objects, |bytes, at| bytes[at..at + NOTE.len()].fill(b'#')).await
}

async fn with(directory: &Path, objects: &[(&str, Value)], damage: impl Fn(&mut [u8], usize)) -> Client {
    let database = directory.join("store");
    let store = Store::File { database: database.clone(), marker: Some(directory.join("mark")) };
    let first = Client::with(store.clone()).await;
    for (path, object) in objects {
        first.post(path, object).await.expect(201);
    }
    first.server.close().await.unwrap();
    drop(first);
    let mut bytes = std::fs::read(&database).unwrap();
    let found: Vec<usize> = (0..bytes.len() - NOTE.len()).filter(|at| bytes[*at..].starts_with(NOTE)).collect();
    assert!(!found.is_empty());
    found.into_iter().for_each(|at| damage(&mut bytes, at));
    std::fs::write(&database, bytes).unwrap();
    Client::with(store).await
}

fn damaged(name: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"note": "to be damaged"}}})
}

fn controller() -> User {
    User::authenticated(
        "system:serviceaccount:kube-system:service-account-controller",
        &[user::SERVICE_ACCOUNTS, "system:serviceaccounts:kube-system"],
    )
}

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

#[tokio::test]
async fn a_controller_does_not_put_something_empty_in_the_place_of_a_damaged_object() {
    let directory = tempfile::tempdir().unwrap();
    let client = with_damaged(directory.path(), &[(ACCOUNTS, damaged("default"))]).await;
    let controller = controller();
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

/// A whole page is zeroed: not even the names of the objects on it are left.
#[tokio::test]
async fn what_may_have_been_on_a_lost_page_is_not_taken_for_absent() {
    let directory = tempfile::tempdir().unwrap();
    let objects = [(ACCOUNTS, damaged("default")), (LIMITS, damaged("limits"))];
    let client = with(directory.path(), &objects, |bytes, at| bytes[at / PAGE * PAGE..][..PAGE].fill(0)).await;
    assert!(!client.server.gaps().is_empty());
    let message = "Internal error occurred: serviceaccounts \"default\" may be among the objects that are lost in the \
                   store; creating it anew replaces it";
    let refusal = (500, "InternalError".to_owned(), message.to_owned());
    let path = format!("{ACCOUNTS}/default");
    assert_eq!(client.get(&path).await.failure(), refusal);
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(client.post_as(controller(), ACCOUNTS, &account).await.failure(), refusal);
    // A name that is made now takes no other's place.
    let generated = json!({"metadata": {"generateName": "default-"}});
    client.post_as(controller(), ACCOUNTS, &generated).await.expect(201);
    client.post(ACCOUNTS, &account).await.expect(201);
    let (code, _, message) = client.post(PODS, &pod()).await.failure();
    assert!(code == 500 && message.contains("perhaps one of the objects "), "{code} {message}");
    client.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(client.get(&path).await.failure().0, 404, "its absence is known");
}

#[tokio::test]
async fn no_pod_passes_by_a_damaged_limit_range() {
    let directory = tempfile::tempdir().unwrap();
    let account = json!({"metadata": {"name": "default"}});
    let client = with_damaged(directory.path(), &[(ACCOUNTS, account), (LIMITS, damaged("limits"))]).await;
    let (code, reason, message) = client.post(PODS, &pod()).await.failure();
    assert_eq!((code, reason.as_str()), (500, "InternalError"), "{message}");
    assert!(message.ends_with("/default/limits is damaged in the store and cannot be read"), "{message}");
    let list = client.get(LIMITS).await;
    let left_out = "/default/limits cannot be read and is not in this list";
    assert!(list.warnings().iter().any(|w| w.contains(left_out)), "{:?}", list.warnings());
    list.expect(200);
    assert!(client.get("/api/v1/namespaces/kube-system/limitranges").await.warnings().is_empty());
    // It says nothing of other namespaces.
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let accounts = "/api/v1/namespaces/other/serviceaccounts";
    client.post(accounts, &json!({"metadata": {"name": "default"}})).await.expect(201);
    client.post("/api/v1/namespaces/other/pods", &pod()).await.expect(201);
    // Whoever writes it anew has pods again.
    client.post(LIMITS, &json!({"metadata": {"name": "limits"}, "spec": {"limits": []}})).await.expect(201);
    client.post(PODS, &pod()).await.expect(201);
}
