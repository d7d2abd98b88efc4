//! Discovery, version, health and metrics.

use serde_json::{Value, json};

use super::fixtures::Client;

#[tokio::test]
async fn discovery_lists_what_is_served_and_nothing_else() {
    let client = Client::new().await;
    let core = client.get("/api/v1").await.expect(200);
    let named = |list: &Value, name: &str| {
        list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap_or(Value::Null)
    };
    let pods = named(&core, "pods");
    assert_eq!(
        (&pods["kind"], &pods["shortNames"], &pods["namespaced"]),
        (&json!("Pod"), &json!(["po"]), &json!(true))
    );
    // Upstream's value.
    assert_eq!(pods["storageVersionHash"], json!("xPOwRZ+Yhw8="));
    assert_eq!(named(&core, "pods/status").get("storageVersionHash"), None);
    assert_eq!(named(&core, "resourcequotas"), Value::Null);
    let apps = client.get("/apis/apps/v1").await.expect(200);
    assert_eq!(named(&apps, "deployments/scale")["group"], json!("autoscaling"));
    let groups = client.get("/apis").await.expect(200);
    assert_eq!(groups["groups"][0]["name"], json!("apps"));
    let autoscaling = client.get("/apis/autoscaling").await.expect(200);
    assert_eq!(autoscaling["preferredVersion"]["groupVersion"], json!("autoscaling/v2"));
    assert_eq!(client.get("/apis/apps/v9").await.code.as_u16(), 404);
}

#[tokio::test]
async fn aggregated_discovery_is_one_document() {
    let client = Client::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = client.get_as("/apis", accept).await;
    assert_eq!(answer.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let apps = &answer.expect(200)["items"][0];
    assert_eq!(apps["metadata"]["name"], json!("apps"));
    let deployments = &apps["versions"][0]["resources"][2];
    assert_eq!(deployments["responseKind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    let etag = answer.headers["etag"].to_str().unwrap();
    let headers = [("accept", accept), ("if-none-match", etag)];
    let again = client.send(http::Method::GET, "/apis", &headers, Vec::new()).await;
    assert_eq!((again.code.as_u16(), again.body.len()), (304, 0));
}

#[tokio::test]
async fn version_and_health_answer() {
    let client = Client::new().await;
    let version = client.get("/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert_eq!(version["gitVersion"], json!("v1.36.2+coracle.1"));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/livez/etcd"] {
        let answer = client.get(path).await;
        assert_eq!((answer.code.as_u16(), answer.body.as_slice()), (200, &b"ok"[..]), "{path}");
    }
    for path in ["/readyz/etcd-readiness", "/readyz/poststarthook/rbac/bootstrap-roles", "/readyz/shutdown"] {
        assert_eq!(client.get(path).await.body, b"ok", "{path}");
    }
    assert_eq!(version["emulationMinor"], json!("36"));
    assert_eq!(version["minCompatibilityMinor"], json!("35"));
    assert!(version["goVersion"].as_str().unwrap().starts_with("rust1."), "{version}");
    for (field, value) in version.as_object().unwrap() {
        assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{field} is empty");
    }
    let text = String::from_utf8(client.get("/version").await.body).unwrap();
    assert!(text.starts_with("{\n  \"major\": \"1\",\n  \"minor\": \"36\",\n  \"emulationMajor\""), "{text}");
    for path in ["/livez/nope", "/livez/ping/more"] {
        assert_eq!(client.get(path).await.code.as_u16(), 404, "{path}");
    }
    let verbose = client.get("/readyz?verbose").await;
    let text = String::from_utf8(verbose.body).unwrap();
    assert!(text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n"), "{text}");
    assert!(text.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{text}");
    let excluded = client.get("/livez?verbose&exclude=etcd&exclude=ping").await;
    let text = String::from_utf8(excluded.body).unwrap();
    assert!(text.starts_with("[+]ping excluded: ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{text}");
    client.server.close().await.unwrap();
    assert_eq!(client.get("/readyz").await.code.as_u16(), 500);
}

#[tokio::test]
async fn metrics_count_requests() {
    let client = Client::new().await;
    client.get("/api/v1/namespaces").await.expect(200);
    client.config_map("m", "1").await;
    let metrics = String::from_utf8(client.get("/metrics").await.body).unwrap();
    let line = metrics.lines().find(|l| l.starts_with("apiserver_request_total") && l.contains("\"namespaces\""));
    let line = line.unwrap_or_else(|| panic!("{metrics}"));
    assert!(line.contains("verb=\"LIST\"") && line.contains("code=\"200\"") && line.ends_with(" 1"), "{line}");
    assert!(
        metrics.contains("apiserver_request_total{verb=\"POST\",group=\"\",version=\"v1\",resource=\"configmaps\"")
    );
    assert!(!metrics.contains(".."), "each help text ends with one full stop: {metrics}");
    assert!(metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} 4"), "{metrics}");
    assert!(metrics.contains("# TYPE apiserver_request_total counter\n") && !metrics.contains("# EOF"), "{metrics}");
    let open = client.get_as("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
    assert!(open.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let open = String::from_utf8(open.body).unwrap();
    assert!(open.contains("# TYPE apiserver_request counter\n") && open.ends_with("# EOF\n"), "{open}");
}

#[tokio::test]
async fn the_root_lists_paths() {
    let paths = Client::new().await.get("/").await.expect(200);
    let paths = paths["paths"].as_array().unwrap();
    for path in ["/api/v1", "/apis/apps/v1", "/healthz", "/version"] {
        assert!(paths.contains(&json!(path)), "{path}");
    }
}

#[tokio::test]
async fn a_timeout_that_is_no_duration_is_refused() {
    let client = Client::new().await;
    let failure = client.get("/version?timeout=invalid").await.failure();
    let message = "invalid timeout specified in the request URL - time: invalid duration \"invalid\"";
    assert_eq!(failure, (400, "BadRequest".into(), message.into()));
    for given in ["3m", "0s", "30s"] {
        client.get(&format!("/version?timeout={given}")).await.expect(200);
    }
}

#[tokio::test]
async fn across_namespaces_objects_are_only_read() {
    let client = Client::new().await;
    client.get("/api/v1/pods").await.expect(200);
    assert_eq!(client.delete("/api/v1/pods", &Value::Null).await.code.as_u16(), 405);
    assert_eq!(client.post("/api/v1/pods", &json!({})).await.code.as_u16(), 405);
    assert_eq!(client.get("/api/v1/pods/x").await.code.as_u16(), 404);
    assert_eq!(client.post("/api/v1/bindings", &json!({})).await.code.as_u16(), 404);
}

#[tokio::test]
async fn the_keys_of_tokens_are_published_for_verifiers() {
    let client = Client::new().await;
    let keys = client.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.headers["cache-control"], "public, max-age=3600");
    assert!(keys.expect(200)["keys"].is_array());
    let configuration = client.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.headers["content-type"], "application/json");
    assert!(configuration.expect(200)["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"));
}

/// Strangers choose paths, methods and names; none of them may become a series of its own.
#[tokio::test]
async fn requests_for_what_does_not_exist_share_their_series() {
    let client = Client::new().await;
    let series = async || {
        let metrics = String::from_utf8(client.get("/metrics").await.body).unwrap();
        metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")).count()
    };
    let mut counts = Vec::new();
    for round in 0..3 {
        for i in 0..40 {
            let method = http::Method::from_bytes(format!("X{round}X{i}").as_bytes()).unwrap();
            for path in [
                format!("/apis/g{round}x{i}/v1/r/n"),
                format!("/apis/apps/v{round}{i}/deployments"),
                format!("/api/v1/namespaces/default/pods/n/s{round}x{i}"),
                format!("/api/v1/namespaces/n{round}x{i}/secrets/s{i}"),
                format!("/nothing/{round}/{i}"),
            ] {
                client.get(&path).await;
                client.send(method.clone(), &path, &[], Vec::new()).await;
            }
        }
        counts.push(series().await);
    }
    assert_eq!(counts[1], counts[2], "{counts:?}");
    assert!(counts[0] < 20, "{counts:?}");
    let metrics = String::from_utf8(client.get("/metrics").await.body).unwrap();
    let secrets = "apiserver_request_total{verb=\"GET\",group=\"\",version=\"v1\",resource=\"secrets\",subresource=\"\",\
                   scope=\"resource\",component=\"apiserver\",code=\"404\"} 120";
    assert!(metrics.contains(secrets), "{metrics}");
}
