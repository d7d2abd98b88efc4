//! One round of a Deployment, decided at once: which ReplicaSets to write, and the status after it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{annotations, conditions, replicasets, rolling, rollout_status, scaling};
use crate::percent::{Round, scaled};

/// What a plan is made from, besides the Deployment itself.
pub(super) struct Observed {
    /// The ReplicaSets that are the Deployment's own.
    pub(super) sets: Vec<ReplicaSet>,
    /// Pods of old sets may still run; asked only for the Recreate strategy.
    pub(super) old_pods_run: bool,
    pub(super) now: Time,
}

/// A write to a ReplicaSet; `scaled` are the messages of the scaling events that it completes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Create { set: ReplicaSet, scaled: Vec<String> },
    Update { set: ReplicaSet, scaled: Vec<String> },
    Delete { set: ReplicaSet },
}

/// Steps in order, then the Deployment's status and revision where they changed.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) deployment: Option<Deployment>,
    /// When to look again for a rollout that has stopped moving.
    pub(super) recheck: Option<Duration>,
}

/// The state that a round works on: what is observed, with the round's own steps already in it.
pub(super) struct Rollout {
    pub(super) deployment: Deployment,
    pub(super) spec: DeploymentSpec,
    pub(super) new: Option<ReplicaSet>,
    pub(super) old: Vec<ReplicaSet>,
    pub(super) steps: Vec<Step>,
    pub(super) now: Time,
}

pub(super) fn plan(deployment: &Deployment, observed: &Observed) -> Plan {
    let Some(spec) = deployment.spec.clone() else {
        return Plan { steps: Vec::new(), deployment: None, recheck: None };
    };
    let (new, old) = replicasets::part(&spec, observed.sets.clone());
    let now = observed.now.clone();
    let mut rollout = Rollout { deployment: deployment.clone(), spec, new, old, steps: Vec::new(), now };
    let next = rollout.run(observed.old_pods_run);
    rollout.finish(deployment, next)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

impl Rollout {
    fn run(&mut self, old_pods_run: bool) -> DeploymentStatus {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return rollout_status::plain(self);
        }
        self.note_pause();
        self.sync_new_set();
        if self.spec.paused == Some(true) || scaling::is_scaling_event(self) {
            scaling::scale(self);
            if self.spec.paused == Some(true) {
                scaling::clean_up(self);
            }
            return rollout_status::plain(self);
        }
        if is_recreate(&self.deployment) {
            rolling::recreate(self, old_pods_run);
        } else {
            rolling::roll(self);
        }
        rollout_status::rolling(self)
    }

    fn finish(self, before: &Deployment, status: DeploymentStatus) -> Plan {
        let recheck = rollout_status::recheck_in(&self, &status);
        let mut after = self.deployment;
        after.status = Some(status);
        let changed = after.status != before.status || after.metadata != before.metadata;
        Plan { steps: self.steps, deployment: changed.then_some(after), recheck }
    }

    /// A pause must not look like a lack of progress when it ends.
    fn note_pause(&mut self) {
        if !self.has_progress_deadline() {
            return;
        }
        let paused = self.spec.paused == Some(true);
        let now = self.now.clone();
        let status = self.deployment.status.get_or_insert_with(DeploymentStatus::default);
        let reason = conditions::get(status, conditions::PROGRESSING).and_then(|c| c.reason.as_deref());
        if reason == Some(conditions::TIMED_OUT) {
            return;
        }
        let noted = reason == Some(conditions::PAUSED);
        let (reason, message) = match (paused, noted) {
            (true, false) => (conditions::PAUSED, "Deployment is paused"),
            (false, true) => (conditions::RESUMED, "Deployment is resumed"),
            (true, true) | (false, false) => return,
        };
        conditions::set(status, conditions::new(conditions::PROGRESSING, "Unknown", reason, message.to_owned(), &now));
    }

    /// Brings annotations and revision of an existing new set up to date, and the Deployment's with it.
    fn sync_new_set(&mut self) {
        let Some(set) = &self.new else { return };
        let mut updated = set.clone();
        annotations::copy(&self.deployment.metadata, &mut updated.metadata);
        annotations::raise_revision(&mut updated.metadata, annotations::max_revision(&self.old) + 1);
        let min_ready = self.spec.min_ready_seconds.filter(|&s| s != 0);
        if let Some(spec) = &mut updated.spec
            && spec.min_ready_seconds.filter(|&s| s != 0) != min_ready
        {
            spec.min_ready_seconds = min_ready;
        }
        let changed = &updated != set;
        let name = replicasets::name(set).to_owned();
        self.take_revision_of(&updated);
        self.note_progress(conditions::FOUND_NEW_RS, format!("Found new replica set \"{name}\""), Once::IfNone);
        if changed {
            self.update(updated, None);
        }
    }

    pub(super) fn take_revision_of(&mut self, set: &ReplicaSet) {
        if let Some(revision) = annotations::get(&set.metadata, annotations::REVISION)
            && annotations::get(&self.deployment.metadata, annotations::REVISION) != Some(revision)
        {
            annotations::set(&mut self.deployment.metadata, annotations::REVISION, revision.to_owned());
        }
    }

    pub(super) fn note_progress(&mut self, reason: &str, message: String, once: Once) {
        if !self.has_progress_deadline() {
            return;
        }
        let condition = conditions::new(conditions::PROGRESSING, "True", reason, message, &self.now);
        let status = self.deployment.status.get_or_insert_with(DeploymentStatus::default);
        match once {
            Once::IfNone if conditions::get(status, conditions::PROGRESSING).is_some() => {}
            Once::IfNone | Once::Always => conditions::set(status, condition),
        }
    }

    /// Makes the new set if there is none, at the size that the strategy allows now.
    pub(super) fn ensure_new_set(&mut self) {
        if self.new.is_some() {
            return;
        }
        let mut set = replicasets::make(&self.deployment, &self.spec);
        let size = rolling::size_of_new(self, 0);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
        annotations::copy(&self.deployment.metadata, &mut set.metadata);
        annotations::raise_revision(&mut set.metadata, annotations::max_revision(&self.old) + 1);
        annotations::set_sizes(&mut set.metadata, self.wanted(), self.most());
        let name = replicasets::name(&set).to_owned();
        let scaled = (size > 0).then(|| scaled_message(&name, 0, size)).into_iter().collect();
        self.steps.push(Step::Create { set: set.clone(), scaled });
        self.take_revision_of(&set);
        self.note_progress(conditions::NEW_RS, format!("Created new replica set \"{name}\""), Once::Always);
        self.new = Some(set);
    }

    /// Sets a set's size and the size annotations; `true` if the size changed.
    pub(super) fn resize(&mut self, set: &ReplicaSet, size: i32) -> bool {
        let (desired, max) = (self.wanted(), self.most());
        let from = replicasets::size(set);
        if from == size && annotations::sizes_are(&set.metadata, desired, max) {
            return false;
        }
        let mut updated = set.clone();
        annotations::set_sizes(&mut updated.metadata, desired, max);
        if let Some(spec) = &mut updated.spec {
            spec.replicas = Some(size);
        }
        let message = (from != size).then(|| scaled_message(replicasets::name(set), from, size));
        self.update(updated, message);
        from != size
    }

    /// Notes the write, joined with an earlier one to the same set, and goes on from its result.
    fn update(&mut self, set: ReplicaSet, message: Option<String>) {
        let name = replicasets::name(&set).to_owned();
        let earlier = self.steps.iter_mut().find_map(|step| match step {
            Step::Create { set, scaled } | Step::Update { set, scaled } if replicasets::name(set) == name => {
                Some((set, scaled))
            }
            Step::Create { .. } | Step::Update { .. } | Step::Delete { .. } => None,
        });
        match earlier {
            Some((planned, scaled)) => {
                *planned = set.clone();
                scaled.extend(message);
            }
            None => self.steps.push(Step::Update { set: set.clone(), scaled: message.into_iter().collect() }),
        }
        let slot = self.new.iter_mut().chain(self.old.iter_mut()).find(|s| replicasets::name(s) == name);
        if let Some(slot) = slot {
            *slot = set;
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(self.new.iter())
    }

    /// The sum of a count over all sets. Each may be as large as its type: the sum is larger.
    pub(super) fn total(&self, count: fn(&ReplicaSet) -> i32) -> i64 {
        self.all().map(|set| i64::from(count(set))).sum()
    }

    /// How many pods there may be at a time.
    pub(super) fn most(&self) -> i32 {
        self.wanted().saturating_add(self.max_surge())
    }

    pub(super) fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub(super) fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let wanted = Some(self.wanted());
        let is_wanted = |count: Option<i32>| Some(count.unwrap_or(0)) == wanted;
        is_wanted(status.updated_replicas)
            && is_wanted(status.replicas)
            && is_wanted(status.available_replicas)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// Complete by the status that stood before this round.
    pub(super) fn was_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|s| self.is_complete(s))
    }

    pub(super) fn has_progress_deadline(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
    }

    fn max_surge(&self) -> i32 {
        if is_recreate(&self.deployment) { 0 } else { self.fenceposts().0 }
    }

    pub(super) fn max_unavailable(&self) -> i32 {
        if is_recreate(&self.deployment) || self.wanted() == 0 {
            return 0;
        }
        self.fenceposts().1.min(self.wanted())
    }

    /// Surge and unavailability as counts; both zero would never move, so one may then be missing.
    fn fenceposts(&self) -> (i32, i32) {
        let rolling = self.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |v| scaled(v, self.wanted(), Round::Up));
        let unavailable =
            rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(0, |v| scaled(v, self.wanted(), Round::Down));
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }
}

/// Whether a Progressing condition that is there already is replaced.
#[derive(Clone, Copy)]
pub(super) enum Once {
    IfNone,
    Always,
}

fn scaled_message(name: &str, from: i32, to: i32) -> String {
    let direction = if to > from { "up" } else { "down" };
    format!("Scaled {direction} replica set {name} from {from} to {to}")
}
