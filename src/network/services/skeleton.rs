//! The part of the table that does not depend on services: maps, base chains and their rules.

use super::ServiceTableConfig;
use super::chain::{FrontendKind, Scope, endpoint_map};
use crate::nft::{
    Batch, ChainKind, Comparison, ConnectionField, Expressions, Field, Hook, MetaField, NEW_CONNECTION, Set, Value,
    Verdict,
};

/// Between translation in prerouting or output and masquerading in postrouting, in the packet's
/// mark. The bit is kube-proxy's, which other software leaves alone.
const MASQUERADE_MARK: u32 = 0x4000;

const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// Before any filter of the user's: those would see a NodePort without endpoints as a local port.
const BEFORE_FILTERS: i32 = -110;
/// After destination NAT: only what no service claimed is still for the service range.
const FILTER: i32 = 0;

const DISPATCH: &str = "dispatch";
const UNSERVED: &str = "unserved";
const REJECT: &str = "reject";

/// The map from a frontend to the chain that serves it.
pub(super) fn verdict_map(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::Address => "services",
        FrontendKind::NodePort => "node-ports",
    }
}

/// The map of frontends without endpoints.
pub(super) fn unserved_map(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::Address => "unserved-services",
        FrontendKind::NodePort => "unserved-node-ports",
    }
}

/// What happens to a frontend without endpoints.
pub(super) fn reject() -> Verdict {
    Verdict::Goto(REJECT.to_owned())
}

/// The key of a frontend's maps, and of its endpoints' maps when a number is added.
fn key(kind: FrontendKind) -> &'static [Field] {
    match kind {
        FrontendKind::Address => &[Field::Ipv4, Field::Protocol, Field::Port, Field::Mark],
        FrontendKind::NodePort => &[Field::Protocol, Field::Port, Field::Mark],
    }
}

/// Reads what the packet is addressed to into registers from 0; gives the next free one.
pub(super) fn read_frontend(start: Expressions, kind: FrontendKind) -> (Expressions, u32) {
    match kind {
        FrontendKind::Address => (start.destination(0).meta(1, MetaField::TransportProtocol).destination_port(2), 3),
        FrontendKind::NodePort => (start.meta(0, MetaField::TransportProtocol).destination_port(1), 2),
    }
}

pub(super) fn mark_for_masquerade(start: Expressions) -> Expressions {
    start
        .meta(0, MetaField::Mark)
        .mask(0, (!MASQUERADE_MARK).to_ne_bytes(), MASQUERADE_MARK.to_ne_bytes())
        .set_meta(0, MetaField::Mark)
}

/// Replaces the table by one without services.
pub(super) fn declare(batch: &mut Batch<'_>, config: &ServiceTableConfig) {
    batch.replace_table();
    for kind in [FrontendKind::Address, FrontendKind::NodePort] {
        let with_number = key(kind);
        let frontend = &with_number[..with_number.len() - 1];
        let set = |name, key, value| Set { name, key, value, timeout: None };
        batch.add_set(&set(verdict_map(kind), frontend, Value::Verdict));
        batch.add_set(&set(unserved_map(kind), frontend, Value::Verdict));
        for scope in [Scope::Primary, Scope::Local] {
            batch.add_set(&set(endpoint_map(kind, scope), with_number, Value::Socket));
        }
    }
    for chain in [DISPATCH, UNSERVED, REJECT] {
        batch.add_chain(chain);
    }
    declare_reject(batch);
    declare_translation(batch);
    declare_unserved(batch);
    declare_service_range(batch, config);
}

fn declare_reject(batch: &mut Batch<'_>) {
    const TCP: u8 = 6;
    let tcp = Expressions::default().meta(0, MetaField::TransportProtocol).compare(0, Comparison::Equal, &[TCP]);
    batch.add_rule(REJECT, &tcp.reject_with_reset());
    batch.add_rule(REJECT, &Expressions::default().reject_as_unreachable());
}

fn declare_translation(batch: &mut Batch<'_>) {
    batch.add_rule(DISPATCH, &look_up(FrontendKind::Address, verdict_map));
    batch.add_rule(DISPATCH, &look_up(FrontendKind::NodePort, verdict_map));
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.add_base_chain(name, ChainKind::Nat, hook, DESTINATION_NAT);
        batch.add_rule(name, &Expressions::default().verdict(&Verdict::Jump(DISPATCH.to_owned())));
    }
    batch.add_base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, SOURCE_NAT);
    let masquerade = Expressions::default()
        .meta(0, MetaField::Mark)
        .mask(0, MASQUERADE_MARK.to_ne_bytes(), [0; 4])
        .compare(0, Comparison::NotEqual, &[0; 4])
        // Without the mark, lest it follows the packet through a tunnel.
        .meta(0, MetaField::Mark)
        .mask(0, (!MASQUERADE_MARK).to_ne_bytes(), [0; 4])
        .set_meta(0, MetaField::Mark)
        .masquerade();
    batch.add_rule("postrouting", &masquerade);
}

fn declare_unserved(batch: &mut Batch<'_>) {
    batch.add_rule(UNSERVED, &look_up(FrontendKind::Address, unserved_map));
    batch.add_rule(UNSERVED, &look_up(FrontendKind::NodePort, unserved_map));
    let hooks =
        [("unserved-input", Hook::Input), ("unserved-forward", Hook::Forward), ("unserved-output", Hook::Output)];
    for (name, hook) in hooks {
        batch.add_base_chain(name, ChainKind::Filter, hook, BEFORE_FILTERS);
        let new = Expressions::default().connection_has(0, ConnectionField::State, NEW_CONNECTION);
        batch.add_rule(name, &new.verdict(&Verdict::Jump(UNSERVED.to_owned())));
    }
}

/// Nothing answers at an address of the service range that no service has: say so at once, where a
/// default route would carry the packet out of the house. The DNS server listens on its address.
fn declare_service_range(batch: &mut Batch<'_>, config: &ServiceTableConfig) {
    for (name, hook) in [("service-range-forward", Hook::Forward), ("service-range-output", Hook::Output)] {
        batch.add_base_chain(name, ChainKind::Filter, hook, FILTER);
        let mut rule = Expressions::default().destination_in(0, config.service_cidr, Comparison::Equal);
        if let Some(dns) = config.cluster_dns {
            rule = rule.destination_is(0, dns, Comparison::NotEqual);
        }
        batch.add_rule(name, &rule.verdict(&reject()));
    }
}

fn look_up(kind: FrontendKind, map: impl Fn(FrontendKind) -> &'static str) -> Expressions {
    let start = match kind {
        FrontendKind::Address => Expressions::default(),
        FrontendKind::NodePort => Expressions::default().destination_is_local(0),
    };
    read_frontend(start, kind).0.verdict_map(map(kind), 0)
}
