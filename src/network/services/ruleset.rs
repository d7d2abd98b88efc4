//! All rules that depend on services, as values that can be compared, and the way from one state to
//! another.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::ServiceTableConfig;
use super::chain::{Chain, Frontend, Rule, Scope, Sticky, clients, endpoint_map, pick_map};
use super::skeleton::{reject, unserved_map, verdict_map};
use crate::nft::{self, Batch, Element, Field, Set, Value, Verdict};

/// What an address or node port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Chain(Chain),
    Drop,
}

/// An element of one of the endpoint maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) frontend: Frontend,
    pub(super) scope: Scope,
    pub(super) number: u32,
}

/// The rules of a list of services.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<Chain, Vec<Rule>>,
    pub(super) targets: BTreeMap<Frontend, Target>,
    pub(super) slots: BTreeMap<Slot, SocketAddrV4>,
    /// Frontends that have no endpoint at all.
    pub(super) unserved: BTreeMap<Frontend, ()>,
    /// Sets of clients, with the time after which one is forgotten.
    pub(super) clients: BTreeMap<(Sticky, SocketAddrV4), Duration>,
    /// Maps from a number to the chain of an endpoint.
    pub(super) picks: BTreeMap<(Sticky, Scope), Vec<SocketAddrV4>>,
}

impl Ruleset {
    /// Writes what turns these rules into `new`. Nothing may be deleted while something refers to
    /// it, so references go first (rules, then elements), then chains, then sets; and come back
    /// in the opposite order.
    pub(super) fn change_to(&self, new: &Self, config: &ServiceTableConfig, batch: &mut Batch<'_>) {
        let chains = Difference::between(&self.chains, &new.chains);
        let targets = Difference::between(&self.targets, &new.targets);
        let slots = Difference::between(&self.slots, &new.slots);
        let unserved = Difference::between(&self.unserved, &new.unserved);
        let stays = Difference::between(&self.clients, &new.clients);
        let picks = Difference::between(&self.picks, &new.picks);

        for chain in chains.outdated() {
            batch.flush_chain(&chain.to_string());
        }
        delete(batch, targets.outdated().map(|f| (verdict_map(f.kind()), f.key())));
        delete(batch, unserved.outdated().map(|f| (unserved_map(f.kind()), f.key())));
        delete(batch, slots.outdated().map(slot_key));
        for (service, scope) in picks.outdated() {
            batch.flush_set(&pick_map(*service, *scope));
        }
        for chain in &chains.removed {
            batch.delete_chain(&chain.to_string());
        }
        for (service, scope) in picks.outdated() {
            batch.delete_set(&pick_map(*service, *scope));
        }
        for (service, to) in stays.outdated() {
            batch.delete_set(&clients(*service, *to));
        }

        stays.fresh().for_each(|((service, to), timeout)| add_clients(batch, *service, *to, *timeout));
        picks.fresh().for_each(|((service, scope), _)| add_pick(batch, *service, *scope));
        for (chain, _) in &chains.added {
            batch.add_chain(&chain.to_string());
        }
        for (chain, rules) in chains.fresh() {
            let name = chain.to_string();
            rules.iter().for_each(|rule| batch.add_rule(&name, &rule.expressions(config)));
        }
        for ((service, scope), endpoints) in picks.fresh() {
            batch.add_elements(&pick_map(*service, *scope), &pick_elements(*service, endpoints));
        }
        add(
            batch,
            slots.fresh().map(|(slot, to)| {
                let (map, key) = slot_key(slot);
                (map, Element::Socket(key, *to))
            }),
        );
        add(
            batch,
            targets.fresh().map(|(f, target)| (verdict_map(f.kind()), Element::Verdict(f.key(), verdict(*target)))),
        );
        add(batch, unserved.fresh().map(|(f, ())| (unserved_map(f.kind()), Element::Verdict(f.key(), reject()))));
    }
}

/// How two maps differ, in the order of their keys.
struct Difference<'a, K, V> {
    removed: Vec<&'a K>,
    changed: Vec<(&'a K, &'a V)>,
    added: Vec<(&'a K, &'a V)>,
}

impl<'a, K: Ord, V: PartialEq> Difference<'a, K, V> {
    fn between(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> Self {
        let removed = old.keys().filter(|key| !new.contains_key(key)).collect();
        let (mut changed, mut added) = (Vec::new(), Vec::new());
        for (key, value) in new {
            match old.get(key) {
                None => added.push((key, value)),
                Some(before) if before != value => changed.push((key, value)),
                Some(_) => (),
            }
        }
        Self { removed, changed, added }
    }

    /// What is there and must go, perhaps to come back with another value.
    fn outdated(&self) -> impl Iterator<Item = &'a K> {
        self.removed.iter().copied().chain(self.changed.iter().map(|(key, _)| *key))
    }

    /// What must come, perhaps after it went.
    fn fresh(&self) -> impl Iterator<Item = (&'a K, &'a V)> {
        self.changed.iter().chain(&self.added).copied()
    }
}

fn slot_key(slot: &Slot) -> (&'static str, Vec<u8>) {
    let mut key = slot.frontend.key();
    key.extend(nft::host_number(slot.number));
    (endpoint_map(slot.frontend.kind(), slot.scope), key)
}

fn verdict(target: Target) -> Verdict {
    match target {
        Target::Chain(chain) => Verdict::Goto(chain.to_string()),
        Target::Drop => Verdict::Drop,
    }
}

fn add_clients(batch: &mut Batch<'_>, service: Sticky, to: SocketAddrV4, timeout: Duration) {
    let name = clients(service, to);
    batch.add_set(&Set { name: &name, key: &[Field::Ipv4], value: Value::Nothing, timeout: Some(timeout) });
}

fn add_pick(batch: &mut Batch<'_>, service: Sticky, scope: Scope) {
    let name = pick_map(service, scope);
    batch.add_set(&Set { name: &name, key: &[Field::Mark], value: Value::Verdict, timeout: None });
}

fn pick_elements(service: Sticky, endpoints: &[SocketAddrV4]) -> Vec<Element> {
    (0..)
        .zip(endpoints)
        .map(|(number, to)| {
            let chain = Chain::StickyEndpoint(service, *to).to_string();
            Element::Verdict(nft::host_number(number), Verdict::Goto(chain))
        })
        .collect()
}

fn delete(batch: &mut Batch<'_>, elements: impl Iterator<Item = (&'static str, Vec<u8>)>) {
    for (map, elements) in by_map(elements.map(|(map, key)| (map, Element::Key(key)))) {
        batch.delete_elements(map, &elements);
    }
}

fn add(batch: &mut Batch<'_>, elements: impl Iterator<Item = (&'static str, Element)>) {
    for (map, elements) in by_map(elements) {
        batch.add_elements(map, &elements);
    }
}

/// Elements of one map share messages.
fn by_map(elements: impl Iterator<Item = (&'static str, Element)>) -> BTreeMap<&'static str, Vec<Element>> {
    let mut maps: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (map, element) in elements {
        maps.entry(map).or_default().push(element);
    }
    maps
}
