//! What an update of a Service takes over from the stored one, and what it leaves behind.
//!
//! Addresses and node ports are given by the server. A client that does not name them does not mean to
//! give them back, and one that only changes the type does not mean to keep what the new type has no use
//! for. [`inherit`] comes before the allocation, [`drop_type_dependent`] after it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServicePort, ServiceSpec};

pub(super) fn kind_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("")
}

#[must_use]
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    kind_of(spec) != "ExternalName"
}

/// Whether node ports have a place in the spec; a load balancer may do without.
#[must_use]
pub fn may_have_node_ports(spec: &ServiceSpec) -> bool {
    ["NodePort", "LoadBalancer"].contains(&kind_of(spec))
}

#[must_use]
pub fn needs_health_check_port(spec: &ServiceSpec) -> bool {
    kind_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

pub(super) fn reachable_from_outside(spec: &ServiceSpec) -> bool {
    let external = kind_of(spec) == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    may_have_node_ports(spec) || external
}

/// Fills in what the client left out of what the server gave, and makes `clusterIP` and `clusterIPs`
/// agree. `old` is absent for a new Service.
pub fn inherit(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    if let Some(old) = old {
        take_over_addresses(new, old);
        take_over_ports(new, old);
    }
    mirror_cluster_ip(new, old);
}

fn take_over_addresses(new: &mut ServiceSpec, old: &ServiceSpec) {
    if !needs_cluster_ip(new) || !needs_cluster_ip(old) {
        return;
    }
    if cluster_ip(new).is_empty() {
        new.cluster_ip.clone_from(&old.cluster_ip);
    }
    if cluster_ips(new).is_empty() {
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
}

/// A node port stays with the port's name, unless another port of the new Service claims it.
fn take_over_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    if may_have_node_ports(new) && may_have_node_ports(old) {
        let was = node_ports(old);
        let mut used: BTreeSet<i32> = node_ports(new).intersection(&was).copied().collect();
        let by_name: BTreeMap<&str, i32> =
            old.ports.iter().flatten().map(|p| (port_name(p), p.node_port.unwrap_or(0))).collect();
        for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
            let known = by_name.get(port_name(port)).copied().filter(|number| *number != 0);
            port.node_port = known.filter(|number| used.insert(*number));
        }
    }
    if needs_health_check_port(new) && needs_health_check_port(old) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// `clusterIP` and the first of `clusterIPs` are one value with two names. A client that knows the old
/// name alone changes that one.
fn mirror_cluster_ip(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let ip = cluster_ip(new).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && cluster_ips(new).is_empty() {
            new.cluster_ips = Some(vec![ip]);
        }
        return;
    };
    let changed = ip != cluster_ip(old);
    if !changed && cluster_ips(new).is_empty() && !cluster_ips(old).is_empty() {
        new.cluster_ips.clone_from(&old.cluster_ips);
    } else if changed && cluster_ips(new) == cluster_ips(old) {
        new.cluster_ips = Some(vec![ip]).filter(|ips| !ips[0].is_empty());
    }
}

/// Fields that only the old type had, left as they were, go with it.
pub(super) fn drop_type_dependent(new: &mut Service, old: &Service) {
    let (Some(spec), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else { return };
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if cluster_ip(spec) == cluster_ip(old) && cluster_ips(spec) == cluster_ips(old) {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        drop_if_same(&mut spec.ip_families, old.ip_families.as_ref());
        drop_if_same(&mut spec.ip_family_policy, old.ip_family_policy.as_ref());
    }
    // Ports may come, go and change, as long as none names a node port of its own.
    let leaves = may_have_node_ports(old) && !may_have_node_ports(spec);
    if leaves && node_ports(old).is_superset(&node_ports(spec)) {
        spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    }
    if needs_health_check_port(old) && !needs_health_check_port(spec) {
        drop_if_same(&mut spec.health_check_node_port, old.health_check_node_port.as_ref());
    }
    if kind_of(old) == "LoadBalancer" && kind_of(spec) != "LoadBalancer" {
        drop_if_same(&mut spec.allocate_load_balancer_node_ports, old.allocate_load_balancer_node_ports.as_ref());
        drop_if_same(&mut spec.load_balancer_class, old.load_balancer_class.as_ref());
    }
    if reachable_from_outside(old) && !reachable_from_outside(spec) {
        drop_if_same(&mut spec.external_traffic_policy, old.external_traffic_policy.as_ref());
    }
    if kind_of(spec) != "LoadBalancer" {
        new.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
    }
}

fn drop_if_same<T: PartialEq>(new: &mut Option<T>, old: Option<&T>) {
    if new.as_ref() == old {
        *new = None;
    }
}

fn cluster_ip(spec: &ServiceSpec) -> &str {
    spec.cluster_ip.as_deref().unwrap_or("")
}

fn cluster_ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    spec.ports.iter().flatten().filter_map(|p| p.node_port).filter(|number| *number != 0).collect()
}

fn port_name(port: &ServicePort) -> &str {
    port.name.as_deref().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    /// The new spec as it is stored, with nothing allocated.
    #[track_caller]
    fn check(new: &Value, old: &Value, expected: &Value) {
        let (mut new, old) = (service(new), service(old));
        inherit(new.spec.as_mut().unwrap(), old.spec.as_ref());
        drop_type_dependent(&mut new, &old);
        assert_eq!(&serde_json::to_value(new.spec).unwrap(), expected);
    }

    #[test]
    fn a_client_of_one_name_of_the_address_is_served() {
        let mut spec = service(&json!({"clusterIP": "10.96.0.7"})).spec.unwrap();
        inherit(&mut spec, None);
        assert_eq!(spec.cluster_ips, Some(vec!["10.96.0.7".to_owned()]));
        let old = json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]});
        check(&json!({"type": "ClusterIP"}), &old, &old);
        check(&json!({"type": "ClusterIP", "clusterIP": "10.96.0.7"}), &old, &old);
        check(&json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.7"]}), &old, &old);
        let moved = json!({"type": "ClusterIP", "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]});
        check(&json!({"type": "ClusterIP", "clusterIP": "10.96.0.8"}), &old, &moved);
        check(&json!({"type": "ClusterIP", "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.7"]}), &old, &moved);
    }

    #[test]
    fn node_ports_stay_with_the_names_of_ports() {
        let old = json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]});
        check(
            &json!({"type": "NodePort", "ports": [{"name": "b", "port": 9081}, {"name": "a", "port": 9080}]}),
            &old,
            &json!({"type": "NodePort", "ports": [
                {"name": "b", "port": 9081, "nodePort": 30002}, {"name": "a", "port": 9080, "nodePort": 30001}]}),
        );
        // Another port claims the number.
        check(
            &json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30001}]}),
            &old,
            &json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30001}]}),
        );
    }

    #[test]
    fn what_the_new_type_has_no_use_for_goes_unless_it_was_changed() {
        let old = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30009,
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b",
            "ports": [{"port": 80, "nodePort": 30001}],
        });
        let with_type = |kind: &str| {
            let mut new = old.clone();
            new["type"] = json!(kind);
            new
        };
        check(
            &with_type("ClusterIP"),
            &old,
            &json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80}]}),
        );
        check(&with_type("ExternalName"), &old, &json!({"type": "ExternalName", "ports": [{"port": 80}]}));
        let mut new = with_type("ClusterIP");
        new["ports"][0]["nodePort"] = json!(30777);
        new["healthCheckNodePort"] = json!(30778);
        check(
            &new,
            &old,
            &json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "healthCheckNodePort": 30778,
                "ports": [{"port": 80, "nodePort": 30777}]}),
        );
    }

    #[test]
    fn a_service_that_is_no_load_balancer_any_more_has_no_address_of_one() {
        let mut old = service(&json!({"type": "LoadBalancer"}));
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        old.status = Some(serde_json::from_value(ingress).unwrap());
        let mut new = old.clone();
        drop_type_dependent(&mut new, &old);
        assert_eq!(new.status, old.status);
        new.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
        drop_type_dependent(&mut new, &old);
        assert_eq!(new.status.unwrap().load_balancer, Some(LoadBalancerStatus::default()));
    }
}
