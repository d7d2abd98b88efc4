//! Topology spread constraints: pods of a kind are kept even over zones, hosts or any other label.

use std::collections::HashMap;

use api::k8s_openapi::api::core::v1::TopologySpreadConstraint;
use api::selector::LabelSelector as Selector;

use super::node_affinity::NodeAffinity;
use super::taint_toleration::TaintToleration;
use crate::framework::{Candidate, Filter, MAX_SCORE, Pending, Rejection, Remedy, Score, View};
use crate::node_info::NodeView;
use crate::terms::{merge_label_keys, parse_selector};

pub(crate) const NAME: &str = "PodTopologySpread";

/// One constraint with the number of matching pods in each domain.
struct Spread {
    key: String,
    max_skew: i64,
    min_domains: i64,
    selector: Option<Selector>,
    counts: HashMap<Box<str>, i64>,
}

impl Spread {
    fn new(constraint: &TopologySpreadConstraint, pending: &Pending<'_>, view: View<'_>) -> Self {
        let mut labels = constraint.label_selector.clone().unwrap_or_default();
        merge_label_keys(&mut labels, constraint.match_label_keys.as_deref(), "In", &pending.info.index.labels);
        let selector = constraint.label_selector.as_ref().and_then(|_| parse_selector(Some(&labels)));
        let mut spread = Self {
            key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            selector,
            counts: HashMap::new(),
        };
        spread.count(constraint, pending, view);
        spread
    }

    /// Only nodes that the pod may use count as domains (`nodeAffinityPolicy`, `nodeTaintsPolicy`).
    fn count(&mut self, constraint: &TopologySpreadConstraint, pending: &Pending<'_>, view: View<'_>) {
        let affinity = NodeAffinity::new(pending.spec);
        let taints = TaintToleration::new(pending.spec);
        let honour_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let honour_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        for (node, info) in view.cache.nodes() {
            let candidate = Candidate { node, info };
            let skipped = (honour_affinity && !affinity.matches(candidate))
                || (honour_taints && Filter::filter(&taints, candidate).is_err());
            let Some(value) = node.labels().get(self.key.as_str()).filter(|_| !skipped) else { continue };
            let pods = info.pods.values().filter(|p| {
                !view.without.contains(p.uid())
                    && p.index.key.namespace == pending.info.index.key.namespace
                    && !p.index.deleting
                    && self.selector.as_ref().is_some_and(|s| s.matches(&p.index.labels))
            });
            let count = i64::try_from(pods.count()).unwrap_or(i64::MAX);
            *self.counts.entry(value.clone()).or_insert(0) += count;
        }
    }

    fn of(&self, node: &NodeView) -> Option<i64> {
        let value = node.labels().get(self.key.as_str())?;
        Some(self.counts.get(value).copied().unwrap_or(0))
    }

    /// The emptiest domain; nothing while there are fewer domains than wanted.
    fn minimum(&self) -> i64 {
        let domains = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if domains < self.min_domains { 0 } else { self.counts.values().copied().min().unwrap_or(0) }
    }
}

fn spreads(pending: &Pending<'_>, view: View<'_>, when: &str) -> Vec<Spread> {
    let constraints = pending.spec.topology_spread_constraints.iter().flatten();
    constraints.filter(|c| c.when_unsatisfiable == when).map(|c| Spread::new(c, pending, view)).collect()
}

/// `DoNotSchedule`.
pub(crate) struct Required<'a> {
    spreads: Vec<Spread>,
    pending: &'a Pending<'a>,
}

impl<'a> Required<'a> {
    pub(crate) fn new(pending: &'a Pending<'a>, view: View<'a>) -> Option<Self> {
        let spreads = spreads(pending, view, "DoNotSchedule");
        (!spreads.is_empty()).then_some(Self { spreads, pending })
    }
}

impl Filter for Required<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        for spread in &self.spreads {
            let Some(count) = spread.of(candidate.node) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::new(NAME, reason, Remedy::None));
            };
            let itself = spread.selector.as_ref().is_some_and(|s| s.matches(&self.pending.info.index.labels));
            if count + i64::from(itself) - spread.minimum() > spread.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::new(NAME, reason, Remedy::Preemption));
            }
        }
        Ok(())
    }
}

/// `ScheduleAnyway`.
pub(crate) struct Preferred {
    spreads: Vec<Spread>,
}

impl Preferred {
    pub(crate) fn new(pending: &Pending<'_>, view: View<'_>) -> Option<Self> {
        let spreads = spreads(pending, view, "ScheduleAnyway");
        (!spreads.is_empty()).then_some(Self { spreads })
    }
}

impl Score for Preferred {
    fn weight(&self) -> i64 {
        2
    }

    /// Matching pods in the node's domains; few domains weigh more, as their difference is larger.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small counts")]
    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let sum: f64 = self
            .spreads
            .iter()
            .map(|spread| {
                let weight = ((spread.counts.len() + 2) as f64).ln();
                let count = spread.of(candidate.node).unwrap_or(i64::from(i32::MAX));
                count as f64 * weight + (spread.max_skew - 1) as f64
            })
            .sum();
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (min, max) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if max == 0 { MAX_SCORE } else { MAX_SCORE * (max + min - *score) / max };
        }
    }
}
