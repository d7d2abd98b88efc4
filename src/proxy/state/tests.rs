#![expect(clippy::needless_pass_by_value, reason = "objects are written down where they are passed")]

use std::time::Duration;

use api::object::ObjectIndex;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::Protocol;
use network::services::TrafficPolicy;
use serde_json::{Value, json};

use super::*;

const NODE: &str = "pi-1";

fn index(object: &Value) -> ObjectIndex {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap().into()));
    ObjectIndex {
        key: ObjectKey::new(&text("/metadata/namespace"), &text("/metadata/name")),
        labels: labels.collect(),
        ..ObjectIndex::default()
    }
}

/// A Service `shop/web` with these fields in its spec.
fn service(spec: Value, labels: Value) -> Value {
    json!({"metadata": {"namespace": "shop", "name": "web", "labels": labels}, "spec": spec})
}

/// A slice of `shop/web` with these endpoints, for the port `http`.
fn slice(name: &str, endpoints: Value) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 8080},
            {"name": "dns", "protocol": "UDP", "port": 5353},
        ],
        "endpoints": endpoints,
    })
}

impl State {
    fn take_service(&mut self, object: Value) -> bool {
        let index = index(&object);
        let typed: Service = serde_json::from_value(object).unwrap();
        self.set_service(&index.key, ServiceInfo::of(&index, typed))
    }

    fn take_slice(&mut self, object: Value) -> bool {
        let index = index(&object);
        let typed: EndpointSlice = serde_json::from_value(object).unwrap();
        self.set_slice(&index.key, SliceInfo::of(&index, typed, NODE))
    }
}

fn web() -> Value {
    service(json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}), json!({}))
}

fn endpoint(address: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({
        "addresses": [address],
        "nodeName": node,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    })
}

fn socket(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

#[test]
fn ready_endpoints_are_used_and_terminating_ones_only_when_nothing_is_left() {
    #[track_caller]
    fn check(endpoints: Value, all: &[&str], local: &[&str]) {
        let mut state = State::default();
        state.take_service(web());
        state.take_slice(slice("web-1", endpoints));
        let ports = state.service_ports();
        let sockets = |texts: &[&str]| texts.iter().map(|text| socket(text)).collect::<Vec<_>>();
        assert_eq!(ports[0].endpoints, sockets(all));
        assert_eq!(ports[0].local_endpoints, sockets(local));
    }
    let (ready, here, there) = (true, NODE, "pi-2");
    check(
        json!([endpoint("10.244.0.2", here, ready, true, false), endpoint("10.244.1.2", there, ready, true, false)]),
        &["10.244.0.2:8080", "10.244.1.2:8080"],
        &["10.244.0.2:8080"],
    );
    check(json!([endpoint("10.244.0.2", here, false, false, false)]), &[], &[]);
    check(json!([endpoint("10.244.0.2", here, false, true, true)]), &["10.244.0.2:8080"], &["10.244.0.2:8080"]);
    // The last one here is terminating; others serve elsewhere.
    check(
        json!([endpoint("10.244.0.2", here, false, true, true), endpoint("10.244.1.2", there, ready, true, false)]),
        &["10.244.1.2:8080"],
        &["10.244.0.2:8080"],
    );
    check(json!([endpoint("10.244.0.2", here, false, false, true)]), &[], &[]);
    check(json!([{"addresses": ["10.244.0.2"]}]), &["10.244.0.2:8080"], &[]);
}

#[test]
fn a_service_port_carries_what_the_spec_says() {
    let mut object = service(
        json!({
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["fd00::7", "10.96.0.7"],
            "externalIPs": ["203.0.113.5", "2001:db8::1"],
            "sessionAffinity": "ClientIP",
            "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": [" 10.0.0.0/8", "fd00::/8"],
            "healthCheckNodePort": 32000,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}],
        }),
        json!({}),
    );
    object["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "192.168.1.9", "ipMode": "VIP"}, {"ip": "192.168.1.10", "ipMode": "Proxy"}, {"hostname": "lb"},
    ]}});
    let mut state = State::default();
    state.take_service(object);
    state.take_slice(slice("web-1", json!([endpoint("10.244.0.2", NODE, true, true, false)])));
    let expected = ServicePort {
        cluster_ip: "10.96.0.7".parse().unwrap(),
        protocol: Protocol::Udp,
        port: 53,
        node_port: Some(30053),
        external_ips: vec!["203.0.113.5".parse().unwrap()],
        load_balancer_ips: vec!["192.168.1.9".parse().unwrap()],
        source_ranges: vec!["10.0.0.0/8".parse().unwrap()],
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        affinity: Some(Duration::from_secs(10_800)),
        endpoints: vec![socket("10.244.0.2:5353")],
        local_endpoints: vec![socket("10.244.0.2:5353")],
    };
    assert_eq!(state.service_ports(), [expected]);
    let check = HealthCheck { service: ObjectKey::new("shop", "web"), local_endpoints: 1 };
    assert_eq!(state.health_checks(), BTreeMap::from([(32000, check)]));
}

#[test]
fn services_of_no_concern_to_the_proxy_are_left_out() {
    #[track_caller]
    fn check(spec: Value, labels: Value, expected: usize) {
        let mut state = State::default();
        state.take_service(service(spec, labels));
        assert_eq!(state.service_ports().len(), expected);
    }
    let ports = json!([{"port": 80}]);
    check(json!({"clusterIP": "10.96.0.7", "ports": ports}), json!({}), 1);
    check(json!({"clusterIP": "None", "ports": ports}), json!({}), 0);
    check(json!({"type": "ExternalName", "externalName": "example.org", "ports": ports}), json!({}), 0);
    check(json!({"clusterIP": "10.96.0.7", "ports": ports}), json!({"service.kubernetes.io/headless": ""}), 0);
    let other = json!({"service.kubernetes.io/service-proxy-name": "other"});
    check(json!({"clusterIP": "10.96.0.7", "ports": ports}), other, 0);
}

#[test]
fn slices_come_together_move_and_go() {
    let mut state = State::default();
    state.take_service(web());
    let ready = |address: &str| json!([endpoint(address, NODE, true, true, false)]);
    assert!(state.take_slice(slice("web-1", ready("10.244.0.2"))));
    assert!(!state.take_slice(slice("web-1", ready("10.244.0.2"))), "nothing changed");
    assert!(state.take_slice(slice("web-2", ready("10.244.0.3"))));
    // A pod in two slices counts once, and one that is ready in either is ready.
    assert!(state.take_slice(slice("web-3", json!([endpoint("10.244.0.3", NODE, false, true, true)]))));
    assert_eq!(state.service_ports()[0].endpoints, [socket("10.244.0.2:8080"), socket("10.244.0.3:8080")]);

    let mut moved = slice("web-1", ready("10.244.0.2"));
    moved["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
    assert!(state.take_slice(moved));
    assert!(state.set_slice(&ObjectKey::new("shop", "web-3"), None));
    assert_eq!(state.service_ports()[0].endpoints, [socket("10.244.0.3:8080")]);
    assert!(state.set_slice(&ObjectKey::new("shop", "web-2"), None));
    assert!(!state.set_slice(&ObjectKey::new("shop", "web-2"), None));
    assert_eq!(state.service_ports()[0].endpoints, []);
}
