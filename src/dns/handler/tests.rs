//! Over real sockets: hickory's server in front, and a name server of ours as upstream.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::RData;
use hickory_server::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::zone::fixtures::zone;

/// Everybody on loopback but 127.0.0.2.
const CLIENTS: [&str; 3] = ["127.0.0.0/31", "127.0.0.3/32", "127.0.0.4/32"];
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Running {
    at: SocketAddr,
    handler: Handler,
    _server: Server<Handler>,
    _connections: JoinSet<()>,
}

/// Many endpoints make a long answer; two names alias each other.
fn sample() -> Zone {
    let endpoints: Vec<_> = (0..100).map(|n| json!({ "addresses": [format!("10.244.1.{n}")] })).collect();
    let alias = |to: &str| json!({"type": "ExternalName", "externalName": format!("{to}.shop.svc.cluster.local")});
    zone()
        .namespace("shop")
        .with_service("shop", "web", &json!({"clusterIP": "10.96.0.7", "ports": []}))
        .with_service("shop", "many", &json!({"clusterIP": "None"}))
        .with_slice("shop", "many", &json!([]), &json!(endpoints))
        .with_service("shop", "ping", &alias("pong"))
        .with_service("shop", "pong", &alias("ping"))
        .with_service("shop", "front", &alias("web"))
        .with_service("shop", "docs", &json!({"type": "ExternalName", "externalName": "docs.example.org"}))
}

/// Serves on a free port of an address of loopback.
async fn serve(zone: Zone, at: Ipv4Addr, resolv_conf: PathBuf) -> Running {
    let upstream = Upstream::new(resolv_conf, vec![IpAddr::from(at)]);
    let clients = CLIENTS.map(|net| net.parse().unwrap()).into();
    let handler = Handler { zone: Arc::new(RwLock::new(zone)), upstream: Arc::new(upstream), clients };
    let mut server = Server::new(handler.clone());
    let udp = UdpSocket::bind((at, 0)).await.unwrap();
    let at = udp.local_addr().unwrap();
    server.register_socket(udp);
    let mut connections = JoinSet::new();
    connections.spawn(crate::tcp::serve(TcpListener::bind(at).await.unwrap(), handler.clone()));
    Running { at, handler, _server: server, _connections: connections }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

impl Running {
    async fn start() -> Self {
        serve(sample(), Ipv4Addr::LOCALHOST, PathBuf::from("/nonexistent")).await
    }

    async fn udp(&self, bytes: &[u8]) -> (Message, usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, self.at).await.unwrap();
        let mut buffer = [0; 4096];
        let size = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
        (Message::from_vec(&buffer[..size]).unwrap(), size)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.udp(&query(name, kind).to_vec().unwrap()).await.0
    }

    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    async fn tcp(&self, message: &Message) -> Message {
        let bytes = message.to_vec().unwrap();
        let mut stream = self.connect(Ipv4Addr::LOCALHOST).await;
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let size = stream.read_u16().await.unwrap();
        let mut buffer = vec![0; size.into()];
        stream.read_exact(&mut buffer).await.unwrap();
        Message::from_vec(&buffer).unwrap()
    }
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |record: &Record| match &record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}

#[tokio::test]
async fn an_answer_repeats_the_question_and_has_authority() {
    let server = Running::start().await;
    let answer = server.ask("WEB.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 96, 0, 7)]);
    assert_eq!(answer.metadata.id, 4711);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries[0].name().to_ascii(), "WEB.shop.svc.cluster.local.");
    assert!(answer.edns.is_none());
    let missing = server.ask("none.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn long_answers_are_cut_to_what_the_client_takes_and_whole_over_tcp() {
    let server = Running::start().await;
    let plain = query("many.shop.svc.cluster.local.", RecordType::A);
    let with_edns = |payload| {
        let mut message = plain.clone();
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.edns = Some(edns);
        message
    };
    for (message, limit) in [(plain.clone(), 512), (with_edns(800), 800), (with_edns(65535), 1232)] {
        let (answer, size) = server.udp(&message.to_vec().unwrap()).await;
        assert!(answer.metadata.truncation, "{limit}");
        assert!(size <= limit && size > limit - 50, "{size} bytes where {limit} fit");
        assert_eq!(answer.edns.is_some(), message.edns.is_some());
    }
    let answer = server.tcp(&plain).await;
    assert!(!answer.metadata.truncation);
    assert_eq!(addresses(&answer).len(), 100);
}

#[tokio::test]
async fn every_endpoint_comes_first_in_turn() {
    let server = Running::start().await;
    let mut message = query("many.shop.svc.cluster.local.", RecordType::A);
    let mut first = std::collections::BTreeSet::new();
    for id in 0..100 {
        message.metadata.id = id;
        first.insert(addresses(&server.tcp(&message).await)[0]);
    }
    assert_eq!(first.len(), 100);
}

#[tokio::test]
async fn aliases_are_followed_and_loops_end() {
    let server = Running::start().await;
    let answer = server.ask("front.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 96, 0, 7)]);
    let answer = server.ask("ping.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

fn set_type(message: &mut Message, kind: RecordType) {
    message.queries[0].set_query_type(kind);
}

fn set_class(message: &mut Message, class: DNSClass) {
    message.queries[0].set_query_class(class);
}

#[tokio::test]
async fn what_is_no_question_for_us_is_refused() {
    let server = Running::start().await;
    let code = async |change: fn(&mut Message)| {
        let mut message = query("web.shop.svc.cluster.local.", RecordType::A);
        change(&mut message);
        server.udp(&message.to_vec().unwrap()).await.0.metadata.response_code
    };
    assert_eq!(code(|m| m.metadata.op_code = OpCode::Status).await, ResponseCode::NotImp);
    assert_eq!(code(|m| set_type(m, RecordType::AXFR)).await, ResponseCode::NotImp);
    assert_eq!(code(|m| set_class(m, DNSClass::CH)).await, ResponseCode::Refused);
    let future = |m: &mut Message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        m.edns = Some(edns);
    };
    // Number 16, which has two names.
    assert_eq!(u16::from(code(future).await), u16::from(ResponseCode::BADVERS));
    let mut garbage = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    garbage.truncate(20);
    assert_eq!(server.udp(&garbage).await.0.metadata.response_code, ResponseCode::FormErr);
    // Without servers upstream.
    assert_eq!(server.ask("example.org.", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_remembered() {
    // The upstream must be on port 53, as resolv.conf cannot say otherwise.
    let at = Ipv4Addr::new(127, 53, 0, 1);
    let socket = match UdpSocket::bind((at, 53)).await {
        Ok(socket) => socket,
        Err(e) => {
            println!("skipped: port 53 needs root ({e})");
            return;
        }
    };
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let _upstream = client::Owned::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((size, client)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = upstream_answer(&Message::from_vec(&buffer[..size]).unwrap());
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver 127.0.0.1\nnameserver {at}\nsearch lan\n")).unwrap();
    let server = serve(sample(), Ipv4Addr::LOCALHOST, resolv_conf).await;

    for _ in 0..3 {
        let answer = server.ask("docs.example.org.", RecordType::A).await;
        assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    let answer = server.ask("docs.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 2);
    assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
    let missing = server.ask("none.example.org.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
}

/// `docs.example.org` has an address, nothing else exists.
fn upstream_answer(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    let question = query.queries[0].clone();
    if question.name().to_ascii() == "docs.example.org." {
        let address = RData::A(Ipv4Addr::new(192, 0, 2, 1).into());
        answer.answers.push(Record::from_rdata(question.name().clone(), 300, address));
    } else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        let org: Name = "example.org.".parse().unwrap();
        let soa = hickory_proto::rr::rdata::SOA::new(org.clone(), org.clone(), 1, 1, 1, 1, 60);
        answer.authorities.push(Record::from_rdata(org, 60, RData::SOA(soa)));
    }
    answer.add_query(question);
    answer
}

#[tokio::test]
async fn silent_connections_give_way_to_new_ones() {
    let server = Running::start().await;
    let others = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 3)];
    let mut patient = server.connect(Ipv4Addr::new(127, 0, 0, 4)).await;
    let mut silent = Vec::new();
    for n in 0..2 * crate::tcp::MAX_CONNECTIONS {
        silent.push(server.connect(others[n % 2]).await);
    }
    let answer = server.tcp(&query("web.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 96, 0, 7)]);
    let is_closed = async |stream: &mut TcpStream| matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_));
    let gone = tokio::time::timeout(Duration::from_secs(3), is_closed(&mut silent[0])).await;
    assert_eq!(gone, Ok(true), "the oldest is closed before it was silent for too long");
    // Who opened one keeps it, however many others open.
    let bytes = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    patient.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    patient.write_all(&bytes).await.unwrap();
    assert!(patient.read_u16().await.unwrap() > 0);
}

#[tokio::test]
async fn strangers_get_no_answer() {
    let server = Running::start().await;
    let bytes = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let stranger = UdpSocket::bind((STRANGER, 0)).await.unwrap();
    stranger.send_to(&bytes, server.at).await.unwrap();
    let mut stream = server.connect(STRANGER).await;
    // It may be closed before the question is written.
    let _ = stream.write_all(&[&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()).await;
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(server.ask("web.shop.svc.cluster.local.", RecordType::A).await.answers.len(), 1);
    assert!(stranger.try_recv(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn one_client_does_not_take_all_questions_upstream() {
    let at = Ipv4Addr::new(127, 53, 0, 2);
    let Ok(socket) = UdpSocket::bind((at, 53)).await else {
        println!("skipped: port 53 needs root");
        return;
    };
    let _upstream = client::Owned::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((size, client)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..size]).unwrap();
            if !query.queries[0].name().to_ascii().starts_with("slow") {
                socket.send_to(&upstream_answer(&query).to_vec().unwrap(), client).await.unwrap();
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {at}\n")).unwrap();
    let server = serve(sample(), Ipv4Addr::LOCALHOST, resolv_conf).await;
    let greedy = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    for n in 0..400 {
        let bytes = query(&format!("slow-{n}.example.org."), RecordType::A).to_vec().unwrap();
        greedy.send_to(&bytes, server.at).await.unwrap();
        // Those beyond its share are let down at once.
        if n >= crate::upstream::MAX_QUESTIONS_OF_CLIENT {
            let mut buffer = [0; 512];
            let size = tokio::time::timeout(Duration::from_secs(10), greedy.recv(&mut buffer)).await.unwrap().unwrap();
            let answer = Message::from_vec(&buffer[..size]).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        }
    }
    assert_eq!(server.handler.upstream.room.taken(), crate::upstream::MAX_QUESTIONS_OF_CLIENT);
    assert_eq!(addresses(&server.ask("docs.example.org.", RecordType::A).await), [Ipv4Addr::new(192, 0, 2, 1)]);
}
