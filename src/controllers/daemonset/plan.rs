//! One round of a DaemonSet: which nodes lack a pod, which pods go, and the status.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};

use super::pods::{GENERATION_LABEL, HASH_LABEL, Place, place, template_generation};
use crate::nodes::NodeView;
use crate::percent::{Round as Rounding, scaled};
use crate::pods::{Phase, PodView};

/// Pods made or deleted in one round, as upstream bounds it.
const BURST: usize = 250;

#[derive(Debug)]
pub(super) struct Plan {
    /// Names of nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<PodView>,
    /// Pods among the deleted that ended by themselves, for their events.
    pub(super) ended: Vec<PodView>,
    pub(super) status: DaemonSetStatus,
    pub(super) recheck: Option<Duration>,
}

struct Round<'a> {
    spec: &'a DaemonSetSpec,
    hash: &'a str,
    /// How often the template changed, where the set says so.
    generation: Option<&'a str>,
    now: Timestamp,
    /// Every known node with whether a daemon belongs there.
    nodes: BTreeMap<&'a str, Place>,
    /// Pods by the node that they run on or are made for, oldest first.
    pods: BTreeMap<&'a str, Vec<&'a PodView>>,
}

pub(super) fn plan(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    nodes: &[NodeView],
    pods: &[PodView],
    hash: &str,
    now: Timestamp,
) -> Plan {
    let template = spec.template.spec.clone().unwrap_or_default();
    let generation = template_generation(set);
    let places = nodes.iter().map(|n| (n.name(), place(&template, n))).collect();
    let round = Round { spec, hash, generation, now, nodes: places, pods: by_node(pods) };
    let mut plan =
        Plan { create: Vec::new(), delete: Vec::new(), ended: Vec::new(), status: round.status(set), recheck: None };
    if set.metadata.deletion_timestamp.is_none() {
        round.place_pods(&mut plan);
        // Rolling starts from what stands, once every node has its pod.
        if plan.create.is_empty() && plan.delete.is_empty() {
            round.roll(&mut plan);
        }
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    plan.recheck = pods.iter().filter_map(|p| p.available_in(min_ready, now)).filter(|d| !d.is_zero()).min();
    plan
}

fn by_node(pods: &[PodView]) -> BTreeMap<&str, Vec<&PodView>> {
    let mut by_node: BTreeMap<&str, Vec<&PodView>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = pod.target_node() {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        // One that runs comes before one that waits, then the older.
        pods.sort_by_key(|p| (Reverse(!p.spec.node_name.is_empty()), p.created(), p.name().to_owned()));
    }
    by_node
}

impl<'a> Round<'a> {
    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pod.is_available(self.min_ready(), self.now)
    }

    /// By either label: the hash of a revision changes when somebody takes it out of the history and
    /// it is made anew.
    fn is_updated(&self, pod: &PodView) -> bool {
        let is = |label: &str, wanted: &str| pod.index.labels.get(label).is_some_and(|l| **l == *wanted);
        is(HASH_LABEL, self.hash) || self.generation.is_some_and(|g| is(GENERATION_LABEL, g))
    }

    fn of_node(&self, node: &str) -> &[&'a PodView] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    /// A pod on every node that should have one, and none elsewhere.
    fn place_pods(&self, plan: &mut Plan) {
        for (&node, &place) in &self.nodes {
            let pods = self.of_node(node);
            match place {
                Place::Run if pods.is_empty() => plan.create.push(node.to_owned()),
                Place::Run | Place::Stay => self.tidy(pods, plan),
                Place::No => plan.delete.extend(pods.iter().filter(|p| !p.index.deleting).map(|p| (*p).clone())),
            }
        }
        // A pod that is made for a node that has gone will never run.
        let homeless = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        let waiting = homeless.flat_map(|(_, pods)| pods).filter(|p| p.spec.node_name.is_empty() && !p.index.deleting);
        plan.delete.extend(waiting.map(|p| (*p).clone()));
    }

    /// Of several pods on a node one stays: during a surge an old and a new one.
    fn tidy(&self, pods: &[&PodView], plan: &mut Plan) {
        let mut running: Vec<&PodView> = Vec::new();
        for pod in pods.iter().filter(|p| !p.index.deleting) {
            match pod.status.phase {
                Phase::Failed | Phase::Succeeded => {
                    plan.delete.push((*pod).clone());
                    plan.ended.push((*pod).clone());
                }
                Phase::Pending | Phase::Running | Phase::Unknown => running.push(pod),
            }
        }
        if self.surge().0 == 0 {
            plan.delete.extend(running.iter().skip(1).map(|p| (*p).clone()));
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| self.is_updated(p));
        plan.delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)).cloned());
    }

    /// Surge and unavailability as counts of the wanted pods.
    fn surge(&self) -> (usize, usize) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let wanted = i32::try_from(self.nodes.values().filter(|p| **p == Place::Run).count()).unwrap_or(i32::MAX);
        let count = |v: Option<i32>| usize::try_from(v.unwrap_or(0)).unwrap_or(0);
        let surge = count(rolling.and_then(|r| r.max_surge.as_ref()).map(|v| scaled(v, wanted, Rounding::Up)));
        let unavailable =
            count(rolling.and_then(|r| r.max_unavailable.as_ref()).map(|v| scaled(v, wanted, Rounding::Up)));
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn roll(&self, plan: &mut Plan) {
        if self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let (surge, unavailable) = self.surge();
        if surge > 0 {
            self.roll_with_surge(surge, plan);
        } else {
            self.roll_in_place(unavailable, plan);
        }
    }

    /// The pods of each node that should run one: the updated and the old.
    fn pairs(&self) -> impl Iterator<Item = (&'a str, Option<&'a PodView>, Option<&'a PodView>)> {
        self.nodes.iter().filter(|(_, place)| **place == Place::Run).map(|(&node, _)| {
            let find = |updated: bool| {
                self.of_node(node).iter().copied().find(|p| !p.index.deleting && self.is_updated(p) == updated)
            };
            (node, find(true), find(false))
        })
    }

    /// Deletes old pods while few enough are unavailable; those that are so already cost nothing.
    fn roll_in_place(&self, most: usize, plan: &mut Plan) {
        let mut down = 0;
        let mut candidates = Vec::new();
        for (_, new, old) in self.pairs() {
            match (new, old) {
                (None, None) | (Some(_), Some(_)) => down += 1,
                (Some(new), None) => down += usize::from(!self.is_available(new)),
                (None, Some(old)) if self.is_available(old) => candidates.push(old.clone()),
                (None, Some(old)) => {
                    down += 1;
                    plan.delete.push(old.clone());
                }
            }
        }
        candidates.truncate(most.saturating_sub(down));
        plan.delete.extend(candidates);
    }

    /// Makes new pods beside old ones; an old one goes when its successor is available.
    fn roll_with_surge(&self, most: usize, plan: &mut Plan) {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for (node, new, old) in self.pairs() {
            match (new, old) {
                (None | Some(_), None) => {}
                (None, Some(old)) if self.is_available(old) => candidates.push(node.to_owned()),
                (None, Some(_)) => {
                    surging += 1;
                    plan.create.push(node.to_owned());
                }
                (Some(new), Some(old)) if self.is_available(new) => plan.delete.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        candidates.truncate(most.saturating_sub(surging));
        plan.create.extend(candidates);
    }

    fn status(&self, set: &DaemonSet) -> DaemonSetStatus {
        let before = set.status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: before.collision_count,
            conditions: before.conditions,
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (&node, &place) in &self.nodes {
            let pods = self.of_node(node);
            match (place, pods.first()) {
                (Place::Run, first) => {
                    status.desired_number_scheduled += 1;
                    let Some(first) = first else { continue };
                    status.current_number_scheduled += 1;
                    // While two stand on a node the better one counts.
                    let best = pods.iter().find(|p| p.is_ready() && !p.index.deleting).unwrap_or(first);
                    status.number_ready += i32::from(best.is_ready());
                    available += i32::from(self.is_available(best));
                    updated += i32::from(pods.iter().any(|p| !p.index.deleting && self.is_updated(p)));
                }
                (Place::Stay | Place::No, Some(_)) => status.number_misscheduled += 1,
                (Place::Stay | Place::No, None) => {}
            }
        }
        let nonzero = |n: i32| Some(n).filter(|&n| n != 0);
        status.updated_number_scheduled = nonzero(updated);
        status.number_available = nonzero(available);
        status.number_unavailable = nonzero(status.desired_number_scheduled - available);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PodBuilder, at, pod};
    use api::object::{ObjectIndex, ObjectKey};
    use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
    use k8s_openapi::api::core::v1::Taint;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use std::sync::Arc;

    fn node(name: &str, effect: Option<&str>) -> NodeView {
        let index = ObjectIndex { key: ObjectKey::new("", name), ..ObjectIndex::default() };
        let taint =
            effect.map(|e| Taint { key: "example.com/t".into(), effect: e.into(), value: None, time_added: None });
        NodeView { index: Arc::new(index), taints: taint.into_iter().collect(), unschedulable: false }
    }

    fn set(surge: i32, unavailable: i32) -> DaemonSet {
        DaemonSet {
            spec: Some(DaemonSetSpec {
                update_strategy: Some(DaemonSetUpdateStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateDaemonSet {
                        max_surge: Some(IntOrString::Int(surge)),
                        max_unavailable: Some(IntOrString::Int(unavailable)),
                    }),
                }),
                ..DaemonSetSpec::default()
            }),
            ..DaemonSet::default()
        }
    }

    fn up(name: &str, node: &str, hash: &str) -> PodBuilder {
        pod(name).on(node).running().ready(at(1)).label(HASH_LABEL, hash)
    }

    fn run(set: &DaemonSet, nodes: &[NodeView], pods: &[PodBuilder]) -> Plan {
        let pods: Vec<_> = pods.iter().cloned().map(PodBuilder::view).collect();
        plan(set, set.spec.as_ref().unwrap(), nodes, &pods, "new", at(100))
    }

    #[track_caller]
    fn check(set: &DaemonSet, nodes: &[NodeView], pods: &[PodBuilder], create: &[&str], delete: &[&str]) {
        let plan = run(set, nodes, pods);
        let deleted: Vec<_> = plan.delete.iter().map(PodView::name).collect();
        assert_eq!((plan.create.as_slice(), deleted.as_slice()), (create.map_owned().as_slice(), delete));
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for [&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|s| (*s).to_owned()).collect()
        }
    }

    #[test]
    fn every_fitting_node_gets_one_pod() {
        let nodes = [node("a", None), node("b", None), node("c", Some("NoSchedule")), node("d", Some("NoExecute"))];
        check(&set(0, 1), &nodes, &[], &["a", "b"], &[]);
        let pods = [up("pa", "a", "new"), up("pb", "b", "new"), up("pc", "c", "new"), up("pd", "d", "new")];
        check(&set(0, 1), &nodes, &pods, &[], &["pd"]);
        check(&set(0, 1), &nodes[..1], &[up("p1", "a", "new"), up("p2", "a", "new")], &[], &["p2"]);
        check(&set(0, 1), &nodes[..1], &[up("p1", "a", "new").phase("Failed")], &[], &["p1"]);
    }

    #[test]
    fn rolling_in_place_keeps_within_unavailability() {
        let nodes = [node("a", None), node("b", None), node("c", None)];
        let old = |n: &str| up(&format!("p{n}"), n, "old");
        check(&set(0, 1), &nodes, &[old("a"), old("b"), old("c")], &[], &["pa"]);
        check(&set(0, 2), &nodes, &[old("a"), old("b"), old("c")], &[], &["pa", "pb"]);
        let one_down = [old("a"), old("b"), pod("pc").on("c").running().label(HASH_LABEL, "new")];
        check(&set(0, 1), &nodes, &one_down, &[], &[]);
        let old_down = [old("a"), old("b"), pod("pc").on("c").running().label(HASH_LABEL, "old")];
        check(&set(0, 1), &nodes, &old_down, &[], &["pc"]);
    }

    #[test]
    fn a_surge_makes_the_new_pod_first() {
        let nodes = [node("a", None), node("b", None)];
        let old = [up("pa", "a", "old"), up("pb", "b", "old")];
        check(&set(1, 0), &nodes, &old, &["a"], &[]);
        let both = [up("pa", "a", "old"), up("na", "a", "new"), up("pb", "b", "old")];
        check(&set(1, 0), &nodes, &both, &["b"], &["pa"]);
    }

    #[test]
    fn a_pod_of_the_same_template_generation_is_up_to_date() {
        let mut set = set(0, 1);
        set.metadata.annotations =
            Some([("deprecated.daemonset.template.generation".to_owned(), "2".to_owned())].into());
        let made = |generation: &str| [up("pa", "a", "lost").label(GENERATION_LABEL, generation)];
        check(&set, &[node("a", None)], &made("2"), &[], &[]);
        check(&set, &[node("a", None)], &made("1"), &[], &["pa"]);
    }

    #[test]
    fn status_counts_nodes() {
        let nodes = [node("a", None), node("b", None), node("c", Some("NoSchedule"))];
        let pods = [up("pa", "a", "new"), pod("pb").on("b").running(), up("pc", "c", "old")];
        let status = run(&set(0, 1), &nodes, &pods).status;
        assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (2, 2, 1));
        assert_eq!((status.number_misscheduled, status.updated_number_scheduled), (1, Some(1)));
        assert_eq!((status.number_available, status.number_unavailable), (Some(1), Some(1)));
    }
}
