use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket;
use nix::sys::time::{TimeVal, TimeValLike};

use super::*;
use crate::testbed::{
    Answer, DNS, HOST, Host, OUTSIDE, Pod, ask, ask_udp, block_on, delete_table, list_table, on_a_host, serve,
    serve_at, udp_client,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

fn answer(server: &str, client: Ipv4Addr) -> Answer {
    Answer { server: server.to_owned(), client }
}

fn port(host_ip: Option<Ipv4Addr>, host_port: u16) -> HostPort {
    HostPort { host_ip, host_port, container_port: 8080, protocol: Protocol::Tcp }
}

#[test]
fn pods_reach_each_other_the_host_and_the_world() {
    on_a_host(|host: Host| {
        let network = host.open();
        assert_eq!(network.mtu(), 1400);
        let (a, b) = (host.start_pod(&network, "a", &[]), host.start_pod(&network, "b", &[]));
        serve("host", 9000);
        assert_eq!(a.namespace.ask(&b.endpoint().to_string()).unwrap(), answer("b", a.ip));
        assert_eq!(a.namespace.ask("127.0.0.1:8080").unwrap(), answer("a", Ipv4Addr::LOCALHOST));
        assert_eq!(ask(&a.endpoint().to_string()).unwrap(), answer("a", GATEWAY));
        for address in [GATEWAY, HOST, DNS] {
            assert_eq!(a.namespace.ask(&format!("{address}:9000")).unwrap(), answer("host", a.ip), "{address}");
        }
        assert_eq!(a.namespace.ask(&format!("{OUTSIDE}:8080")).unwrap(), answer("outside", HOST));
    });
}

#[test]
fn a_pod_cannot_send_from_another_address() {
    on_a_host(|host: Host| {
        let network = host.open();
        let a = host.start_pod(&network, "a", &[]);
        serve("host", 9000);
        let socket = udp_client();
        let at = socket.local_addr().unwrap().port();
        let send_from = |source: Ipv4Addr| {
            a.namespace.run(|| {
                let pod = route::open().unwrap();
                let link = route::link_by_name(&pod, POD_LINK).unwrap().unwrap().index;
                route::RouteChanges::default().add_address(link, source).run(&pod).unwrap();
                let client = std::net::UdpSocket::bind((source, 0)).unwrap();
                client.send_to(b"x", (GATEWAY, at)).unwrap();
            });
            socket.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
        };
        assert_eq!(send_from(a.ip).unwrap(), a.ip);
        assert!(send_from(Ipv4Addr::new(10, 244, 1, 99)).is_err());
    });
}

#[test]
fn attaching_again_keeps_the_address_and_detaching_frees_everything() {
    on_a_host(|host: Host| {
        let network = host.open();
        let a = host.start_pod(&network, "a", &[port(None, 8081)]);
        let again = block_on(network.attach("a", a.namespace.file(), &[port(None, 8082)])).unwrap();
        assert_eq!(again, Attachment { ip: a.ip, gateway: GATEWAY, interface: "eth0" });
        assert_eq!(host.outside.ask(&format!("{HOST}:8082")).unwrap().server, "a");
        assert!(host.outside.ask(&format!("{HOST}:8081")).is_err());

        block_on(network.detach("a")).unwrap();
        block_on(network.detach("a")).unwrap();
        assert!(a.namespace.ask(&format!("{GATEWAY}:9000")).is_err());
        assert!(host.outside.ask(&format!("{HOST}:8082")).is_err());
        assert_eq!(host.start_pod(&network, "b", &[]).ip, Ipv4Addr::new(10, 244, 1, 3));
        if let Some(table) = list_table("coracle-pods") {
            assert!(!table.contains(&a.ip.to_string()), "{table}");
        }
    });
}

/// What is left of a record; `None` when it is not there any more.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

#[test]
fn a_running_pod_keeps_its_address_whatever_became_of_its_record() {
    on_a_host(|host: Host| {
        let damages: [(&str, Damage); 6] = [
            ("empty", |_| Some(Vec::new())),
            ("half", |file| Some(file[..file.len() / 2].to_vec())),
            ("of something else", |_| Some(br#"{"someone":"a"}"#.to_vec())),
            ("with a flipped bit in the uid", |mut file| {
                let at = file.windows(6).position(|word| word == br#"":"a","#).unwrap();
                file[at + 3] ^= 1;
                Some(file)
            }),
            ("of another uid, from before there were checksums", |_| {
                let ports = r#"[{"hostPort":8081,"containerPort":8080,"protocol":"TCP"}]"#;
                Some(format!(r#"{{"uid":"nobody","hostPorts":{ports}}}"#).into_bytes())
            }),
            ("gone", |_| None),
        ];
        for (name, damage) in damages {
            let network = host.open();
            let a = host.start_pod(&network, "a", &[port(None, 8081)]);
            let mut connection = crate::testbed::Connection::open(&a.endpoint().to_string()).unwrap();
            assert_eq!(connection.ask().unwrap().server, "a");
            drop(network);
            let record = host.record_of(a.ip);
            match damage(std::fs::read(&record).unwrap()) {
                Some(left) => std::fs::write(&record, left).unwrap(),
                None => std::fs::remove_file(&record).unwrap(),
            }

            let network = host.open();
            assert_ne!(host.start_pod(&network, "b", &[]).ip, a.ip, "{name}: nobody else gets it");
            block_on(network.repair()).unwrap();
            if name != "of another uid, from before there were checksums" {
                block_on(network.retain(&["a".to_owned()])).unwrap();
            }
            let again = block_on(network.attach("a", a.namespace.file(), &[port(None, 8081)])).unwrap();
            assert_eq!(again.ip, a.ip, "{name}");
            assert_eq!(connection.ask().unwrap().server, "a", "{name}: its link is the same");
            assert_eq!(host.outside.ask(&format!("{HOST}:8081")).unwrap().server, "a", "{name}");
            drop(network);
            let network = host.open();
            let again = block_on(network.attach("a", a.namespace.file(), &[port(None, 8081)])).unwrap();
            assert_eq!(again.ip, a.ip, "{name}: it is recorded");
            block_on(network.retain(&[])).unwrap();
        }
    });
}

#[test]
fn a_pod_cannot_claim_the_address_of_another_by_links_of_its_own() {
    on_a_host(|host: Host| {
        let network = host.open();
        let victim = host.start_pod(&network, "victim", &[]);
        let thief = host.start_pod(&network, "thief", &[]);
        drop(network);
        for pod in [&victim, &thief] {
            std::fs::remove_file(host.record_of(pod.ip)).unwrap();
        }
        thief.namespace.run(|| {
            let pod = route::open().unwrap();
            let link = route::link_by_name(&pod, POD_LINK).unwrap().unwrap().index;
            route::RouteChanges::default().add_address(link, victim.ip).run(&pod).unwrap();
        });
        let network = host.open();
        let again = block_on(network.attach("thief", thief.namespace.file(), &[])).unwrap();
        assert_eq!(again.ip, thief.ip);
        let again = block_on(network.attach("victim", victim.namespace.file(), &[])).unwrap();
        assert_eq!(again.ip, victim.ip);
        assert_eq!(ask(&victim.endpoint().to_string()).unwrap().server, "victim");
    });
}

#[test]
fn a_restart_finds_the_pods_again_and_forgets_the_dead() {
    on_a_host(|host: Host| {
        let network = host.open();
        let alive = host.start_pod(&network, "alive", &[port(None, 8081)]);
        let dead = host.start_pod(&network, "dead", &[port(None, 8082)]);
        let mut connection = crate::testbed::Connection::open(&alive.endpoint().to_string()).unwrap();
        assert_eq!(connection.ask().unwrap().server, "alive");
        drop(network);

        let network = host.open();
        assert_eq!(host.outside.ask(&format!("{HOST}:8081")).unwrap(), answer("alive", OUTSIDE));
        block_on(network.retain(std::slice::from_ref(&alive.uid))).unwrap();
        assert_eq!(connection.ask().unwrap().server, "alive");
        assert!(host.outside.ask(&format!("{HOST}:8082")).is_err());
        let links = route::links(&route::open().unwrap()).unwrap();
        let pods: Vec<_> = links.iter().filter_map(|link| interface::address_of(&link.name)).collect();
        assert_eq!(pods, [alive.ip]);
        assert_ne!(host.start_pod(&network, "next", &[]).ip, dead.ip);
    });
}

#[test]
fn a_recorded_pod_moves_to_a_fresh_namespace() {
    on_a_host(|host: Host| {
        let network = host.open();
        let before = host.start_pod(&network, "a", &[]);
        let after: Pod = host.start_pod(&network, "a", &[]);
        assert_eq!(before.ip, after.ip);
        assert_eq!(ask(&after.endpoint().to_string()).unwrap().server, "a");
        assert!(before.namespace.ask(&format!("{GATEWAY}:9000")).is_err());
    });
}

#[test]
fn host_ports_answer_from_everywhere() {
    on_a_host(|host: Host| {
        let network = host.open();
        let a = host.start_pod(&network, "a", &[port(None, 8081), port(Some(HOST), 8082)]);
        let b = host.start_pod(&network, "b", &[]);
        #[track_caller]
        fn check(result: std::io::Result<Answer>, client: Ipv4Addr) {
            assert_eq!(result.unwrap(), answer("a", client));
        }
        for at in ["192.168.50.11:8081", "192.168.50.11:8082"] {
            check(host.outside.ask(at), OUTSIDE);
            check(ask(at), HOST);
            check(b.namespace.ask(at), b.ip);
            // The pod itself: masqueraded, or it would answer itself behind the host's back.
            check(a.namespace.ask(at), GATEWAY);
        }
        check(ask("127.0.0.1:8081"), GATEWAY);
        assert_eq!(ask("127.0.0.1:8082").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let taken = block_on(network.attach("b", b.namespace.file(), &[port(Some(HOST), 8081)])).unwrap_err();
        assert!(matches!(&taken, PodNetworkError::HostPortInUse { uid, .. } if uid == "a"), "{taken}");
        assert_eq!(taken.to_string(), "host port 192.168.50.11:8081/tcp is in use by pod a");
    });
}

#[test]
fn a_port_that_a_program_of_the_host_listens_on_stays_its_own() {
    on_a_host(|host: Host| {
        let network = host.open();
        let loopback = std::net::TcpListener::bind("127.0.0.1:8081").unwrap();
        let everywhere = std::net::TcpListener::bind("0.0.0.0:8082").unwrap();
        let pod = host.start_pod(&network, "a", &[]);
        let attach = |port: HostPort| block_on(network.attach("a", pod.namespace.file(), &[port]));
        let localhost = Some(Ipv4Addr::LOCALHOST);
        for taken in [port(localhost, 8081), port(None, 8081), port(Some(HOST), 8082), port(None, 8082)] {
            let refused = attach(taken).unwrap_err();
            assert!(matches!(refused, PodNetworkError::HostPortListened { port } if port == taken), "{refused}");
        }
        assert!(attach(port(None, 8081)).unwrap_err().to_string().contains("0.0.0.0:8081/tcp is in use by a program"));
        attach(port(Some(HOST), 8081)).unwrap();
        assert_eq!(ask(&format!("{HOST}:8081")).unwrap().server, "a");
        drop(everywhere);
        attach(port(None, 8082)).unwrap();
        assert_eq!(ask("127.0.0.1:8082").unwrap().server, "a");
        // What it has, it keeps.
        let late = std::net::TcpListener::bind("0.0.0.0:8082").unwrap();
        attach(port(None, 8082)).unwrap();
        drop((loopback, late));
    });
}

#[test]
fn udp_clients_follow_a_host_port_from_pod_to_pod() {
    on_a_host(|host: Host| {
        let network = host.open();
        let ports = [HostPort { protocol: Protocol::Udp, ..port(None, 8081) }];
        let outside = host.outside.run(udp_client);
        let inside = udp_client();
        let ask = |client| ask_udp(client, &format!("{HOST}:8081"));
        let nobody = |client| assert_eq!(ask(client).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        nobody(&outside);
        nobody(&inside);
        for uid in ["a", "b"] {
            let _pod = host.start_pod(&network, uid, &ports);
            for client in [&outside, &inside] {
                assert_eq!(ask(client).unwrap().server, uid);
            }
            if uid == "a" {
                block_on(network.detach(uid)).unwrap();
                nobody(&outside);
            }
        }
        // The next pod has it at once, without a moment in which the port is nobody's.
        block_on(network.detach("b")).unwrap();
        let _pod = host.start_pod(&network, "c", &ports);
        assert_eq!(ask(&outside).unwrap().server, "c");
    });
}

#[test]
fn rules_that_somebody_deleted_come_back() {
    on_a_host(|host: Host| {
        let network = host.open();
        let a = host.start_pod(&network, "a", &[port(None, 8081)]);
        let outside = format!("{OUTSIDE}:8080");
        let repairs: [&dyn Fn(); 3] =
            [&|| block_on(network.repair()).unwrap(), &|| drop(host.start_pod(&network, "b", &[])), &|| {
                block_on(network.detach("b")).unwrap()
            }];
        for repair in repairs {
            delete_table("coracle-pods");
            assert!(host.outside.ask(&format!("{HOST}:8081")).is_err());
            repair();
            assert_eq!(host.outside.ask(&format!("{HOST}:8081")).unwrap(), answer("a", OUTSIDE));
            assert_eq!(a.namespace.ask(&outside).unwrap(), answer("outside", HOST));
        }
    });
}

#[test]
fn neighbours_do_not_reach_what_listens_on_loopback() {
    on_a_host(|host: Host| {
        let _network = host.open();
        let server = std::net::UdpSocket::bind("127.0.0.1:7000").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let send = |to: SocketAddrV4| {
            std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", SocketAddr::from(to)).unwrap();
        };
        send("127.0.0.1:7000".parse().unwrap());
        server.recv(&mut [0; 8]).unwrap();
        host.outside.run(|| {
            route_loopback_to_host();
            let raw = socket::socket(
                socket::AddressFamily::Inet,
                socket::SockType::Datagram,
                socket::SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            socket::setsockopt(&raw, socket::sockopt::BindToDevice, &"eth0".into()).unwrap();
            let to = socket::SockaddrIn::new(127, 0, 0, 1, 7000);
            let _ = socket::sendto(raw.as_raw_fd(), b"x", &to, socket::MsgFlags::empty());
        });
        assert!(server.recv(&mut [0; 8]).is_err());
    });
}

#[test]
fn only_pods_and_the_host_reach_the_dns_server() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        serve_at("dns", SocketAddrV4::new(DNS, 53));
        let at = format!("{DNS}:53");
        // The neighbour's default route leads here: it may ask for whatever it likes.
        assert!(host.outside.ask(&at).is_err());
        assert!(host.outside.ask_udp(&at).is_err());
        assert_eq!(pod.namespace.ask(&at).unwrap(), answer("dns", pod.ip));
        assert_eq!(pod.namespace.ask_udp(&at).unwrap(), answer("dns", pod.ip));
        assert_eq!(ask(&at).unwrap(), answer("dns", DNS));
        // Its address is one of the node's, and still no pod's host port takes it.
        let _thief = host.start_pod(&network, "thief", &[port(None, 53)]);
        assert_eq!(host.outside.ask(&format!("{HOST}:53")).unwrap().server, "thief");
        assert_eq!(pod.namespace.ask(&at).unwrap(), answer("dns", pod.ip));
        assert_eq!(ask(&at).unwrap(), answer("dns", DNS));
    });
}

#[test]
fn a_host_port_at_an_address_of_somebody_else_takes_nothing() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let at = format!("{OUTSIDE}:8080");
        let _thief = host.start_pod(&network, "thief", &[port(Some(OUTSIDE), 8080), port(Some(pod.ip), 8080)]);
        assert_eq!(pod.namespace.ask(&at).unwrap(), answer("outside", HOST));
        assert_eq!(ask(&at).unwrap().server, "outside");
        assert_eq!(ask(&format!("{}:8080", pod.ip)).unwrap().server, "a");
    });
}

#[test]
fn packets_of_no_connection_do_not_reach_loopback_addresses() {
    on_a_host(|host: Host| {
        let _network = host.open();
        let raw = |link: Option<&str>| {
            let raw = socket::socket(
                socket::AddressFamily::Inet,
                socket::SockType::Raw,
                socket::SockFlag::SOCK_CLOEXEC,
                socket::SockProtocol::Tcp,
            )
            .unwrap();
            if let Some(link) = link {
                socket::setsockopt(&raw, socket::sockopt::BindToDevice, &link.into()).unwrap();
            }
            raw
        };
        let seen = raw(None);
        socket::setsockopt(&seen, socket::sockopt::ReceiveTimeout, &TimeVal::seconds(2)).unwrap();
        host.outside.run(|| {
            route_loopback_to_host();
            let raw = raw(Some("eth0"));
            let mut reset = [0; 20];
            reset[..4].copy_from_slice(&[0x1f, 0x90, 0x1b, 0x58]);
            (reset[12], reset[13]) = (5 << 4, 4);
            for to in [socket::SockaddrIn::new(127, 0, 0, 1, 0), socket::SockaddrIn::new(192, 168, 50, 11, 0)] {
                socket::sendto(raw.as_raw_fd(), &reset, &to, socket::MsgFlags::empty()).unwrap();
            }
        });
        let mut packet = [0; 64];
        socket::recv(seen.as_raw_fd(), &mut packet, socket::MsgFlags::empty()).unwrap();
        assert_eq!(packet[16..20], HOST.octets(), "the one to the host's own address is the first to arrive");
    });
}

/// A neighbour that routes 127.0.0.0/8 to us, as an attacker on the LAN would.
fn route_loopback_to_host() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    let socket = route::open().unwrap();
    let link = route::link_by_name(&socket, "eth0").unwrap().unwrap().index;
    let stolen = route::Route {
        destination: Ipv4Addr::new(127, 0, 0, 1),
        prefix: 32,
        gateway: Some(HOST),
        source: Some(OUTSIDE),
        link,
        scope: route::Scope::Global,
    };
    route::RouteChanges::default().add_route(stolen).run(&socket).unwrap();
}

#[test]
fn twenty_pods_are_attached_quickly() {
    on_a_host(|host: Host| {
        let network = host.open();
        let started = tokio::time::Instant::now();
        let pods: Vec<Pod> = (0..20).map(|n| host.start_pod(&network, &format!("pod-{n}"), &[])).collect();
        println!("attaching took {:?} a pod, namespace and servers included", started.elapsed() / 20);
        let ips: BTreeSet<_> = pods.iter().map(|pod| pod.ip).collect();
        assert_eq!(ips.len(), 20);
    });
}
