//! Making room for a pod by removing pods of lower priority.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cycle::{Diagnosis, fit_error, run};
use crate::framework::{Candidate, Pending, View};
use crate::node_info::NodeInfo;
use crate::plugins;
use crate::pod_info::PodInfo;

/// The node that is freed and the pods that leave it.
#[derive(Debug)]
pub(crate) struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

impl PartialEq for Preemption {
    fn eq(&self, other: &Self) -> bool {
        let uids = |p: &Self| p.victims.iter().map(|v| v.uid().to_owned()).collect::<Vec<_>>();
        self.node == other.node && uids(self) == uids(other)
    }
}

/// Why nobody is preempted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unhelpful {
    /// `preemptionPolicy: Never`.
    PolicyNever,
    /// Victims of an earlier preemption are still on their way out.
    Waiting,
    /// How many nodes have no pods whose removal suffices, and on how many no removal can help.
    NoCandidate { no_victims: usize, not_helpful: usize },
}

impl Unhelpful {
    /// The second half of the event, in upstream's words.
    pub(crate) fn message(&self, total: usize) -> String {
        match self {
            Self::PolicyNever => "preemption: not eligible due to preemptionPolicy=Never.".to_owned(),
            Self::Waiting => "preemption: not eligible due to a terminating pod on the nominated node.".to_owned(),
            Self::NoCandidate { no_victims, not_helpful } => {
                let reasons = std::iter::repeat_n("No preemption victims found for incoming pod", *no_victims)
                    .chain(std::iter::repeat_n("Preemption is not helpful for scheduling", *not_helpful));
                format!("preemption: {}", fit_error(total, reasons))
            }
        }
    }
}

/// The cheapest preemption that makes the pod fit somewhere.
pub(crate) fn plan(pending: &Pending<'_>, cache: &Cache, diagnosis: &Diagnosis) -> Result<Preemption, Unhelpful> {
    if pending.spec.preemption_policy.as_deref() == Some("Never") {
        return Err(Unhelpful::PolicyNever);
    }
    if waits_for_victims(pending, cache) {
        return Err(Unhelpful::Waiting);
    }
    let (mut candidates, mut no_victims) = (Vec::new(), 0);
    let mut tried = 0;
    for name in diagnosis.preemptable() {
        tried += 1;
        let Some(info) = cache.node(name) else { continue };
        match victims_on(pending, cache, info) {
            Some(victims) => candidates.push(Preemption { node: name.to_owned(), victims }),
            None => no_victims += 1,
        }
    }
    let not_helpful = diagnosis.rejections.len() - tried;
    candidates.into_iter().min_by_key(cost).ok_or(Unhelpful::NoCandidate { no_victims, not_helpful })
}

/// A pod that was promised a node waits while lower pods there are leaving.
fn waits_for_victims(pending: &Pending<'_>, cache: &Cache) -> bool {
    let nominated = pending.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let Some(info) = nominated.and_then(|n| cache.node(n)) else { return false };
    info.pods.values().any(|p| p.index.deleting && p.priority < pending.info.priority)
}

/// The pods that must leave the node, or `None` when even all lower ones do not suffice. All lower
/// pods are taken away, then put back, the most important first, as long as the pod still fits.
fn victims_on(pending: &Pending<'_>, cache: &Cache, info: &NodeInfo) -> Option<Vec<Arc<PodInfo>>> {
    let node = info.node.as_ref()?;
    let mut lower: Vec<Arc<PodInfo>> =
        info.pods.values().filter(|p| p.priority < pending.info.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(|p| (Reverse(p.priority), p.started.map_or(i64::MAX, |t| t.as_second())));
    let mut left = info.clone();
    let mut without: HashSet<Box<str>> = HashSet::new();
    for pod in &lower {
        left.remove(pod.uid());
        without.insert(pod.uid().into());
    }
    let fits = |left: &NodeInfo, without: &HashSet<Box<str>>| {
        let filters = plugins::filters(pending, View { cache, without });
        run(&filters, Candidate { node, info: left }).is_ok()
    };
    if !fits(&left, &without) {
        return None;
    }
    let mut victims = Vec::new();
    for pod in lower {
        left.add(pod.clone());
        without.remove(pod.uid());
        if !fits(&left, &without) {
            left.remove(pod.uid());
            without.insert(pod.uid().into());
            victims.push(pod);
        }
    }
    (!victims.is_empty()).then_some(victims)
}

/// Upstream's order of preference: the lowest highest priority, the lowest sum, the fewest pods,
/// then the one whose most important victims started last.
fn cost(p: &Preemption) -> (i32, i64, usize, Reverse<i64>) {
    let highest = p.victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    // Shifted, so that several negative priorities do not weigh less than one.
    let sum = p.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    let important = p.victims.iter().filter(|v| v.priority == highest);
    let started = important.filter_map(|v| v.started.map(|t| t.as_second())).min().unwrap_or(0);
    (highest, sum, p.victims.len(), Reverse(started))
}
