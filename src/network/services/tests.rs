use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::*;
use crate::Protocol;
use crate::testbed::{
    Answer, Connection, DNS, HOST, Host, OUTSIDE, Pod, ask, ask_udp, delete_table, list_table, on_a_host, serve,
    serve_at, udp_client,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const AT: &str = "10.96.0.20:80";

fn config() -> ServiceTableConfig {
    ServiceTableConfig {
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_dns: Some(DNS),
    }
}

fn open() -> ServiceTable {
    ServiceTable::open(config()).unwrap()
}

/// A service on port 80 of [`CLUSTER_IP`].
fn service(endpoints: &[SocketAddrV4]) -> ServicePort {
    ServicePort {
        cluster_ip: CLUSTER_IP,
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        endpoints: endpoints.to_vec(),
        local_endpoints: endpoints.to_vec(),
    }
}

fn udp(service: ServicePort) -> ServicePort {
    ServicePort { protocol: Protocol::Udp, ..service }
}

/// Asks often enough that each of three endpoints is missed once in four million runs.
fn servers(mut ask: impl FnMut() -> std::io::Result<Answer>) -> BTreeSet<String> {
    (0..40).map(|_| ask().unwrap().server).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn three_pods(host: &Host, network: &crate::PodNetwork) -> [Pod; 3] {
    ["a", "b", "c"].map(|uid| host.start_pod(network, uid, &[]))
}

#[test]
fn a_cluster_ip_spreads_clients_over_all_endpoints() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let mut table = open();
        let endpoints = pods.each_ref().map(Pod::endpoint);
        assert_eq!(table.sync(&[service(&endpoints), udp(service(&endpoints))]).unwrap(), Sync::Replaced);

        assert_eq!(servers(|| ask(AT)), names(&["a", "b", "c"]));
        assert_eq!(servers(|| pods[0].namespace.ask(AT)), names(&["a", "b", "c"]));
        assert_eq!(servers(|| pods[0].namespace.ask_udp(AT)), names(&["a", "b", "c"]));
        assert_eq!(table.sync(&[service(&endpoints), udp(service(&endpoints))]).unwrap(), Sync::Unchanged);
        list_table("coracle");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let other = host.start_pod(&network, "b", &[]);
        open().sync(&[service(&[pod.endpoint()])]).unwrap();
        assert_eq!(pod.namespace.ask(AT).unwrap(), Answer { server: "a".to_owned(), client: GATEWAY });
        // Others keep their address.
        assert_eq!(other.namespace.ask(AT).unwrap(), Answer { server: "a".to_owned(), client: other.ip });
    });
}

#[test]
fn a_node_port_answers_on_every_address() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let node_port = ServicePort { node_port: Some(30080), ..service(&[pods[0].endpoint()]) };
        open().sync(&[node_port.clone(), udp(node_port)]).unwrap();
        let masqueraded = Answer { server: "a".to_owned(), client: GATEWAY };
        for address in [HOST, GATEWAY, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 5)] {
            let at = format!("{address}:30080");
            assert_eq!(ask(&at).unwrap(), masqueraded, "{at} from the host");
            assert_eq!(ask_udp(&udp_client(), &at).unwrap(), masqueraded, "{at} from the host by UDP");
        }
        for from in [&host.outside, &pods[0].namespace, &pods[1].namespace] {
            assert_eq!(from.ask(&format!("{HOST}:30080")).unwrap(), masqueraded);
            assert_eq!(from.ask_udp(&format!("{HOST}:30080")).unwrap(), masqueraded);
        }
    });
}

#[test]
fn external_addresses_lead_to_the_service() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let external = Ipv4Addr::new(203, 0, 113, 7);
        let port =
            ServicePort { external_ips: vec![external], load_balancer_ips: vec![HOST], ..service(&[pod.endpoint()]) };
        open().sync(&[port]).unwrap();
        for address in [external, HOST] {
            assert_eq!(host.outside.ask(&format!("{address}:80")).unwrap().server, "a", "{address}");
        }
    });
}

#[test]
fn source_ranges_bind_the_load_balancer_alone() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let mut table = open();
        let mut reach = |ranges: &[&str]| {
            let port = ServicePort {
                load_balancer_ips: vec![HOST],
                node_port: Some(30080),
                source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                ..service(&[pod.endpoint()])
            };
            table.sync(&[port]).unwrap();
            ["192.168.50.11:80", "192.168.50.11:30080"].map(|at| host.outside.ask(at).is_ok())
        };
        assert_eq!(reach(&["10.0.0.0/8", "192.168.50.96/28"]), [true, true]);
        assert_eq!(reach(&["10.0.0.0/8"]), [false, true]);
        assert_eq!(reach(&[]), [true, true]);
    });
}

#[test]
fn affinity_keeps_a_client_at_its_endpoint_on_every_frontend() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let endpoints = pods.each_ref().map(Pod::endpoint);
        let sticky = |endpoints: &[SocketAddrV4]| ServicePort {
            affinity: Some(Duration::from_secs(10_800)),
            node_port: Some(30080),
            ..service(endpoints)
        };
        let mut table = open();
        table.sync(&[sticky(&endpoints)]).unwrap();
        let [a, b, _] = &pods;
        let first = a.namespace.ask(AT).unwrap().server;
        assert_eq!(servers(|| a.namespace.ask(AT)), names(&[&first]));
        assert_eq!(servers(|| a.namespace.ask(&format!("{HOST}:30080"))), names(&[&first]));

        // The endpoint stays while others go, and the client moves when its own goes.
        let kept: Vec<_> = pods.iter().filter(|pod| pod.uid == first).map(Pod::endpoint).collect();
        let other = pods.iter().find(|pod| pod.uid != first).unwrap();
        assert_eq!(table.sync(&[sticky(&[other.endpoint(), kept[0]])]).unwrap(), Sync::Changed);
        assert_eq!(servers(|| a.namespace.ask(AT)), names(&[&first]));
        assert_eq!(table.sync(&[sticky(&[other.endpoint()])]).unwrap(), Sync::Changed);
        assert_eq!(servers(|| a.namespace.ask(AT)), names(&[&other.uid]));
        assert_eq!(table.sync(&[service(&endpoints)]).unwrap(), Sync::Changed);
        assert_eq!(servers(|| b.namespace.ask(AT)), names(&["a", "b", "c"]));
        list_table("coracle");
    });
}

#[test]
fn affinity_ends_after_its_time() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let port =
            ServicePort { affinity: Some(Duration::from_millis(50)), ..service(&pods.each_ref().map(Pod::endpoint)) };
        open().sync(&[port]).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            assert!(tokio::time::Instant::now() < deadline, "the client stays at {seen:?} for ever");
            seen.insert(ask(AT).unwrap().server);
            std::thread::park_timeout(Duration::from_millis(60));
        }
    });
}

#[test]
fn local_external_traffic_keeps_its_source_and_stays_on_the_node() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let [a, b, _] = pods.each_ref().map(Pod::endpoint);
        // To the rules, pod b is on another node.
        let port = |local: &[SocketAddrV4], affinity| ServicePort {
            node_port: Some(30080),
            load_balancer_ips: vec![HOST],
            external_policy: TrafficPolicy::Local,
            local_endpoints: local.to_vec(),
            affinity,
            ..service(&[a, b])
        };
        let mut table = open();
        for affinity in [None, Some(Duration::from_millis(1))] {
            table.sync(&[port(&[a], affinity)]).unwrap();
            for at in ["192.168.50.11:30080", "192.168.50.11:80"] {
                assert_eq!(servers(|| host.outside.ask(at)), names(&["a"]), "{at} {affinity:?}");
                assert_eq!(host.outside.ask(at).unwrap().client, OUTSIDE);
                assert!(servers(|| pods[2].namespace.ask(at)).contains("b") || affinity.is_some());
                assert!(ask(at).is_ok());
            }
            table.sync(&[port(&[], affinity)]).unwrap();
            let dropped = host.outside.ask("192.168.50.11:30080").unwrap_err();
            assert_eq!(dropped.kind(), ErrorKind::TimedOut, "{affinity:?}");
            assert!(pods[2].namespace.ask("192.168.50.11:30080").is_ok());
        }
    });
}

#[test]
fn local_internal_traffic_uses_the_nodes_own_endpoints_only() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pods = three_pods(&host, &network);
        let [a, b, _] = pods.each_ref().map(Pod::endpoint);
        let port = |local: &[SocketAddrV4]| ServicePort {
            internal_policy: TrafficPolicy::Local,
            local_endpoints: local.to_vec(),
            ..service(&[a, b])
        };
        let mut table = open();
        table.sync(&[port(&[b])]).unwrap();
        assert_eq!(servers(|| pods[2].namespace.ask(AT)), names(&["b"]));
        table.sync(&[port(&[])]).unwrap();
        assert_eq!(pods[2].namespace.ask(AT).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        // Something of the host's own on the same port must not answer for the service.
        serve("host", 30080);
        let external = Ipv4Addr::new(203, 0, 113, 7);
        let empty = ServicePort { node_port: Some(30080), external_ips: vec![external], ..service(&[]) };
        open().sync(&[empty.clone(), udp(empty)]).unwrap();
        #[track_caller]
        fn check(result: std::io::Result<Answer>) {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        for at in [AT, "10.96.77.77:80", "192.168.50.11:30080", "203.0.113.7:80"] {
            check(ask(at));
            // The kernel tells the sender on the spot.
            assert_eq!(ask_udp(&udp_client(), at).unwrap_err().kind(), ErrorKind::PermissionDenied);
            check(pod.namespace.ask(at));
            check(pod.namespace.ask_udp(at));
        }
        for at in ["192.168.50.11:30080", "203.0.113.7:80"] {
            check(host.outside.ask(at));
            check(host.outside.ask_udp(at));
        }
    });
}

#[test]
fn the_dns_address_is_left_to_the_server_on_this_host() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        serve_at("dns", SocketAddrV4::new(DNS, 53));
        let claim = ServicePort { cluster_ip: DNS, port: 53, ..service(&[pod.endpoint()]) };
        let empty = ServicePort { cluster_ip: DNS, port: 53, ..service(&[]) };
        for port in [claim, empty] {
            open().sync(&[port.clone(), udp(port)]).unwrap();
            let at = format!("{DNS}:53");
            assert_eq!(pod.namespace.ask_udp(&at).unwrap(), Answer { server: "dns".to_owned(), client: pod.ip });
            assert_eq!(pod.namespace.ask(&at).unwrap().server, "dns");
            assert_eq!(ask_udp(&udp_client(), &at).unwrap().server, "dns");
        }
    });
}

#[test]
fn no_service_claims_the_cluster_ip_of_another() {
    on_a_host(|host: Host| {
        let network = host.open();
        let (a, thief) = (host.start_pod(&network, "a", &[]), host.start_pod(&network, "thief", &[]));
        let claim = ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 0, 9),
            external_ips: vec![CLUSTER_IP],
            ..service(&[thief.endpoint()])
        };
        for ports in [[claim.clone(), service(&[a.endpoint()])], [service(&[a.endpoint()]), claim.clone()]] {
            open().sync(&ports).unwrap();
            assert_eq!(servers(|| ask(AT)), names(&["a"]));
        }
    });
}

#[test]
fn established_connections_outlive_every_change() {
    on_a_host(|host: Host| {
        let network = host.open();
        let [a, b, _] = three_pods(&host, &network);
        let mut table = open();
        table.sync(&[service(&[a.endpoint()])]).unwrap();
        let mut connection = Connection::open(AT).unwrap();
        assert_eq!(connection.ask().unwrap().server, "a");
        assert_eq!(table.sync(&[service(&[b.endpoint()])]).unwrap(), Sync::Changed);
        assert_eq!(connection.ask().unwrap().server, "a");
        assert_eq!(ask(AT).unwrap().server, "b");
        // A new process replaces the table.
        assert_eq!(open().sync(&[service(&[b.endpoint()])]).unwrap(), Sync::Replaced);
        assert_eq!(connection.ask().unwrap().server, "a");
        assert_eq!(table.sync(&[]).unwrap(), Sync::Changed);
        assert_eq!(connection.ask().unwrap().server, "a");
    });
}

#[test]
fn udp_clients_leave_an_endpoint_that_is_gone() {
    on_a_host(|host: Host| {
        let network = host.open();
        let [a, b, _] = three_pods(&host, &network);
        let port = |endpoint: &[SocketAddrV4]| udp(ServicePort { node_port: Some(30053), ..service(endpoint) });
        let mut table = open();
        let clients = [AT, "192.168.50.11:30053", "127.0.0.1:30053"].map(|at| (at, udp_client()));
        let outside = host.outside.run(udp_client);
        let mut check = |endpoint: &Pod| {
            table.sync(&[port(&[endpoint.endpoint()])]).unwrap();
            assert!(table.has_stale_flows());
            table.forget_stale_flows();
            for (at, client) in &clients {
                assert_eq!(ask_udp(client, at).unwrap().server, endpoint.uid, "{at}");
            }
            assert_eq!(ask_udp(&outside, "192.168.50.11:30053").unwrap().server, endpoint.uid);
        };
        check(&a);
        check(&b);
        assert!(!table.has_stale_flows());
        // One look for several changes, of which the last one alone would leave the flow.
        table.sync(&[port(&[])]).unwrap();
        let another = ServicePort { cluster_ip: Ipv4Addr::new(10, 96, 1, 9), ..service(&[a.endpoint()]) };
        table.sync(&[port(&[]), udp(another)]).unwrap();
        table.forget_stale_flows();
        assert_eq!(ask_udp(&clients[0].1, AT).unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn udp_clients_leave_a_service_that_went_while_nobody_watched() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let port = |endpoints: &[SocketAddrV4]| udp(service(endpoints));
        for after in [vec![], vec![port(&[])]] {
            let client = udp_client();
            open().sync(&[port(&[pod.endpoint()])]).unwrap();
            assert_eq!(ask_udp(&client, AT).unwrap().server, "a");
            let mut table = open();
            table.sync(&after).unwrap();
            table.forget_stale_flows();
            assert_eq!(ask_udp(&client, AT).unwrap_err().kind(), ErrorKind::PermissionDenied, "{after:?}");
        }
    });
}

#[test]
fn udp_clients_find_a_node_port_that_came_after_them() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let ports = [udp(ServicePort { node_port: Some(30053), ..service(&[pod.endpoint()]) })];
        let at = "192.168.50.11:30053";
        let mut table = open();
        table.sync(&ports).unwrap();
        delete_table(TABLE);
        let client = host.outside.run(udp_client);
        assert_eq!(ask_udp(&client, at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        table.sync(&ports).unwrap();
        table.forget_stale_flows();
        assert_eq!(ask_udp(&client, at).unwrap().server, "a");
    });
}

#[test]
fn rules_that_somebody_deleted_come_back() {
    on_a_host(|host: Host| {
        let network = host.open();
        let pod = host.start_pod(&network, "a", &[]);
        let ports = [service(&[pod.endpoint()])];
        let mut table = open();
        table.sync(&ports).unwrap();
        delete_table(TABLE);
        assert!(ask(AT).is_err());
        assert_eq!(table.sync(&ports).unwrap(), Sync::Replaced);
        assert_eq!(ask(AT).unwrap().server, "a");
    });
}

#[test]
fn a_change_that_does_not_fit_what_is_loaded_replaces_the_table() {
    on_a_host(|host: Host| {
        let network = host.open();
        let [a, b, _] = three_pods(&host, &network);
        let mut table = open();
        table.sync(&[service(&[a.endpoint()])]).unwrap();
        let mut batch = Batch::new(TABLE);
        batch.replace_table();
        batch.commit(&nft::open().unwrap()).unwrap();
        assert_eq!(table.sync(&[service(&[b.endpoint()])]).unwrap(), Sync::Replaced);
        assert_eq!(ask(AT).unwrap().server, "b");
    });
}

/// Numbers without a source of chance: every run sees the same states.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn service(&mut self, number: u8) -> ServicePort {
        let policy = |n| if n == 0 { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let endpoints: Vec<_> = (0..self.below(4))
            .map(|_| SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, u8::try_from(self.below(9)).unwrap()), 8080))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let local = endpoints.iter().copied().filter(|_| self.below(2) == 0).collect();
        ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 1, number),
            protocol: if self.below(3) == 0 { Protocol::Udp } else { Protocol::Tcp },
            port: 80,
            node_port: (self.below(2) == 0).then_some(30000 + u16::from(number)),
            external_ips: if self.below(4) == 0 { vec![OUTSIDE] } else { Vec::new() },
            load_balancer_ips: if self.below(3) == 0 { vec![HOST] } else { Vec::new() },
            source_ranges: if self.below(3) == 0 { vec!["192.0.2.0/24".parse().unwrap()] } else { Vec::new() },
            internal_policy: policy(self.below(3)),
            external_policy: policy(self.below(2)),
            affinity: (self.below(3) == 0).then(|| Duration::from_secs(60 + self.below(2))),
            endpoints,
            local_endpoints: local,
        }
    }
}

#[test]
fn changes_lead_to_the_same_rules_as_a_fresh_start() {
    on_a_host(|_host: Host| {
        let mut sequence = Sequence(1);
        let mut table = open();
        table.sync(&[]).unwrap();
        for round in 0..60 {
            let mut ports: Vec<_> = (0..12).map(|number| sequence.service(number)).collect();
            ports.retain(|_| sequence.below(5) > 0);
            let outcome = table.sync(&ports).unwrap();
            assert_eq!(outcome, Sync::Changed, "round {round}");
            if round % 10 > 0 {
                continue;
            }
            let Some(changed) = list_table("coracle") else { return };
            assert_eq!(open().sync(&ports).unwrap(), Sync::Replaced);
            let replaced = list_table("coracle").unwrap();
            assert_eq!(sorted(&changed), sorted(&replaced), "round {round}");
        }
    });
}

/// Chains and sets are listed in the order of their creation, elements in that of a hash.
fn sorted(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = listing.split("\n\t}\n").map(sorted_elements).collect();
    blocks.sort();
    blocks
}

fn sorted_elements(block: &str) -> String {
    let Some((head, elements)) = block.split_once("elements = {") else { return block.trim().to_owned() };
    let mut elements: Vec<_> = elements.split(',').map(|e| e.trim().trim_end_matches('}').trim()).collect();
    elements.sort_unstable();
    format!("{} {elements:?}", head.trim())
}

#[test]
fn a_thousand_services_load_quickly() {
    on_a_host(|_host: Host| {
        let ports = |endpoint: u8| -> Vec<_> {
            let endpoints = [2, 3, endpoint].map(|n| SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, n), 8080));
            (0..1000u16)
                .map(|n| {
                    let [high, low] = n.to_be_bytes();
                    let cluster_ip = Ipv4Addr::new(10, 96, high, low);
                    let endpoints = if n == 0 { &endpoints[..] } else { &endpoints[..2] };
                    ServicePort { cluster_ip, node_port: Some(30000 + n), ..service(endpoints) }
                })
                .collect()
        };
        let mut table = open();
        let started = tokio::time::Instant::now();
        table.sync(&ports(4)).unwrap();
        let replaced = started.elapsed();
        assert_eq!(table.sync(&ports(5)).unwrap(), Sync::Changed);
        println!("1,000 services: all {replaced:?}, one endpoint {:?}", started.elapsed() - replaced);
    });
}
