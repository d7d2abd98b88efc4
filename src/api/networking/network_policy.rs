//! Network policies: which peers and ports a policy may name.

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::core::pod::validate_protocol;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::{format, validate_label_selector};

pub(crate) struct NetworkPolicy;

impl Kind for NetworkPolicy {
    type Object = api::NetworkPolicy;

    fn default(&self, obj: &mut api::NetworkPolicy) {
        let Some(spec) = obj.spec.as_mut() else { return };
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(&self, obj: &api::NetworkPolicy, errs: &mut ErrorList) {
        let Some(spec) = obj.spec.as_ref() else { return };
        let path = Path::new("spec");
        validate_label_selector(spec.pod_selector.as_ref(), &path.child("podSelector"), errs);
        let list = path.child("ingress");
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let at = list.index(i);
            validate_ports(rule.ports.as_deref().unwrap_or_default(), &at.child("ports"), errs);
            validate_peers(rule.from.as_deref().unwrap_or_default(), &at.child("from"), errs);
        }
        let list = path.child("egress");
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            let at = list.index(i);
            validate_ports(rule.ports.as_deref().unwrap_or_default(), &at.child("ports"), errs);
            validate_peers(rule.to.as_deref().unwrap_or_default(), &at.child("to"), errs);
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let at = path.child("policyTypes");
        if types.len() > 2 {
            errs.push(field::invalid(&at, types, "may not specify more than two policyTypes"));
            return;
        }
        for (i, kind) in types.iter().enumerate().filter(|(_, t)| !["Ingress", "Egress"].contains(&t.as_str())) {
            if errs.is_full() {
                break;
            }
            errs.push(field::not_supported(&at.index(i), kind, &["Egress", "Ingress"]));
        }
    }
}

fn validate_ports(ports: &[api::NetworkPolicyPort], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, port) in ports.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if let Some(protocol) = port.protocol.as_deref() {
            validate_protocol(Some(protocol), &at.child("protocol"), errs);
        }
        match (port.port.as_ref(), port.end_port) {
            (Some(IntOrString::Int(number)), end) => {
                field::invalid_each(&at.child("port"), number, format::port_number(i64::from(*number)), errs);
                if let Some(end) = end {
                    if end < *number {
                        errs.push(field::invalid(
                            &at.child("endPort"),
                            &end,
                            "must be greater than or equal to `port`",
                        ));
                    }
                    field::invalid_each(&at.child("endPort"), &end, format::port_number(i64::from(end)), errs);
                }
            }
            (Some(IntOrString::String(name)), end) => {
                field::invalid_each(&at.child("port"), name, format::port_name(name), errs);
                if let Some(end) = end {
                    let why = "may not be specified when `port` is non-numeric";
                    errs.push(field::invalid(&at.child("endPort"), &end, why));
                }
            }
            (None, Some(end)) => {
                let why = "may not be specified when `port` is not specified";
                errs.push(field::invalid(&at.child("endPort"), &end, why));
            }
            (None, None) => {}
        }
    }
}

fn validate_peers(peers: &[api::NetworkPolicyPeer], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, peer) in peers.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        validate_label_selector(peer.pod_selector.as_ref(), &at.child("podSelector"), errs);
        validate_label_selector(peer.namespace_selector.as_ref(), &at.child("namespaceSelector"), errs);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match peer.ip_block.as_ref() {
            None if !selects => errs.push(field::required(&at, "must specify a peer")),
            None => {}
            Some(block) => {
                if selects {
                    errs.push(field::forbidden(&at, "may not specify both ipBlock and another peer"));
                }
                validate_block(block, &at.child("ipBlock"), errs);
            }
        }
    }
}

fn validate_block(block: &api::IPBlock, path: &Path<'_>, errs: &mut ErrorList) {
    if block.cidr.is_empty() {
        errs.push(field::required(&path.child("cidr"), ""));
        return;
    }
    field::invalid_each(&path.child("cidr"), &block.cidr, format::cidr(&block.cidr), errs);
    let whole = block.cidr.parse::<ipnet::IpNet>().ok();
    let list = path.child("except");
    for (i, except) in block.except.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = list.index(i);
        field::invalid_each(&at, except, format::cidr(except), errs);
        if let (Some(whole), Ok(part)) = (whole, except.parse::<ipnet::IpNet>())
            && (!whole.contains(&part) || whole.trunc() == part.trunc())
        {
            errs.push(field::invalid(&at, except, format!("must be a strict subset of `cidr`: {}", block.cidr)));
        }
    }
}
