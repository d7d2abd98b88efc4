//! Services' addresses, pods' special subresources, system objects.

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fixtures::{Client, PODS};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn with_account() -> Client {
    let client = Client::new().await;
    // An account of its own, where the fixture has made none.
    let account = client.post(ACCOUNTS, &json!({"metadata": {"name": "default"}})).await;
    assert!(matches!(account.code.as_u16(), 201 | 409), "{account:?}");
    client
}

#[tokio::test]
async fn methods_that_a_special_resource_has_not_are_refused() {
    let client = Client::new().await;
    let refused = [
        ("PUT", "/api/v1/namespaces/default/pods/x/log"),
        ("POST", "/api/v1/namespaces/default/pods/x/log"),
        ("PUT", "/api/v1/namespaces/default/pods/x/exec"),
        ("DELETE", "/api/v1/namespaces/default/pods/x/attach"),
        ("PATCH", "/api/v1/namespaces/default/pods/x/portforward"),
        ("GET", "/api/v1/namespaces/default/pods/x/binding"),
        ("PUT", "/api/v1/namespaces/default/pods/x/eviction"),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/default/token"),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("PUT", "/apis/authorization.k8s.io/v1/subjectaccessreviews/x"),
    ];
    for (method, path) in refused {
        let answer = client.send(method.parse().unwrap(), path, &[], b"{}".to_vec()).await;
        assert_eq!(answer.code.as_u16(), 405, "{method} {path}");
    }
    let words = "pods \"x\" not found".to_owned();
    for (method, path) in [("GET", "x/log"), ("POST", "x/exec?command=a"), ("GET", "x/attach"), ("DELETE", "x/proxy/a")]
    {
        let answer = client.send(method.parse().unwrap(), &format!("{PODS}/{path}"), &[], Vec::new()).await;
        assert_eq!(answer.failure(), (404, "NotFound".into(), words.clone()), "{method} {path}");
    }
    assert_eq!(client.get("/apis/authentication.k8s.io/v9/tokenreviews").await.code.as_u16(), 404);
}

#[tokio::test]
async fn what_others_do_to_the_servers_endpoints_is_put_right() {
    let client = Client::new().await;
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(client.server.clone().keep_system_objects(cancel.clone()));
    let path = "/api/v1/namespaces/default/endpoints/kubernetes";
    let mut endpoints = client.get(path).await.expect(200);
    let mut watch = client.watch("/api/v1/namespaces/default/endpoints?watch=1").await;
    assert_eq!(watch.brief().await.0, "ADDED");
    endpoints["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.99");
    client.put(path, &endpoints).await.expect(200);
    let ip = |event: Option<Value>| event.unwrap()["object"]["subsets"][0]["addresses"][0]["ip"].clone();
    assert_eq!(ip(watch.next().await), json!("192.0.2.99"));
    assert_eq!(ip(watch.next().await), json!("192.0.2.1"));
    client.delete(path, &Value::Null).await.expect(200);
    assert_eq!(watch.brief().await.0, "DELETED");
    assert_eq!(watch.brief().await.0, "ADDED");
    cancel.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn the_address_of_cluster_dns_is_the_service_kube_dns() {
    let client = Client::new().await;
    let path = "/api/v1/namespaces/kube-system/services/kube-dns";
    let service = client.get(path).await.expect(200);
    assert_eq!(service["metadata"]["labels"]["k8s-app"], json!("kube-dns"));
    assert_eq!(service["spec"]["clusterIP"], json!("10.96.0.10"));
    let ports: Vec<_> =
        service["spec"]["ports"].as_array().unwrap().iter().map(|p| (&p["name"], &p["protocol"])).collect();
    assert_eq!(ports, [(&json!("dns"), &json!("UDP")), (&json!("dns-tcp"), &json!("TCP"))]);
    // Nobody else is given it or the address of the API, even while the services are away.
    client.delete(path, &Value::Null).await.expect(200);
    client.delete(&format!("{SERVICES}/kubernetes"), &Value::Null).await.expect(200);
    for address in ["10.96.0.10", "10.96.0.1"] {
        let wanted = json!({"metadata": {"name": "mine"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
        let message = format!(
            "Service \"mine\" is invalid: spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP \
             {address}: provided IP is already allocated"
        );
        assert_eq!(client.post(SERVICES, &wanted).await.failure(), (422, "Invalid".into(), message));
    }
    let server = &client.server;
    crate::system_objects::ensure(&server.registry, &server.config).await.unwrap();
    let mut restored = client.get(path).await.expect(200);
    assert_eq!(restored["spec"], service["spec"]);
    // Labels of its own may be added; the rest is put right.
    restored["metadata"]["labels"]["mine"] = json!("yes");
    restored["spec"]["ports"] = json!([{"name": "x", "port": 5353}]);
    client.put(path, &restored).await.expect(200);
    crate::system_objects::ensure(&server.registry, &server.config).await.unwrap();
    let kept = client.get(path).await.expect(200);
    assert_eq!((&kept["spec"], &kept["metadata"]["labels"]["mine"]), (&service["spec"], &json!("yes")));
}

#[tokio::test]
async fn the_server_keeps_its_own_objects() {
    let client = Client::new().await;
    let service = client.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(service["spec"]["clusterIP"], json!("10.96.0.1"));
    let endpoints = client.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], json!("192.0.2.1"));
    let roles = client.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").await.expect(200);
    assert_eq!(roles["items"].as_array().map(Vec::len), Some(70));
    let classes = client.get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical").await.expect(200);
    assert_eq!(classes["value"], json!(2_000_001_000));
    let before = client.get("/api/v1/namespaces").await.expect(200)["metadata"]["resourceVersion"].clone();
    let server = &client.server;
    crate::system_objects::ensure(&server.registry, &server.config).await.unwrap();
    let after = client.get("/api/v1/namespaces").await.expect(200)["metadata"]["resourceVersion"].clone();
    assert_eq!(before, after, "nothing is written when nothing is missing");
}

#[tokio::test]
async fn services_get_addresses_and_ports_once() {
    let client = Client::new().await;
    let service = |name: &str, port: Value| {
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": port}]}})
    };
    let made = client.post(SERVICES, &service("a", json!(30080))).await.expect(201);
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.96."), "{address}");
    let taken = client.post(SERVICES, &service("b", json!(30080))).await;
    let message = "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already \
                   allocated";
    assert_eq!(taken.failure(), (422, "Invalid".into(), message.into()));
    client.delete(&format!("{SERVICES}/a"), &Value::Null).await.expect(200);
    client.post(SERVICES, &service("b", json!(30080))).await.expect(201);
    let many = (0..40).map(|i| {
        let (client, body) = (&client, service(&format!("s{i}"), json!(null)));
        async move { client.post(SERVICES, &body).await.expect(201)["spec"]["ports"][0]["nodePort"].clone() }
    });
    let ports = futures::future::join_all(many).await;
    let distinct: std::collections::BTreeSet<String> = ports.iter().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), 40);
}

#[tokio::test]
async fn a_pod_is_admitted_bound_once_and_evicted() {
    let client = with_account().await;
    let made = client.post(PODS, &pod("web")).await.expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], json!("default"));
    assert_eq!(made["spec"]["priority"], json!(0));
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/web/binding");
    let bound = client.post(&path, &binding).await.expect(201);
    assert_eq!((&bound["kind"], &bound["status"]), (&json!("Status"), &json!("Success")));
    let pod = client.get(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(pod["spec"]["nodeName"], json!("n1"));
    assert_eq!(pod["status"]["conditions"][0]["type"], json!("PodScheduled"));
    let message = "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n1\"";
    assert_eq!(client.post(&path, &binding).await.failure(), (409, "Conflict".into(), message.into()));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}});
    client.post(&format!("{PODS}/web/eviction"), &eviction).await.expect(201);
    let pod = client.get(&format!("{PODS}/web")).await.expect(200);
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let reason =
        pod["status"]["conditions"].as_array().and_then(|c| c.iter().find(|c| c["type"] == "DisruptionTarget"));
    assert_eq!(reason.map(|c| c["reason"].clone()), Some(json!("EvictionByEvictionAPI")));
}

#[tokio::test]
async fn a_pod_without_its_account_is_refused() {
    let client = Client::new().await;
    let mut body = pod("web");
    body["spec"]["serviceAccountName"] = json!("x");
    let message = "pods \"web\" is forbidden: error looking up service account default/x: serviceaccount \"x\" not \
                   found";
    assert_eq!(client.post(PODS, &body).await.failure(), (403, "Forbidden".into(), message.into()));
}

#[tokio::test]
async fn sessions_with_containers_are_checked_first() {
    let client = with_account().await;
    client.post(PODS, &pod("web")).await.expect(201);
    let log = client.get(&format!("{PODS}/web/log")).await;
    assert_eq!((log.code.as_u16(), log.body.len()), (200, 0), "a pod without a node has written nothing");
    let failure = |path: &'static str| {
        let client = &client;
        async move { client.get(&format!("{PODS}/web/{path}")).await.failure() }
    };
    let refused = |message: &str| (400, "BadRequest".to_owned(), message.to_owned());
    assert_eq!(failure("log?container=x").await, refused("container x is not valid for pod web"));
    let exec = "exec?command=ls&stdout=true";
    assert_eq!(failure(exec).await, refused("pod web does not have a host assigned"));
    let binding = json!({"metadata": {"name": "web"}, "target": {"name": "n1"}});
    client.post(&format!("{PODS}/web/binding"), &binding).await.expect(201);
    assert_eq!(failure(exec).await, refused("Upgrade request required"));
    assert_eq!(failure("log").await, (404, "NotFound".into(), "nodes \"n1\" not found".into()));
}

#[tokio::test]
async fn ephemeral_containers_join_a_running_pod() {
    let client = with_account().await;
    client.post(PODS, &pod("web")).await.expect(201);
    let patch = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let path = format!("{PODS}/web/ephemeralcontainers");
    let patched = client.patch(&path, "strategic-merge-patch", &patch).await.expect(200);
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], json!("debug"));
    let clash = json!({"spec": {"ephemeralContainers": [{"name": "c", "image": "busybox"}]}});
    let refused = client.patch(&path, "strategic-merge-patch", &clash).await;
    assert_eq!(refused.code.as_u16(), 422);
}

#[tokio::test]
async fn namespaces_guard_what_is_in_them() {
    let client = Client::new().await;
    let nowhere = client.post("/api/v1/namespaces/x/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(nowhere.failure(), (404, "NotFound".into(), "namespaces \"x\" not found".into()));
    let kept = client.delete("/api/v1/namespaces/default", &Value::Null).await;
    let message = "namespaces \"default\" is forbidden: this namespace may not be deleted";
    assert_eq!(kept.failure(), (403, "Forbidden".into(), message.into()));
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "x"}})).await.expect(201);
    client.delete("/api/v1/namespaces/x", &Value::Null).await.expect(200);
    let ending = client.post("/api/v1/namespaces/x/configmaps", &json!({"metadata": {"name": "a"}})).await;
    let message = "configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being \
                   terminated";
    assert_eq!(ending.failure(), (403, "Forbidden".into(), message.into()));
}

#[tokio::test]
async fn a_request_for_a_certificate_is_approved_by_those_who_may() {
    let client = Client::new().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::new([]).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    use base64::Engine;
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let spec = json!({"request": request, "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"], "username": "somebody-else", "groups": ["system:masters"], "uid": "1"});
    let mut made = client.post(requests, &json!({"metadata": {"name": "r"}, "spec": spec})).await.expect(201);
    assert_eq!(made["spec"]["username"], json!("admin"), "{made}");
    assert_eq!(made["spec"]["groups"], json!(["system:masters"]));
    assert_eq!(made["spec"]["uid"], Value::Null);
    made["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Test"}]);
    made["spec"]["signerName"] = json!("example.com/other");
    let approved = client.put(&format!("{requests}/r/approval"), &made).await.expect(200);
    assert_eq!(approved["status"]["conditions"][0]["type"], json!("Approved"));
    assert_eq!(approved["spec"]["signerName"], json!("kubernetes.io/kube-apiserver-client"));
}
