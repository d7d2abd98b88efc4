//! Affinity and anti-affinity between pods, over topologies of nodes.

use std::collections::{HashMap, HashSet};

use api::object::ObjectIndex;

use crate::framework::{Candidate, Filter, MAX_SCORE, Rejection, Remedy, Score, View};
use crate::pod_info::PodInfo;
use crate::terms::{AffinityTerm, Labels};

pub(crate) const NAME: &str = "InterPodAffinity";

/// A topology key with one of its values: a set of nodes.
type Domain = (Box<str>, Box<str>);

fn domain(term: &AffinityTerm, labels: &Labels) -> Option<Domain> {
    labels.get(&term.topology_key).map(|value| (term.topology_key.clone(), value.clone()))
}

/// The hard part, with the domains counted once for all nodes.
pub(crate) struct Required<'a> {
    pod: &'a PodInfo,
    /// Domains in which a pod runs that must not be near this one, by its own wish.
    refused: HashSet<Domain>,
    /// For each anti-affinity term of this pod: domains with a pod that it matches.
    avoided: Vec<HashSet<Domain>>,
    /// Domains with a pod that all affinity terms match, for each term.
    sought: Vec<HashSet<Domain>>,
    /// Nobody anywhere matches, but the pod itself would: the first of a group may start.
    first_of_its_kind: bool,
}

impl<'a> Required<'a> {
    pub(crate) fn new(pod: &'a PodInfo, view: View<'a>) -> Self {
        let namespace_of = |index: &ObjectIndex| view.cache.namespaces.get(&index.key.namespace);
        let own_namespace = namespace_of(&pod.index);
        let mut refused = HashSet::new();
        let mut avoided = vec![HashSet::new(); pod.anti_affinity.len()];
        let mut sought = vec![HashSet::new(); pod.affinity.len()];
        for (node, other) in view.pods() {
            let their_namespace = namespace_of(&other.index);
            for term in &other.anti_affinity {
                if term.matches(&pod.index, own_namespace) {
                    refused.extend(domain(term, node.labels()));
                }
            }
            for (term, domains) in pod.anti_affinity.iter().zip(&mut avoided) {
                if term.matches(&other.index, their_namespace) {
                    domains.extend(domain(term, node.labels()));
                }
            }
            if pod.affinity.iter().all(|t| t.matches(&other.index, their_namespace)) {
                for (term, domains) in pod.affinity.iter().zip(&mut sought) {
                    domains.extend(domain(term, node.labels()));
                }
            }
        }
        let matches_itself = pod.affinity.iter().all(|t| t.matches(&pod.index, own_namespace));
        let first_of_its_kind = matches_itself && sought.iter().all(HashSet::is_empty);
        Self { pod, refused, avoided, sought, first_of_its_kind }
    }

    fn affinity_holds(&self, labels: &Labels) -> bool {
        let terms = || self.pod.affinity.iter().zip(&self.sought);
        let in_sought = terms().all(|(term, domains)| domain(term, labels).is_some_and(|d| domains.contains(&d)));
        in_sought || (self.first_of_its_kind && terms().all(|(term, _)| domain(term, labels).is_some()))
    }
}

impl Filter for Required<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        let labels = candidate.node.labels();
        if !self.affinity_holds(labels) {
            return Err(Rejection::new(NAME, "node(s) didn't match pod affinity rules", Remedy::None));
        }
        let mut own = self.pod.anti_affinity.iter().zip(&self.avoided);
        if own.any(|(term, domains)| domain(term, labels).is_some_and(|d| domains.contains(&d))) {
            return Err(Rejection::new(NAME, "node(s) didn't match pod anti-affinity rules", Remedy::Preemption));
        }
        if self.refused.iter().any(|(key, value)| labels.get(key) == Some(value)) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::new(NAME, reason, Remedy::Preemption));
        }
        Ok(())
    }
}

/// The soft part: weights summed over domains, of this pod's wishes and of its neighbours'.
pub(crate) struct Preferred {
    weights: HashMap<Domain, i64>,
}

/// What a running pod's hard affinity adds when it fits the new pod (upstream's
/// `hardPodAffinityWeight`).
const HARD_AFFINITY_WEIGHT: i64 = 1;

impl Preferred {
    pub(crate) fn new(pod: &PodInfo, view: View<'_>) -> Option<Self> {
        let mut weights: HashMap<Domain, i64> = HashMap::new();
        let own_namespace = view.cache.namespaces.get(&pod.index.key.namespace);
        for (node, other) in view.pods() {
            let their_namespace = view.cache.namespaces.get(&other.index.key.namespace);
            let mine = pod.preferred.iter().filter(|w| w.term.matches(&other.index, their_namespace));
            let theirs = other.preferred.iter().filter(|w| w.term.matches(&pod.index, own_namespace));
            let weighted = mine.chain(theirs).map(|w| (&w.term, w.weight));
            let hard = other.affinity.iter().filter(|t| t.matches(&pod.index, own_namespace));
            for (term, weight) in weighted.chain(hard.map(|t| (t, HARD_AFFINITY_WEIGHT))) {
                if let Some(domain) = domain(term, node.labels()) {
                    *weights.entry(domain).or_insert(0) += weight;
                }
            }
        }
        (!weights.is_empty()).then_some(Self { weights })
    }
}

impl Score for Preferred {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let labels = candidate.node.labels();
        self.weights.iter().filter(|((key, value), _)| labels.get(key) == Some(value)).map(|(_, w)| w).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (min, max) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if max > min { (*score - min) * MAX_SCORE / (max - min) } else { 0 };
        }
    }
}
