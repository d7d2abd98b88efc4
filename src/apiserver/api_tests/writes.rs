//! Creating and deleting.

use http::Method;
use serde_json::{Value, json};

use super::fixtures::{CONFIG_MAPS, Client, PODS, config_map, deployment};

#[tokio::test]
async fn a_created_object_has_its_system_fields_and_reads_back() {
    let client = Client::new().await;
    let created = client.config_map("a", "1").await;
    let metadata = &created["metadata"];
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(metadata["namespace"], json!("default"));
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
    assert!(metadata["creationTimestamp"].as_str().is_some_and(|t| t.ends_with('Z')));
    assert!(metadata["resourceVersion"].as_str().is_some_and(|v| v.parse::<u64>().is_ok()));
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.expect(200), created);
}

#[tokio::test]
async fn failures_to_create_and_find_have_upstreams_words() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let again = client.post(CONFIG_MAPS, &config_map("a", "1")).await;
    assert_eq!(again.failure(), (409, "AlreadyExists".into(), "configmaps \"a\" already exists".into()));
    let absent = client.get(&format!("{CONFIG_MAPS}/x")).await;
    assert_eq!(absent.failure(), (404, "NotFound".into(), "configmaps \"x\" not found".into()));
    let unknown = client.get("/apis/apps/v1/nothings").await;
    let words = "the server could not find the requested resource";
    assert_eq!(unknown.failure(), (404, "NotFound".into(), words.into()));
    let mut elsewhere = config_map("b", "1");
    elsewhere["metadata"]["namespace"] = json!("other");
    let words = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(client.post(CONFIG_MAPS, &elsewhere).await.failure(), (400, "BadRequest".into(), words.into()));
    let nameless = client.post(CONFIG_MAPS, &json!({"metadata": {}})).await;
    let words = "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_eq!(nameless.failure(), (422, "Invalid".into(), words.into()));
    let method = client.send(Method::PUT, CONFIG_MAPS, &[], Vec::new()).await;
    let words = "the server does not allow this method on the requested resource";
    assert_eq!(method.failure(), (405, "MethodNotAllowed".into(), words.into()));
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_refused_in_upstreams_words() {
    let client = Client::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let mut unknown = deployment("a");
    unknown["spec"]["foo"] = json!(1);
    let strict = client.post(&format!("{deployments}?fieldValidation=Strict"), &unknown).await;
    let words = "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \
                 \"spec.foo\"";
    assert_eq!(strict.failure(), (400, "BadRequest".into(), words.into()));
    let mut kindless = unknown.clone();
    kindless.as_object_mut().unwrap().retain(|key, _| !["kind", "apiVersion"].contains(&key.as_str()));
    let strict = client.post(&format!("{deployments}?fieldValidation=Strict"), &kindless).await;
    assert_eq!(strict.failure(), (400, "BadRequest".into(), words.into()));
    let warned = client.post(deployments, &unknown).await;
    assert_eq!(warned.expect(201)["spec"].get("foo"), None);
    assert_eq!(warned.warnings(), ["299 - \"unknown field \\\"spec.foo\\\"\""]);
    let ignored = {
        unknown["metadata"]["name"] = json!("b");
        client.post(&format!("{deployments}?fieldValidation=Ignore"), &unknown).await
    };
    assert_eq!((ignored.code.as_u16(), ignored.warnings().len()), (201, 0));

    let mut wrong = deployment("c");
    wrong["spec"]["replicas"] = json!("three");
    let (code, reason, message) = client.post(deployments, &wrong).await.failure();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    let start = "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go";
    assert!(message.starts_with(start), "{message}");

    let other = client.post(deployments, &config_map("a", "1")).await.failure();
    assert_eq!((other.0, other.1.as_str()), (400, "BadRequest"));
    let media = client.send(Method::POST, CONFIG_MAPS, &[("content-type", "text/plain")], b"x".to_vec()).await;
    let words = "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!(media.failure(), (415, "UnsupportedMediaType".into(), words.into()));
}

#[tokio::test]
async fn large_objects_are_refused_by_size() {
    let client = Client::new().await;
    let of_size = |bytes: usize| {
        let mut object = config_map("big", "1");
        object["metadata"]["annotations"] = json!({"x": "y".repeat(bytes)});
        object["data"] = Value::Null;
        object.to_string().into_bytes()
    };
    let json = [("content-type", "application/json")];
    let huge = client.send(Method::POST, CONFIG_MAPS, &json, of_size(4 << 20)).await;
    let words = "Request entity too large: limit is 3145728";
    assert_eq!(huge.failure(), (413, "RequestEntityTooLarge".into(), words.into()));
    assert!(client.get(&format!("{CONFIG_MAPS}/big")).await.code.is_client_error());
}

#[tokio::test]
async fn names_are_generated() {
    let client = Client::new().await;
    let object = json!({"metadata": {"generateName": "web-"}});
    let first = client.post(CONFIG_MAPS, &object).await.expect(201);
    let second = client.post(CONFIG_MAPS, &object).await.expect(201);
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn a_refusal_before_the_name_is_generated_names_what_the_request_had() {
    let client = Client::new().await;
    let spec = json!({"containers": [{"name": "a", "image": "b"}], "priorityClassName": "none"});
    let pod = json!({"metadata": {"generateName": "web-"}, "spec": spec});
    let (code, _, message) = client.post(PODS, &pod).await.failure();
    assert_eq!(code, 403);
    assert!(message.starts_with("pods \"web-\" is forbidden: "), "{message}");

    let invalid = json!({"metadata": {"generateName": "web-"}, "data": {"a/b": "1"}});
    let (code, _, message) = client.post(CONFIG_MAPS, &invalid).await.failure();
    assert_eq!(code, 422);
    let rest = message.strip_prefix("ConfigMap \"web-").expect("rules see the generated name, as upstream's");
    assert_eq!(rest.find('"'), Some(5), "{message}");
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let client = Client::new().await;
    let dry = client.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", "1")).await.expect(201);
    assert_eq!((&dry["data"]["k"], dry["metadata"].get("resourceVersion")), (&json!("1"), None));
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.code.as_u16(), 404);
    client.config_map("a", "1").await;
    let deleted = client.delete(&format!("{CONFIG_MAPS}/a?dryRun=All"), &Value::Null).await;
    assert_eq!(deleted.expect(200)["status"], json!("Success"));
    assert_eq!(client.get(&format!("{CONFIG_MAPS}/a")).await.code.as_u16(), 200);
}

#[tokio::test]
async fn a_delete_answers_with_a_status_or_the_object() {
    let client = Client::new().await;
    let created = client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = client.delete(&path, &json!({"preconditions": {"uid": "x"}})).await.failure();
    assert_eq!((wrong.0, wrong.1.as_str()), (409, "Conflict"));
    let gone = client.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(
        gone,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]},
        })
    );
    assert_eq!(client.delete(&path, &Value::Null).await.code.as_u16(), 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_removed() {
    let client = Client::new().await;
    let mut object = config_map("a", "1");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let held = client.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(held["kind"], json!("ConfigMap"));
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let released = client.patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}})).await;
    released.expect(200);
    assert_eq!(client.get(&path).await.code.as_u16(), 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let client = Client::new().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        client.config_map(name, label).await;
    }
    let deleted = client.delete(&format!("{CONFIG_MAPS}?labelSelector=n%3D1"), &Value::Null).await.expect(200);
    assert_eq!((&deleted["kind"], deleted["items"].as_array().map(Vec::len)), (&json!("ConfigMapList"), Some(2)));
    let left = client.get(CONFIG_MAPS).await.expect(200);
    let names: Vec<_> = left["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let client = Client::new().await;
    let namespaces = "/api/v1/namespaces";
    let created = client.post(namespaces, &json!({"metadata": {"name": "x"}})).await.expect(201);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let path = format!("{namespaces}/x");
    let terminating = client.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(terminating["status"]["phase"], json!("Terminating"));
    let mut finalized = terminating;
    finalized["spec"]["finalizers"] = json!([]);
    client.put(&format!("{path}/finalize"), &finalized).await.expect(200);
    assert_eq!(client.get(&path).await.code.as_u16(), 404);
}

#[tokio::test]
async fn a_pod_without_a_node_is_deleted_at_once_and_answers_with_itself() {
    let client = Client::new().await;
    let account = json!({"metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    client.post(PODS, &pod).await.expect(201);
    let deleted = client.delete(&format!("{PODS}/p"), &Value::Null).await.expect(200);
    assert_eq!(deleted["kind"], json!("Pod"));
    assert_eq!(client.get(&format!("{PODS}/p")).await.code.as_u16(), 404);
}

#[tokio::test]
async fn an_event_is_one_object_in_two_groups() {
    let client = Client::new().await;
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "reason": "Tested", "message": "hello", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    client.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    let other = client.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((&other["apiVersion"], &other["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    assert_eq!(other["regarding"]["name"], json!("p"));
    for (selector, expected) in [
        ("regarding.namespace%3Ddefault,reportingController!%3Dx", Some(1)),
        ("regarding.namespace%3Dother", Some(0)),
        ("involvedObject.namespace%3Ddefault", None),
        ("source%3Dx", None),
    ] {
        let answer = client.get(&format!("/apis/events.k8s.io/v1/events?fieldSelector={selector}")).await;
        assert_eq!(answer.json()["items"].as_array().map(Vec::len), expected, "{selector}: {answer:?}");
    }
    let list = client.get("/apis/events.k8s.io/v1/events").await.expect(200);
    assert_eq!(list["items"][0]["note"], json!("hello"));
}

/// Upstream has no better word for these than 500, and clients know them by their text.
#[tokio::test]
async fn some_mistakes_of_clients_are_answered_as_upstream_does() {
    let client = Client::new().await;
    let mut versioned = config_map("a", "1");
    versioned["metadata"]["resourceVersion"] = json!("5");
    let words = "resourceVersion should not be set on objects to be created";
    assert_eq!(client.post(CONFIG_MAPS, &versioned).await.failure(), (500, String::new(), words.into()));
    let path = "/apis/apps/v1/namespaces/default/deployments";
    client.post(path, &deployment("d")).await.expect(201);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
    let refused = client.patch(&format!("{path}/d"), "strategic-merge-patch", &patch).await;
    assert_eq!((refused.failure().0, refused.failure().1), (500, String::new()));
    client.get(&format!("{CONFIG_MAPS}?timeoutSeconds=-1")).await.expect(200);
}

#[tokio::test]
async fn a_body_that_is_no_delete_options_deletes_nothing() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let path = format!("{CONFIG_MAPS}/a");
    let refused = client.delete(&path, &json!({"kind": "Foo", "apiVersion": "v1"})).await;
    let words = "no kind \"Foo\" is registered for version \"v1\" in scheme";
    assert_eq!(refused.failure(), (400, "BadRequest".into(), words.into()));
    client.get(&path).await.expect(200);
    client.delete(&path, &json!({"kind": "DeleteOptions", "apiVersion": "policy/v1"})).await.expect(200);
}

#[tokio::test]
async fn deprecated_resources_say_so() {
    let client = Client::new().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(client.get(endpoints).await.warnings(), [warning]);
    let made = client.post(endpoints, &json!({"metadata": {"name": "e"}})).await;
    assert_eq!(made.warnings(), [warning]);
    assert!(client.get("/apis/discovery.k8s.io/v1/endpointslices").await.warnings().is_empty());
}
