//! `nodeSelector` and node affinity.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{NodeSelector, PodSpec, PreferredSchedulingTerm};

use crate::framework::{Candidate, Filter, Rejection, Remedy, Score, scale_to_max};
use crate::terms::{node_selector_matches, node_term_matches};

const NAME: &str = "NodeAffinity";

/// The hard part.
pub(crate) struct NodeAffinity<'a> {
    selector: Option<&'a BTreeMap<String, String>>,
    required: Option<&'a NodeSelector>,
}

impl<'a> NodeAffinity<'a> {
    pub(crate) fn new(spec: &'a PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Self {
            selector: spec.node_selector.as_ref(),
            required: affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        }
    }

    pub(crate) fn matches(&self, candidate: Candidate<'_>) -> bool {
        let labels = candidate.node.labels();
        let has = |(key, value): (&String, &String)| labels.get(key.as_str()).is_some_and(|v| **v == **value);
        self.selector.is_none_or(|s| s.iter().all(has))
            && self.required.is_none_or(|r| node_selector_matches(r, candidate.node.name(), labels))
    }
}

impl Filter for NodeAffinity<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        if self.matches(candidate) {
            return Ok(());
        }
        Err(Rejection::new(NAME, "node(s) didn't match Pod's node affinity/selector", Remedy::None))
    }
}

/// The soft part: the sum of the weights of the terms that match.
pub(crate) struct Preferred<'a> {
    terms: &'a [PreferredSchedulingTerm],
}

impl<'a> Preferred<'a> {
    pub(crate) fn new(spec: &'a PodSpec) -> Option<Self> {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_deref()?;
        (!terms.is_empty()).then_some(Self { terms })
    }
}

impl Score for Preferred<'_> {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let (name, labels) = (candidate.node.name(), candidate.node.labels());
        let matching = self.terms.iter().filter(|t| node_term_matches(&t.preference, name, labels));
        matching.map(|t| i64::from(t.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_max(scores);
    }
}
