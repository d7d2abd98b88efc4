//! A store at its limit, as clients see it.

use serde_json::{Value, json};

use super::fixtures::{Client, config};
use crate::config::Config;
use crate::server::ApiServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, size: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"text": "x".repeat(size)}})
}

#[tokio::test]
async fn a_full_store_says_so_and_what_shrinks_or_keeps_nodes_alive_goes_on() {
    let config = Config { store_limit: 8 << 20, ..config() };
    let client = Client { server: ApiServer::new(config).await.unwrap() };
    client.get("/readyz").await;
    let node = json!({"metadata": {"name": "pi"}, "status": {"conditions": []}});
    client.post("/api/v1/nodes", &node).await.expect(201);
    let mut count = 0;
    let mut refused = None;
    for size in [900_000, 20_000] {
        refused = loop {
            let answer = client.post(MAPS, &map(&format!("m{count}"), size)).await;
            if answer.code != 201 {
                break Some(answer);
            }
            count += 1;
        };
    }
    let refused = refused.unwrap();
    assert!((8..60).contains(&count), "{count}");
    let (code, reason, message) = refused.failure();
    assert_eq!((code, &*reason), (500, ""));
    assert!(message.starts_with("etcdserver: mvcc: database space exceeded"), "{message}");
    let ready = client.get("/readyz/etcd").await;
    assert_eq!(ready.code, 500);
    assert_eq!(ready.body, b"internal server error: the store has reached its limit\n");
    assert_eq!(client.get("/livez").await.code, 200);
    assert_eq!(client.put(&format!("{MAPS}/m0"), &map("m0", 1_000_000)).await.code, 500);
    client.put(&format!("{MAPS}/m0"), &map("m0", 900_000)).await.expect(200);

    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let spec = json!({"metadata": {"name": "pi"}, "spec": {"holderIdentity": "pi", "renewTime": "2026-01-01T00:00:00.000000Z"}});
    client.post(lease, &spec).await.expect(201);
    let condition = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m".repeat(2000)});
    let status = json!({"status": {"conditions": [condition]}});
    client.patch("/api/v1/nodes/pi/status", "merge-patch", &status).await.expect(200);
    assert_eq!(client.post(MAPS, &map("more", 200_000)).await.code, 500);

    client.delete(&format!("{MAPS}/m1"), &Value::Null).await.expect(200);
    assert_eq!(client.get("/readyz").await.code, 200);
    client.post(MAPS, &map("more", 200_000)).await.expect(201);
}
