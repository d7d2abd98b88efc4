//! One decision about one pod: filter the nodes, score those that pass, or say why none does.

use std::collections::{BTreeMap, HashSet};

use rand::seq::IndexedRandom;

use crate::cache::Cache;
use crate::framework::{Candidate, Filter, Pending, Rejection, Remedy, View};
use crate::node_info::NodeInfo;
use crate::plugins;
use crate::preemption::{self, Preemption};

/// The name under which pods wait for volumes.
pub(crate) const VOLUMES: &str = "VolumeBinding";

/// What became of the pod in this cycle.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    Place {
        node: String,
    },
    /// Nothing fits; `preempt` makes room for a later try.
    Unschedulable {
        message: String,
        plugins: HashSet<&'static str>,
        preempt: Option<Preemption>,
    },
}

/// Nodes that refuse the pod, with their reasons.
#[derive(Default)]
pub(crate) struct Diagnosis {
    pub rejections: BTreeMap<String, Rejection>,
}

/// Decides about `pending`. `rng` breaks ties between equal nodes.
pub(crate) fn decide(pending: &Pending<'_>, cache: &Cache, rng: &mut impl rand::Rng) -> Decision {
    let total = cache.nodes().count();
    if total == 0 {
        let plugins = HashSet::from(["NodeName"]);
        return Decision::Unschedulable {
            message: "no nodes available to schedule pods".to_owned(),
            plugins,
            preempt: None,
        };
    }
    let none = HashSet::new();
    let view = View { cache, without: &none };
    let mut diagnosis = Diagnosis::default();
    let feasible = feasible(pending, view, &mut diagnosis);
    match feasible.as_slice() {
        [] => unschedulable(pending, cache, total, &diagnosis),
        [only] => Decision::Place { node: only.node.name().to_owned() },
        several => Decision::Place { node: best(pending, view, several, rng) },
    }
}

fn feasible<'a>(pending: &'a Pending<'a>, view: View<'a>, diagnosis: &mut Diagnosis) -> Vec<Candidate<'a>> {
    let filters = plugins::filters(pending, view);
    let mut out = Vec::new();
    for (node, info) in view.cache.nodes() {
        match passes(&filters, pending, view.cache, Candidate { node, info }) {
            Ok(()) => out.push(Candidate { node, info }),
            Err(rejection) => {
                diagnosis.rejections.insert(node.name().to_owned(), rejection);
            }
        }
    }
    out
}

/// A node must also have room beside the pods that were promised it by a preemption.
fn passes(
    filters: &[Box<dyn Filter + '_>],
    pending: &Pending<'_>,
    cache: &Cache,
    candidate: Candidate<'_>,
) -> Result<(), Rejection> {
    let mut promised = cache.nominated_to(candidate.node.name(), pending.info.priority, pending.info.uid()).peekable();
    if promised.peek().is_some() {
        let mut info: NodeInfo = candidate.info.clone();
        promised.for_each(|pod| info.add(pod.clone()));
        run(filters, Candidate { node: candidate.node, info: &info })?;
    }
    run(filters, candidate)
}

/// The first filter that refuses decides, as upstream's order has it.
pub(crate) fn run(filters: &[Box<dyn Filter + '_>], candidate: Candidate<'_>) -> Result<(), Rejection> {
    filters.iter().try_for_each(|f| f.filter(candidate))
}

fn best(pending: &Pending<'_>, view: View<'_>, nodes: &[Candidate<'_>], rng: &mut impl rand::Rng) -> String {
    let mut totals = vec![0i64; nodes.len()];
    for plugin in plugins::scores(pending, view) {
        let mut scores: Vec<i64> = nodes.iter().map(|&c| plugin.score(c)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let top = totals.iter().copied().max().unwrap_or(0);
    let winners: Vec<&Candidate<'_>> = nodes.iter().zip(&totals).filter(|&(_, t)| *t == top).map(|(c, _)| c).collect();
    winners.choose(rng).expect("at least one node has the top score").node.name().to_owned()
}

fn unschedulable(pending: &Pending<'_>, cache: &Cache, total: usize, diagnosis: &Diagnosis) -> Decision {
    let plugins = diagnosis.rejections.values().map(|r| r.plugin).collect();
    let reasons = diagnosis.rejections.values().flat_map(|r| r.reasons.iter().map(String::as_str));
    let mut message = fit_error(total, reasons);
    let preempt = match preemption::plan(pending, cache, diagnosis) {
        Ok(preemption) => Some(preemption),
        Err(why) => {
            message.push_str(&unhelped(&why.message(total)));
            None
        }
    };
    Decision::Unschedulable { message, plugins, preempt }
}

/// What came of asking for room after nothing fitted. The first words are of the plugin for dynamic
/// resources, which upstream asks first and for every pod.
pub(crate) fn unhelped(preemption: &str) -> String {
    format!(" no new claims to deallocate, {preemption}")
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`, as upstream words it.
pub(crate) fn fit_error<'a>(total: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort();
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}

impl Diagnosis {
    /// Nodes on which removing pods may help.
    pub(crate) fn preemptable(&self) -> impl Iterator<Item = &str> {
        self.rejections.iter().filter(|(_, r)| r.remedy == Remedy::Preemption).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests;
