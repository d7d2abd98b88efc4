use std::collections::BTreeSet;

use api::core::node_ports::Port;
use api::object::ObjectKey;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{PodFixture, cpu, node, nodes, pod, with_priority};

fn decision(cache: &Cache, p: &PodFixture) -> Decision {
    let pending = Pending { pod: &p.pod, spec: p.pod.spec.as_ref().unwrap(), info: &p.info };
    decide(&pending, cache, &mut StdRng::seed_from_u64(1))
}

#[track_caller]
fn placed(cache: &Cache, p: &PodFixture, on: &str) {
    assert_eq!(decision(cache, p), Decision::Place { node: on.to_owned() });
}

#[track_caller]
fn refused(cache: &Cache, p: &PodFixture, expected: &str) {
    match decision(cache, p) {
        Decision::Unschedulable { message, preempt: None, .. } => assert_eq!(message, expected),
        other => panic!("{other:?}"),
    }
}

fn place(cache: &mut Cache, on: &str, p: PodFixture) {
    cache.place(std::sync::Arc::new(p.info), on);
}

#[test]
fn a_pod_goes_to_the_node_with_more_room() {
    let mut cache = nodes(&["a", "b"]);
    place(&mut cache, "a", pod("busy", &[], &cpu("3")));
    placed(&cache, &pod("p", &[], &cpu("500m")), "b");
}

#[test]
fn without_nodes_the_message_says_so() {
    refused(&Cache::default(), &pod("p", &[], &cpu("1")), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_and_sorted_as_upstream_prints_them() {
    let mut cache = nodes(&["a", "b"]);
    let tainted = json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] });
    cache.set_node(node("c", &[], "4", &tainted));
    cache.set_node(node("d", &[], "64", &json!({ "unschedulable": true })));
    refused(
        &cache,
        &pod("p", &[], &cpu("5")),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. \
         no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn a_full_node_without_lower_pods_has_no_victims() {
    let mut cache = nodes(&["a"]);
    place(&mut cache, "a", pod("busy", &[], &cpu("3")));
    refused(
        &cache,
        &pod("p", &[], &cpu("2")),
        "0/1 nodes are available: 1 Insufficient cpu. \
         no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
}

#[track_caller]
fn preempts(cache: &Cache, p: &PodFixture, node: &str, victims: &[&str]) {
    match decision(cache, p) {
        Decision::Unschedulable { preempt: Some(preemption), .. } => {
            let got: Vec<&str> = preemption.victims.iter().map(|v| v.uid()).collect();
            assert_eq!((preemption.node.as_str(), got.as_slice()), (node, victims));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_as_many_lower_pods_leave_as_are_needed() {
    let mut cache = nodes(&["a"]);
    for (name, priority) in [("lowest", 1), ("low", 2), ("high", 100)] {
        place(&mut cache, "a", pod(name, &[], &with_priority(priority, cpu("1300m"))));
    }
    preempts(&cache, &pod("p", &[], &with_priority(50, cpu("1"))), "a", &["lowest"]);
    preempts(&cache, &pod("p", &[], &with_priority(50, cpu("2"))), "a", &["low", "lowest"]);
}

#[test]
fn the_node_whose_victims_matter_least_is_chosen() {
    let mut cache = nodes(&["a", "b"]);
    place(&mut cache, "a", pod("on-a", &[], &with_priority(10, cpu("4"))));
    place(&mut cache, "b", pod("on-b", &[], &with_priority(5, cpu("4"))));
    preempts(&cache, &pod("p", &[], &with_priority(50, cpu("1"))), "b", &["on-b"]);
}

#[test]
fn a_pod_that_never_preempts_says_so() {
    let mut cache = nodes(&["a"]);
    place(&mut cache, "a", pod("busy", &[], &cpu("4")));
    let mut spec = with_priority(50, cpu("1"));
    spec["preemptionPolicy"] = "Never".into();
    refused(
        &cache,
        &pod("p", &[], &spec),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.",
    );
}

#[test]
fn room_that_was_promised_is_not_given_to_another() {
    let mut cache = nodes(&["a"]);
    cache.nominate(std::sync::Arc::new(pod("promised", &[], &with_priority(10, cpu("3"))).info), "a");
    refused(
        &cache,
        &pod("p", &[], &cpu("2")),
        "0/1 nodes are available: 1 Insufficient cpu. \
         no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
    placed(&cache, &pod("p", &[], &with_priority(20, cpu("2"))), "a");
}

fn anti(label: &str) -> Value {
    json!({
        "containers": [{ "name": "c" }],
        "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchLabels": { "app": label } },
            "topologyKey": "kubernetes.io/hostname",
        }] } },
    })
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let mut cache = nodes(&["a", "b"]);
    place(&mut cache, "a", pod("web-0", &[("app", "web")], &anti("web")));
    placed(&cache, &pod("web-1", &[("app", "web")], &anti("web")), "b");
    placed(&cache, &pod("plain", &[("app", "web")], &cpu("1")), "b");
    place(&mut cache, "b", pod("web-1", &[("app", "web")], &anti("web")));
    match decision(&cache, &pod("web-2", &[("app", "web")], &anti("web"))) {
        Decision::Unschedulable { message, .. } => {
            assert!(message.contains("2 node(s) didn't match pod anti-affinity rules"), "{message}");
        }
        Decision::Place { node } => panic!("placed on {node}"),
    }
}

#[test]
fn the_first_of_a_group_with_affinity_to_itself_may_start() {
    let spec = json!({
        "containers": [{ "name": "c" }],
        "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchLabels": { "app": "db" } },
            "topologyKey": "kubernetes.io/hostname",
        }] } },
    });
    let mut cache = nodes(&["a", "b"]);
    assert!(matches!(decision(&cache, &pod("db-0", &[("app", "db")], &spec)), Decision::Place { .. }));
    refused(
        &cache,
        &pod("other", &[("app", "x")], &spec),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. \
         no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    place(&mut cache, "b", pod("db-0", &[("app", "db")], &spec));
    placed(&cache, &pod("db-1", &[("app", "db")], &spec), "b");
}

#[test]
fn spread_constraints_keep_the_skew() {
    let spec = json!({
        "containers": [{ "name": "c" }],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": "web" } },
        }],
    });
    let mut cache = nodes(&["a", "b"]);
    place(&mut cache, "a", pod("web-0", &[("app", "web")], &cpu("10m")));
    placed(&cache, &pod("web-1", &[("app", "web")], &spec), "b");
}

#[test]
fn selectors_affinity_and_host_ports_are_respected() {
    let mut cache = nodes(&["a", "b"]);
    cache.set_node(node("ssd", &[("disk", "ssd"), ("cores", "8")], "4", &json!({})));
    placed(&cache, &pod("p", &[], &json!({ "containers": [], "nodeSelector": { "disk": "ssd" } })), "ssd");
    let greater = json!({
        "containers": [],
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "cores", "operator": "Gt", "values": ["4"] }] },
        ] } } },
    });
    placed(&cache, &pod("p", &[], &greater), "ssd");
    let port = json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    for (n, on) in ["a", "b", "ssd"].into_iter().enumerate() {
        place(&mut cache, on, pod(&format!("web-{n}"), &[], &port));
    }
    refused(
        &cache,
        &pod("p", &[], &port),
        "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports. \
         no new claims to deallocate, preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.",
    );
}

#[test]
fn ports_of_the_nodes_own_servers_are_never_given() {
    let mut cache = nodes(&[]);
    let mut own = node("a", &[], "4", &json!({}));
    own.reserved_ports = Port::of(10250, None).into_iter().collect();
    cache.set_node(own);
    let port = |number: i32| json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": number }] }] });
    placed(&cache, &pod("p", &[], &port(10251)), "a");
    refused(
        &cache,
        &pod("p", &[], &port(10250)),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
         no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn ports_of_load_balancers_are_given_to_no_pod_of_their_nodes() {
    let mut cache = nodes(&["b"]);
    let mut balancing = node("a", &[], "4", &json!({}));
    balancing.addresses = vec!["192.0.2.9".parse().unwrap()];
    cache.set_node(balancing);
    let key = ObjectKey::new("prod", "web");
    let has = [("192.0.2.9".parse().unwrap(), Port::of(80, None).unwrap())];
    assert!(!cache.set_balanced(&key, has.into()));
    let on = |node: &str, port: Value| {
        pod("p", &[], &json!({ "nodeName": node, "containers": [{ "name": "c", "ports": [port] }] }))
    };
    let why = "0/2 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, \
               1 node(s) didn't match the requested node name. \
               no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    refused(&cache, &on("a", json!({ "containerPort": 80, "hostPort": 80 })), why);
    refused(&cache, &on("a", json!({ "containerPort": 80, "hostPort": 80, "hostIP": "192.0.2.9" })), why);
    placed(&cache, &on("a", json!({ "containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1" })), "a");
    placed(&cache, &on("a", json!({ "containerPort": 80, "hostPort": 80, "protocol": "UDP" })), "a");
    placed(&cache, &on("b", json!({ "containerPort": 80, "hostPort": 80 })), "b");
    assert!(cache.set_balanced(&key, BTreeSet::new()), "what waits for the port is told");
    placed(&cache, &on("a", json!({ "containerPort": 80, "hostPort": 80 })), "a");
}
