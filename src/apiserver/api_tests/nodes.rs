//! Reaching kubelets: no node's word about itself leads to another server.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fixtures::Client;
use super::running::Running;
use crate::auth::user::KUBELET_CLIENT;
use crate::rest::KubeletIdentity;

/// Answers every connection's first request with the name of who asked.
async fn kubelet(listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&tls)).accept(stream).await else { continue };
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { break };
            asked.push(byte);
        }
        if asked.is_empty() {
            continue;
        }
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let name = certificate.subject().to_string();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        stream.write_all(text.as_bytes()).await.unwrap();
    }
}

async fn node(client: &Client, name: &str, address: &str, port: u16) {
    client.post("/api/v1/nodes", &json!({"metadata": {"name": name}})).await.expect(201);
    let status = json!({"addresses": [{"type": "InternalIP", "address": address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    let path = format!("/api/v1/nodes/{name}/status");
    client.patch(&path, "merge-patch", &json!({"status": status})).await.expect(200);
}

async fn proxied(client: &Client, name: &str, path: &str) -> (u16, String) {
    let answer = client.get(&format!("/api/v1/nodes/{name}/proxy/{path}")).await;
    let body = String::from_utf8(answer.body).unwrap();
    let message = serde_json::from_str::<Value>(&body).ok().and_then(|s| s["message"].as_str().map(str::to_owned));
    (answer.code.as_u16(), message.unwrap_or(body))
}

#[tokio::test]
async fn the_server_at_a_nodes_address_must_be_that_node() {
    let mut running = Running::start().await;
    let client = Client { server: Arc::clone(&running.server) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let leaf = running.pki.leaf("system:node:n1", "system:nodes", ExtendedKeyUsagePurpose::ServerAuth);
    running.tasks.spawn(kubelet(listener, running.pki.server_tls(leaf)));

    node(&client, "n1", "127.0.0.1", port).await;
    assert_eq!(proxied(&client, "n1", "healthz").await, (200, format!("CN={KUBELET_CLIENT}")));
    node(&client, "n2", "::ffff:127.0.0.1", port).await;
    let (code, message) = proxied(&client, "n2", "healthz").await;
    assert_eq!(code, 500);
    let why = "tls: failed to verify certificate: x509: certificate is valid for system:node:n1, not system:node:n2";
    assert!(message.ends_with(why), "{message}");

    running.server.renew_kubelet_client(&running.pki.kubelet_client("renewed")).unwrap();
    assert_eq!(proxied(&client, "n1", "healthz").await, (200, "CN=renewed".into()), "from the next connection on");
    let damaged = KubeletIdentity { key: String::new(), ..running.pki.kubelet_client("damaged") };
    assert!(running.server.renew_kubelet_client(&damaged).is_err());
    assert_eq!(proxied(&client, "n1", "healthz").await, (200, "CN=renewed".into()), "the one before stays");
}

#[tokio::test]
async fn the_api_server_is_no_kubelet() {
    let running = Running::start().await;
    let client = Client { server: Arc::clone(&running.server) };
    let own = running.address.port();
    for (name, address, port) in
        [("a", "127.0.0.1", own), ("b", "::ffff:127.0.0.1", own), ("c", "10.96.0.1", 443), ("d", "0.0.0.0", own)]
    {
        node(&client, name, address, port).await;
        let refused = (400, "address not allowed".to_owned());
        assert_eq!(proxied(&client, name, "api/v1/secrets").await, refused, "{address}");
        assert_eq!(proxied(&client, &format!("https:{name}:{port}"), "api/v1/secrets").await, refused, "{address}");
    }
}

#[tokio::test]
async fn the_credential_for_kubelets_opens_nothing_else() {
    let mut running = Running::start().await;
    for (path, expected) in [("/api/v1/secrets", StatusCode::FORBIDDEN), ("/api/v1/nodes", StatusCode::OK)] {
        let leaf = running.pki.leaf(KUBELET_CLIENT, "", ExtendedKeyUsagePurpose::ClientAuth);
        let answer = running.get(path, Some(leaf), true).await;
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(code, expected, "{}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn an_address_in_other_clothes_stays_what_it_is() {
    let client = Client::new().await;
    for address in ["::ffff:127.0.0.1", "::ffff:169.254.169.254"] {
        let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv6", "endpoints": [{"addresses": [address]}]});
        client.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(422);
        let endpoints = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": address}]}]});
        client.post("/api/v1/namespaces/default/endpoints", &endpoints).await.expect(422);
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": [address]}});
        client.post("/api/v1/namespaces/default/services", &service).await.expect(422);
    }
}
