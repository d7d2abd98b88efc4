//! PUT, PATCH, status and scale.

use serde_json::{Value, json};

use super::fixtures::{CONFIG_MAPS, Client, PODS, config_map, deployment};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn an_update_needs_the_newest_revision_if_it_names_one() {
    let client = Client::new().await;
    let created = client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut changed = created.clone();
    changed["data"]["k"] = json!("2");
    let updated = client.put(&path, &changed).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let words = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                 changes to the latest version and try again";
    assert_eq!(client.put(&path, &changed).await.failure(), (409, "Conflict".into(), words.into()));
    let unconditional = client.put(&path, &config_map("a", "3")).await.expect(200);
    assert_eq!(unconditional["data"]["k"], json!("3"));
    assert_eq!(unconditional["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(unconditional["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_revision() {
    let client = Client::new().await;
    let created = client.config_map("a", "1").await;
    let same = client.put(&format!("{CONFIG_MAPS}/a"), &created).await.expect(200);
    assert_eq!(same, created);
}

#[tokio::test]
async fn an_update_must_be_of_the_object_in_the_path() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let words = "the name of the object (b) does not match the name on the URL (a)";
    let other = client.put(&format!("{CONFIG_MAPS}/a"), &config_map("b", "1")).await;
    assert_eq!(other.failure(), (400, "BadRequest".into(), words.into()));
    let nameless = client.put(&format!("{CONFIG_MAPS}/a"), &json!({"metadata": {}})).await;
    let words = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!(nameless.failure(), (400, "BadRequest".into(), words.into()));
    let absent = client.put(&format!("{CONFIG_MAPS}/x"), &config_map("x", "1")).await;
    assert_eq!(absent.failure(), (404, "NotFound".into(), "configmaps \"x\" not found".into()));
}

#[tokio::test]
async fn some_kinds_are_created_by_an_update() {
    let client = Client::new().await;
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    client.put(&format!("{roles}/r"), &role).await.expect(201);
    client.put(&format!("{roles}/r"), &role).await.expect(200);
}

#[tokio::test]
async fn a_patch_may_not_make_another_kind_of_an_object() {
    let client = Client::new().await;
    client.post(DEPLOYMENTS, &deployment("a")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/a");
    let message = |answer: super::fixtures::Answer| {
        let (code, reason, message) = answer.failure();
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
        message
    };
    for (body, words) in [
        (json!({"kind": "StatefulSet"}), "converting (v1.StatefulSet) to (apps.Deployment): unknown conversion"),
        (json!({"kind": "Foo"}), "no kind \"Foo\" is registered for version \"apps/v1\" in scheme"),
        (json!({"apiVersion": "foo/v1"}), "no kind \"Deployment\" is registered for version \"foo/v1\" in scheme"),
    ] {
        let said = message(client.patch(&path, "merge-patch", &body).await);
        assert!(said.ends_with(words), "{said}");
    }
    let operations = json!([{"op": "replace", "path": "/kind", "value": "Foo"}]);
    message(client.patch(&path, "json-patch", &operations).await);
    // A strategic patch goes to the fields of the type that is there.
    let kept = client.patch(&path, "strategic-merge-patch", &json!({"kind": "Foo"})).await.expect(200);
    assert_eq!(kept["kind"], json!("Deployment"));
    let kept = client.patch(&path, "merge-patch", &json!({"kind": null})).await.expect(200);
    assert_eq!(kept["kind"], json!("Deployment"));
}

#[tokio::test]
async fn protobuf_and_json_without_a_status_are_stored_alike() {
    let client = Client::new().await;
    let body = deployment("a");
    let stored = client.post(DEPLOYMENTS, &body).await.expect(201);
    let path = format!("{DEPLOYMENTS}/a");
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    let observed = client.patch(&format!("{path}/status"), "merge-patch", &status).await.expect(200);
    assert_ne!(observed["status"], stored["status"]);
    let ty = api::schema::type_of("apps", "v1", "Deployment").unwrap();
    let encoded = api::protobuf::encode(&body, ty, "apps/v1", "Deployment").unwrap();
    let headers = [("content-type", "application/vnd.kubernetes.protobuf"), ("accept", "application/json")];
    let put = client.send(http::Method::PUT, &path, &headers, encoded).await.expect(200);
    assert_eq!(put, client.put(&path, &body).await.expect(200));
    assert_eq!((&put["status"], &put["spec"]), (&observed["status"], &stored["spec"]));
}

#[tokio::test]
async fn each_form_of_patch_changes_what_it_says() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let merged = client.patch(&path, "merge-patch", &json!({"data": {"x": "y"}})).await.expect(200);
    assert_eq!(merged["data"], json!({"k": "1", "x": "y"}));
    let ops = json!([{"op": "remove", "path": "/data/x"}]);
    let edited = client.patch(&path, "json-patch", &ops).await.expect(200);
    assert_eq!(edited["data"], json!({"k": "1"}));
    let refused = client.patch(&path, "json-patch", &ops).await.failure();
    let words = "the server rejected our request due to an error in our request";
    assert_eq!(refused, (422, "Invalid".into(), words.into()));

    client.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "redis"}]}}}});
    let path = format!("{DEPLOYMENTS}/d");
    let patched = client.patch(&path, "strategic-merge-patch", &patch).await.expect(200);
    let containers = patched.pointer("/spec/template/spec/containers").and_then(Value::as_array).unwrap();
    assert_eq!((containers.len(), &containers[0]["image"]), (1, &json!("redis")));
    assert_eq!(patched["metadata"]["generation"], json!(2));
}

#[tokio::test]
async fn patches_of_absent_objects_and_in_unknown_forms_are_refused() {
    let client = Client::new().await;
    let absent = client.patch(&format!("{CONFIG_MAPS}/x"), "merge-patch", &json!({})).await;
    assert_eq!(absent.failure(), (404, "NotFound".into(), "configmaps \"x\" not found".into()));
    client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let unknown = client.patch(&path, "sideways-patch", &json!({})).await;
    assert_eq!(unknown.code.as_u16(), 415);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "2"}});
    assert_eq!(client.patch(&path, "merge-patch", &stale).await.failure().1, "Conflict");
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let client = Client::new().await;
    let mut object = deployment("d");
    object["status"] = json!({"replicas": 9});
    let created = client.post(DEPLOYMENTS, &object).await.expect(201);
    assert_eq!(created["status"].get("replicas"), None);
    let path = format!("{DEPLOYMENTS}/d");
    let mut with_status = created.clone();
    with_status["status"] = json!({"replicas": 1});
    with_status["spec"]["replicas"] = json!(7);
    let updated = client.put(&format!("{path}/status"), &with_status).await.expect(200);
    assert_eq!((&updated["status"]["replicas"], &updated["spec"]["replicas"]), (&json!(1), &json!(1)));
    let patched = client.patch(&path, "merge-patch", &json!({"status": {"replicas": 5}})).await.expect(200);
    assert_eq!(patched["status"]["replicas"], json!(1));
}

#[tokio::test]
async fn a_scale_reads_and_writes_the_replicas() {
    let client = Client::new().await;
    client.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = client.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"]["selector"], json!("app=d"));
    let patched = client.patch(&path, "merge-patch", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(patched["spec"]["replicas"], json!(3));
    let stale = client.put(&path, &scale).await.failure();
    assert_eq!(stale.1, "Conflict");
    let negative = client.patch(&path, "merge-patch", &json!({"spec": {"replicas": -1}})).await.failure();
    assert_eq!((negative.0, negative.1.as_str()), (422, "Invalid"));
    let deployment = client.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!(deployment["spec"]["replicas"], json!(3));
}

#[tokio::test]
async fn a_patch_of_the_wrong_type_is_shown() {
    let client = Client::new().await;
    client.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let wrong = json!({"spec": {"replicas": "x"}});
    let strategic = client.patch(&format!("{DEPLOYMENTS}/d"), "strategic-merge-patch", &wrong).await.failure();
    assert_eq!((strategic.0, &*strategic.1), (422, "Invalid"));
    let message = strategic.2;
    assert!(message.contains("patch: Invalid value: \"map[spec:map[replicas:x]]\": "), "{message}");
    let merge = client.patch(&format!("{DEPLOYMENTS}/d"), "merge-patch", &wrong).await.failure();
    assert!(merge.2.contains("patch: Invalid value: \"{\\\"apiVersion\\\":\\\"apps/v1\\\""), "{}", merge.2);
}

#[tokio::test]
async fn a_scale_has_columns_of_its_own() {
    let client = Client::new().await;
    client.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = client.get_as(&format!("{DEPLOYMENTS}/d/scale"), accept).await.expect(200);
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("d"), json!(1), json!(0)]);
    assert_eq!(table["rows"][0]["object"]["kind"], json!("PartialObjectMetadata"));
}

/// A pod as a client writes it, with the given tolerations.
fn pod(tolerations: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": false, "tolerations": tolerations,
        "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_pods_tolerations_may_be_replaced_by_a_client_that_knows_only_its_own() {
    let client = Client::new().await;
    let account = json!({"metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    client.post(PODS, &pod(&json!([]))).await.expect(201);
    let own = json!([{"key": "disk", "operator": "Exists"}]);
    let path = format!("{PODS}/p");
    let replaced = client.patch(&path, "merge-patch", &json!({"spec": {"tolerations": own}})).await.expect(200);
    let keys: Vec<_> = replaced["spec"]["tolerations"].as_array().unwrap().iter().map(|t| &t["key"]).collect();
    assert_eq!(keys, ["disk", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    // Priority and preemption policy were given to it, too.
    let mut bare = pod(&own);
    bare["spec"]["serviceAccountName"] = json!("default");
    let put = client.put(&path, &bare).await.expect(200);
    assert_eq!(
        (&put["spec"]["priority"], &put["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let narrowed = client.patch(&path, "merge-patch", &json!({"spec": {"tolerations": []}})).await;
    assert!(narrowed.failure().2.contains("existing toleration can not be modified"), "{:?}", narrowed.failure());
}

#[tokio::test]
async fn a_claim_that_is_not_bound_does_not_grow() {
    let client = Client::new().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    client.post(claims, &claim("1Gi")).await.expect(201);
    let patch = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grown = client.patch(&format!("{claims}/c"), "merge-patch", &patch).await;
    assert_eq!(grown.code.as_u16(), 422, "{:?}", grown.failure());
    let bound = json!({"status": {"phase": "Bound"}});
    client.patch(&format!("{claims}/c/status"), "merge-patch", &bound).await.expect(200);
    let words = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the \
                 storageclass that provisions the pvc must support resize";
    let refused = client.patch(&format!("{claims}/c"), "merge-patch", &patch).await;
    assert_eq!(refused.failure(), (403, "Forbidden".into(), words.into()));
}
