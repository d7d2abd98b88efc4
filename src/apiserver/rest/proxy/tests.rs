//! The proxy against servers behind it, over real sockets.

use std::convert::Infallible;

use axum::body::Body;
use flate2::read::GzDecoder;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::*;
use crate::room::HeavyRoom;

fn links() -> Links {
    Links { prefix: "/p/proxy".into(), backend: "10.0.0.1:80".into(), asked: "pi:6443".into() }
}

#[test]
fn the_rest_of_the_path_is_kept_as_it_is() {
    #[track_caller]
    fn check(path: &str, cluster_scoped: bool, expected: &str) {
        let (prefix, rest) = split_path(path, cluster_scoped);
        assert_eq!(rest, expected, "{path}");
        assert_eq!(format!("{prefix}{rest}"), path);
        assert!(prefix.ends_with("/proxy"), "{prefix}");
    }
    check("/api/v1/nodes/n/proxy/logs/a%20b/", true, "/logs/a%20b/");
    check("/api/v1/nodes/n/proxy", true, "");
    check("/api/v1/namespaces/a/pods/p:80/proxy/", false, "/");
    check("/api/v1/namespaces/a/services/s/proxy/x", false, "/x");
}

#[test]
fn the_server_behind_learns_who_asked_for_what() {
    let mut request = Request::get("https://pi:6443/p/proxy/x").header("x-forwarded-for", "10.9.9.9");
    request.extensions_mut().unwrap().insert(ClientAddress([192, 0, 2, 7].into()));
    let mut request = request.body(Body::empty()).unwrap();
    assert_eq!(asked_host(&request), "pi:6443");
    announce(&mut request, "/p/proxy/x", &links()).unwrap();
    let headers = request.headers();
    assert_eq!(headers["host"], "pi:6443");
    assert_eq!(headers["x-forwarded-uri"], "/p/proxy/x");
    assert_eq!(headers["x-forwarded-for"], "10.9.9.9, 192.0.2.7");
}

async fn mended(response: http::response::Builder, body: impl Into<Body>) -> (HeaderMap, Vec<u8>) {
    let response: Response<Body> = response.body(body.into()).unwrap();
    let (room, pages) = (HeavyRoom::open().unwrap(), Pages::default());
    let mender = Mender { room: &room, pages: &pages, turn: "ann" };
    let (parts, body) = answer::mend(&mender, response, &Arc::new(links())).await.unwrap().into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

const PAGE: &str = "<a href=\"/x\">x</a>";
const MENDED: &str = "<a href=\"/p/proxy/x\">x</a>";

#[tokio::test]
async fn answers_are_mended_by_what_they_are() {
    let html = || Response::builder().header("content-type", "text/html; charset=utf-8");
    let (headers, body) = mended(html().header("content-length", PAGE.len()), PAGE).await;
    assert_eq!(String::from_utf8(body).unwrap(), MENDED);
    assert!(!headers.contains_key("content-length"));
    let (_, body) = mended(Response::builder().header("content-type", "text/plain"), PAGE).await;
    assert_eq!(body, PAGE.as_bytes());
    let (headers, _) = mended(html().header("location", "/x").header("access-control-allow-origin", "*"), PAGE).await;
    assert_eq!(headers["location"], "/p/proxy/x");
    assert!(!headers.contains_key("access-control-allow-origin"));
    let (_, body) = mended(html().header("content-encoding", "br"), PAGE).await;
    assert_eq!(body, PAGE.as_bytes());
    // A HEAD's answer keeps the length that it tells of.
    let (headers, _) = mended(html().header("content-length", "18"), "").await;
    assert_eq!(headers["content-length"], "18");
}

#[tokio::test]
async fn packed_pages_are_mended_and_packed_again() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, PAGE.as_bytes()).unwrap();
    let response = Response::builder().header("content-type", "text/html").header("content-encoding", "gzip");
    let (headers, body) = mended(response, packed.finish().unwrap()).await;
    let mut page = String::new();
    std::io::Read::read_to_string(&mut GzDecoder::new(body.as_slice()), &mut page).unwrap();
    assert_eq!((page.as_str(), headers["content-encoding"].to_str().unwrap()), (MENDED, "gzip"));
    let broken = Response::builder().header("content-type", "text/html").header("content-encoding", "gzip");
    assert_eq!(mended(broken, "no gzip").await.1, b"no gzip");
}

fn html() -> http::response::Builder {
    Response::builder().header("content-type", "text/html")
}

#[tokio::test]
async fn pages_pass_whole_that_are_too_long_or_would_become_it() {
    let pages = [
        PAGE.repeat(60_000),
        // Short enough, but each link grows by the path of the proxy.
        format!("<a{}>", " href=/".repeat(149_000)),
    ];
    for page in pages {
        assert!(mended(html(), page.clone()).await.1 == page.as_bytes());
        // Its length is not known before.
        let parts: Vec<_> = page.as_bytes().chunks(1000).map(|part| Ok::<_, Infallible>(part.to_vec())).collect();
        assert!(mended(html(), Body::from_stream(futures::stream::iter(parts))).await.1 == page.as_bytes());
    }
    let long = PAGE.repeat(20_000);
    assert!(mended(html(), long).await.1 == MENDED.repeat(20_000).as_bytes());
}

#[tokio::test]
async fn a_packed_page_unpacks_to_no_more_than_a_page() {
    for (repeated, is_mended) in [(20_000, true), (60_000, false)] {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, PAGE.repeat(repeated).as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        let (_, answer) = mended(html().header("content-encoding", "gzip"), packed.clone()).await;
        assert_eq!(answer != packed, is_mended);
        let mut page = String::new();
        std::io::Read::read_to_string(&mut GzDecoder::new(answer.as_slice()), &mut page).unwrap();
        assert!(page == if is_mended { MENDED } else { PAGE }.repeat(repeated));
    }
}

/// A page in tiny parts is not kept in tiny parts, and too many at a time are refused.
#[tokio::test]
async fn pages_that_are_held_are_counted_until_they_are_taken() {
    let (room, pages) = (HeavyRoom::open().unwrap(), Pages::default());
    let mender = Mender { room: &room, pages: &pages, turn: "ann" };
    let answer = async |length: usize| {
        let parts = std::iter::repeat_n(Ok::<_, Infallible>("x"), length);
        let response = html().body(Body::from_stream(futures::stream::iter(parts))).unwrap();
        answer::mend(&mender, response, &Arc::new(links())).await
    };
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(answer(40_000).await.unwrap());
    }
    let refused = answer(40_000).await.unwrap_err();
    assert_eq!(refused.to_string(), "Too many requests, please try again later.");
    answer(1000).await.unwrap();
    let first = answers.pop().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(first.len(), 40_000);
    assert!(answer(40_000).await.is_err());
    drop(first);
    answer(40_000).await.unwrap();
}

/// One connection with a certificate that nobody signed.
async fn serve_tls(listener: tokio::net::TcpListener) {
    let made = rcgen::generate_simple_self_signed(vec!["nobody".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap());
    }
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ntls baz";
    tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn servers_with_certificates_of_their_own_are_reached() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = async {
        let stream = dial::tls(dial::tcp(&[address]).await.unwrap(), "127.0.0.1").await.unwrap();
        let request = Request::get("/").header("host", "x").body(Body::empty()).unwrap();
        let response = tunnel::forward(stream, request, &tunnel::Tunnels::default()).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let ((), body) = tokio::join!(serve_tls(listener), asked);
    assert_eq!(body, "tls baz");
}

#[tokio::test]
async fn who_does_not_listen_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = dial::tcp(&[address]).await.unwrap_err();
    assert_eq!(error, format!("dial tcp {address}: connect: connection refused"));
}
