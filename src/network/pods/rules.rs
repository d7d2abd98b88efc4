//! The table `ip coracle-pods`: host ports, masquerading, and the guard of 127.0.0.0/8 and the DNS server.
//!
//! Host ports are elements of two maps, one for ports on a single address and one for ports on all
//! of them. A connection that was translated back to the pod it came from is masqueraded, since
//! the pod would otherwise answer itself directly (hairpin); so is what leaves the cluster, and
//! what comes from 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::{HostPort, NetworkConfig, interface};
use crate::address_records::Record;
use crate::netlink::{Kernel, Socket};
use crate::nft::{
    self, Batch, CONNECTION_STATUS_DNAT, ChainKind, Comparison, ConnectionField, Element, Expressions, FIRST_PACKET,
    Field, Hook, MetaField, NO_CONNECTION, Set, Value, Verdict,
};

const TABLE: &str = "coracle-pods";
const HOST_PORTS: &str = "host-ports";
const ADDRESS_HOST_PORTS: &str = "address-host-ports";
/// Each pod's address twice: a packet from a pod to itself.
const PODS: &str = "pods";

const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// Before any filter of the user's.
const GUARD: i32 = -110;

/// The rules of all pods, as they are loaded.
pub(super) struct PodRules {
    socket: Socket,
    pod_cidr: Ipv4Net,
    cluster_cidr: Ipv4Net,
    cluster_dns: Option<Ipv4Addr>,
}

impl PodRules {
    /// Without anything loaded yet.
    pub(super) fn new(socket: Socket, config: &NetworkConfig) -> Self {
        Self { socket, pod_cidr: config.pod_cidr, cluster_cidr: config.cluster_cidr, cluster_dns: config.cluster_dns }
    }

    pub(super) fn cluster_dns(&self) -> Option<Ipv4Addr> {
        self.cluster_dns
    }

    /// Replaces whatever table there was by one for these pods.
    pub(super) fn load<'r>(&self, pods: impl Iterator<Item = (Ipv4Addr, &'r Record)>) -> Result<(), Kernel> {
        let mut batch = Batch::new(TABLE);
        self.declare(&mut batch);
        for (address, record) in pods {
            add_elements(&mut batch, address, &record.host_ports);
        }
        batch.commit(&self.socket)
    }

    /// False when somebody deleted the table.
    pub(super) fn are_loaded(&self) -> Result<bool, Kernel> {
        nft::table_exists(&self.socket, TABLE)
    }

    /// Adds a pod; it may be there already.
    pub(super) fn add(&self, address: Ipv4Addr, host_ports: &[HostPort]) -> Result<(), Kernel> {
        let mut batch = Batch::new(TABLE);
        add_elements(&mut batch, address, host_ports);
        batch.commit(&self.socket)
    }

    /// Removes a pod; it may be gone already.
    pub(super) fn remove(&self, address: Ipv4Addr, host_ports: &[HostPort]) -> Result<(), Kernel> {
        // Deleting what is not there fails; adding first makes the deletion certain, and as one
        // transaction nothing of it is ever seen.
        let mut batch = Batch::new(TABLE);
        add_elements(&mut batch, address, host_ports);
        each_element(address, host_ports, |set, element| batch.delete_elements(set, &[element]));
        batch.commit(&self.socket)
    }

    fn declare(&self, batch: &mut Batch<'_>) {
        batch.replace_table();
        let set = |name, key, value| Set { name, key, value, timeout: None };
        batch.add_set(&set(PODS, &[Field::Ipv4, Field::Ipv4], Value::Nothing));
        batch.add_set(&set(HOST_PORTS, &[Field::Protocol, Field::Port], Value::Socket));
        batch.add_set(&set(ADDRESS_HOST_PORTS, &[Field::Ipv4, Field::Protocol, Field::Port], Value::Socket));
        for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
            batch.add_base_chain(name, ChainKind::Nat, hook, DESTINATION_NAT);
            if let Some(dns) = self.cluster_dns {
                // It is an address of the node; no pod's host port may take cluster DNS away from the others.
                batch.add_rule(
                    name,
                    &Expressions::default().destination_is(0, dns, Comparison::Equal).verdict(&Verdict::Accept),
                );
            }
            batch.add_rule(name, &port_of_one_address());
            batch.add_rule(name, &port_of_all_addresses());
        }
        batch.add_base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, SOURCE_NAT);
        for rule in [hairpin(), from_loopback(), leaves_the_cluster(self.pod_cidr, self.cluster_cidr)] {
            batch.add_rule("postrouting", &rule);
        }
        batch.add_base_chain("guard", ChainKind::Filter, Hook::Input, GUARD);
        for rule in loopback_from_outside() {
            batch.add_rule("guard", &rule);
        }
        if let Some(dns) = self.cluster_dns {
            batch.add_rule("guard", &dns_from_outside(dns));
        }
    }
}

fn add_elements(batch: &mut Batch<'_>, address: Ipv4Addr, host_ports: &[HostPort]) {
    each_element(address, host_ports, |set, element| batch.add_elements(set, &[element]));
}

fn each_element(address: Ipv4Addr, host_ports: &[HostPort], mut visit: impl FnMut(&str, Element)) {
    visit(PODS, Element::Key([address.octets(), address.octets()].concat()));
    for port in host_ports {
        let to = SocketAddrV4::new(address, port.container_port);
        match port.address() {
            Some(at) => {
                visit(ADDRESS_HOST_PORTS, Element::Socket(nft::socket_key(at, port.protocol, port.host_port), to));
            }
            None => visit(HOST_PORTS, Element::Socket(nft::protocol_port(port.protocol, port.host_port), to)),
        }
    }
}

/// As with upstream's plugin only at addresses of this host: at any other, a pod would take it away from
/// whoever has it.
fn port_of_one_address() -> Expressions {
    Expressions::default()
        .destination_is_local(0)
        .destination(0)
        .meta(1, MetaField::TransportProtocol)
        .destination_port(2)
        .map(ADDRESS_HOST_PORTS, 0, 0)
        .translate_destination(0, 1)
}

fn port_of_all_addresses() -> Expressions {
    Expressions::default()
        .destination_is_local(0)
        .meta(0, MetaField::TransportProtocol)
        .destination_port(1)
        .map(HOST_PORTS, 0, 0)
        .translate_destination(0, 1)
}

fn hairpin() -> Expressions {
    Expressions::default()
        .source(0)
        .destination(1)
        .found_in(PODS, 0)
        .connection_has(2, ConnectionField::Status, CONNECTION_STATUS_DNAT)
        .masquerade()
}

fn loopback() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)
}

fn from_loopback() -> Expressions {
    Expressions::default()
        .link_is(0, MetaField::OutputName, Comparison::NotEqual, "lo")
        .source_in(0, loopback(), Comparison::Equal)
        .masquerade()
}

fn leaves_the_cluster(pods: Ipv4Net, cluster: Ipv4Net) -> Expressions {
    Expressions::default()
        .source_in(0, pods, Comparison::Equal)
        .destination_in(0, cluster, Comparison::NotEqual)
        .masquerade()
}

/// `route_localnet` would let the neighbours on a link reach what listens on 127.0.0.1. Nothing passes but
/// replies to our own connections, and what this host itself translated to such an address.
fn loopback_from_outside() -> [Expressions; 2] {
    let from_outside = || {
        Expressions::default().link_is(0, MetaField::InputName, Comparison::NotEqual, "lo").destination_in(
            0,
            loopback(),
            Comparison::Equal,
        )
    };
    let of_no_connection = from_outside().connection_has(0, ConnectionField::State, NO_CONNECTION);
    let first = from_outside().connection_has(0, ConnectionField::State, FIRST_PACKET).connection_lacks(
        0,
        ConnectionField::Status,
        CONNECTION_STATUS_DNAT,
    );
    [of_no_connection, first].map(|rule| rule.verdict(&Verdict::Drop))
}

/// The DNS server is there for this node and its pods. Whoever routes its address to us from elsewhere
/// would have an open resolver.
fn dns_from_outside(dns: Ipv4Addr) -> Expressions {
    Expressions::default()
        .link_is(0, MetaField::InputName, Comparison::NotEqual, "lo")
        .link_starts_with(0, MetaField::InputName, Comparison::NotEqual, interface::PREFIX)
        .destination_is(0, dns, Comparison::Equal)
        .verdict(&Verdict::Drop)
}
