use serde_json::json;

use super::*;

fn allocator() -> Allocator {
    Allocator::new(&["10.96.0.0/16".parse().unwrap()], "10.96.0.10".parse().unwrap())
}

/// Others hold 10.96.0.1 and node port 30080; choices always start at the band's beginning.
fn assign(spec: &Value, old: Option<&Value>) -> Result<Value, String> {
    let typed = |spec: &Value| -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec})).unwrap()
    };
    let mut used = Used { ips: HashSet::from(["10.96.0.1".parse().unwrap()]), ports: HashSet::from([30080]) };
    let mut service = typed(spec);
    let old = old.map(typed);
    let held = allocator().assign(&mut service, old.as_ref(), &mut used, &mut |_| 0).map_err(|e| e.to_string())?;
    let mut got = serde_json::to_value(service.spec).unwrap();
    got["held"] = json!({"ips": held.ips, "ports": held.ports});
    Ok(got)
}

#[test]
fn a_service_that_cannot_be_read_may_hold_anything() {
    let (readable, damaged) = (ObjectKey::new("a", "web"), ObjectKey::new("a", "damaged"));
    let held = Held { ips: vec!["10.96.0.7".parse().unwrap()], ports: vec![30007] };
    let mut state = State {
        services: Projection::new("", "services"),
        stored: HashMap::from([(readable, Some(held))]),
        pending: HashMap::new(),
        next: 0,
    };
    assert_eq!(state.used(None).unwrap().ports, HashSet::from([30007]));
    state.stored.insert(damaged.clone(), None);
    assert!(state.used(None).unwrap_err().to_string().contains("a/damaged"));
    assert!(state.used(Some(&damaged)).is_ok(), "itself it may be put right");
}

#[track_caller]
fn check(spec: &Value, old: Option<&Value>, expected: &Result<Value, &str>) {
    let got = assign(spec, old).map(|got| {
        // Only what the row names is compared.
        let wanted = expected.as_ref().ok().and_then(Value::as_object).cloned().unwrap_or_default();
        Value::Object(wanted.keys().map(|k| (k.clone(), got[k.as_str()].clone())).collect())
    });
    assert_eq!(got, expected.clone().map_err(str::to_owned), "{spec}");
}

#[test]
fn a_service_gets_an_address_and_its_families() {
    check(
        &json!({"type": "ClusterIP", "selector": {"a": "b"}}),
        None,
        &Ok(json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "held": {"ips": ["10.96.1.1"], "ports": []}})),
    );
    check(
        &json!({"clusterIP": "10.96.0.11"}),
        None,
        &Ok(json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]})),
    );
    check(
        &json!({"clusterIP": "None", "selector": {"a": "b"}}),
        None,
        &Ok(json!({"clusterIP": "None", "clusterIPs": ["None"], "held": {"ips": [], "ports": []}})),
    );
    check(
        &json!({"type": "ExternalName", "externalName": "x"}),
        None,
        &Ok(json!({"clusterIP": null, "ipFamilies": null})),
    );
}

#[test]
fn what_is_taken_or_outside_is_refused() {
    let head = "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP";
    check(
        &json!({"clusterIP": "10.96.0.1"}),
        None,
        &Err(&format!("{head} 10.96.0.1: provided IP is already allocated")),
    );
    check(
        &json!({"clusterIP": "10.97.0.1"}),
        None,
        &Err("Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.1\"]: failed to allocate IP \
             10.97.0.1: the provided network does not match the current range"),
    );
    let ports = |port: i32| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let head = "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value:";
    check(&ports(30080), None, &Err(&format!("{head} 30080: provided port is already allocated")));
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    check(&ports(80), None, &Err(&format!("{head} 80: {range}")));
}

#[test]
fn node_ports_are_given_to_those_who_need_them() {
    let two = json!([{"port": 80}, {"port": 443}]);
    check(
        &json!({"type": "NodePort", "ports": two}),
        None,
        &Ok(json!({"ports": [{"port": 80, "nodePort": 30086}, {"port": 443, "nodePort": 30087}]})),
    );
    check(&json!({"type": "ClusterIP", "ports": two}), None, &Ok(json!({"ports": two})));
    check(
        &json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": two}),
        None,
        &Ok(json!({"ports": two})),
    );
    check(
        &json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        None,
        &Ok(json!({"ports": [{"port": 80, "nodePort": 30086}], "healthCheckNodePort": 30087})),
    );
    let both = json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    check(
        &json!({"type": "NodePort", "ports": both}),
        None,
        &Ok(json!({"ports": [{"port": 53, "protocol": "TCP", "nodePort": 30086},
            {"port": 53, "protocol": "UDP", "nodePort": 30086}]})),
    );
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let old = json!({"type": "NodePort", "clusterIP": "10.96.5.5", "clusterIPs": ["10.96.5.5"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30500}]});
    check(
        &json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}),
        Some(&old),
        &Ok(json!({"clusterIP": "10.96.5.5", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30500},
            {"port": 81, "protocol": "TCP", "nodePort": 30086}]})),
    );
    let mut cluster = old.clone();
    cluster["type"] = json!("ClusterIP");
    check(&cluster, Some(&old), &Ok(json!({"clusterIP": "10.96.5.5", "held": {"ips": ["10.96.5.5"], "ports": []}})));
    let mut external = old.clone();
    external["type"] = json!("ExternalName");
    check(&external, Some(&old), &Ok(json!({"held": {"ips": [], "ports": []}})));
    check(
        &json!({"type": "ClusterIP"}),
        Some(&json!({"type": "ExternalName"})),
        &Ok(json!({"clusterIP": "10.96.1.1", "ipFamilies": ["IPv4"]})),
    );
}
