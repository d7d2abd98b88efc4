//! The TLS listener: who a client certificate is, both protocols, and an orderly end.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpStream;

use super::running::Running;

#[tokio::test]
async fn the_certificate_says_who_asks_in_both_protocols() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let admin = running.admin();
        let answer = running.get("/api/v1/namespaces", admin, http2).await;
        assert_eq!(answer.status(), StatusCode::OK, "http2: {http2}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
        let stranger = Some(running.pki.leaf("someone", "x", ExtendedKeyUsagePurpose::ClientAuth));
        assert_eq!(running.get("/api/v1/namespaces", stranger, http2).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(running.get("/api/v1/namespaces", None, http2).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(running.get("/livez", None, http2).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_answer_to_head_has_no_body_in_both_protocols() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let head = Request::head("/livez").body(Full::default()).unwrap();
        let admin = running.admin();
        let answer = running.send(head, admin, http2).await;
        assert_eq!((answer.status(), answer.headers()["content-length"].as_bytes()), (StatusCode::OK, &b"2"[..]));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "", "http2: {http2}");
    }
}

#[tokio::test]
async fn the_sender_of_a_body_that_is_too_large_gets_the_answer() {
    let mut running = Running::start().await;
    for http2 in [false, true] {
        let request = Request::post("/api/v1/namespaces").header("content-type", "application/json");
        let request = request.body(Full::from(vec![b'x'; 4 << 20])).unwrap();
        let admin = running.admin();
        let answer = running.send(request, admin, http2).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["reason"], "RequestEntityTooLarge", "http2: {http2}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_unauthorized() {
    let mut running = Running::start().await;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &running.pki.ca).unwrap();
    let expired = (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let answer = running.get("/api/v1/namespaces", Some(expired), true).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["message"]), (&"Unauthorized".into(), &"Unauthorized".into()));
}

#[tokio::test]
async fn cancelling_ends_open_watches_and_then_the_listener() {
    let mut running = Running::start().await;
    let admin = running.admin();
    let watch = running.get("/api/v1/namespaces?watch=1", admin, false).await;
    assert_eq!(watch.status(), StatusCode::OK);
    running.cancel.cancel();
    let events = watch.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(events.iter().filter(|b| **b == b'\n').count(), 4);
    while let Some(ended) = running.tasks.join_next().await {
        ended.unwrap();
    }
    assert!(TcpStream::connect(running.address).await.is_err());
}
