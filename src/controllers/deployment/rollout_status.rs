//! A Deployment's status, computed whole from its ReplicaSets.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::conditions::{self, AVAILABLE, PROGRESSING, REPLICA_FAILURE};
use super::plan::Rollout;
use super::replicasets::{actual, available, clamped, name, ready, size};
use crate::moment;

/// Counts and availability, without a judgement of progress: when nothing rolls.
pub(super) fn plain(rollout: &Rollout) -> DeploymentStatus {
    let sum = |of: fn(&ReplicaSet) -> i32| clamped(rollout.total(of));
    let up = sum(available);
    let before = rollout.deployment.status.as_ref();
    let mut status = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: nonzero(sum(actual)),
        updated_replicas: nonzero(rollout.new.as_ref().map_or(0, actual)),
        ready_replicas: nonzero(sum(ready)),
        available_replicas: nonzero(up),
        unavailable_replicas: nonzero(clamped(rollout.total(size) - i64::from(up)).max(0)),
        collision_count: before.and_then(|s| s.collision_count),
        terminating_replicas: terminating(rollout),
        conditions: before.and_then(|s| s.conditions.clone()),
    };
    let (truth, reason, message) = if up >= rollout.wanted() - rollout.max_unavailable() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions::set(&mut status, conditions::new(AVAILABLE, truth, reason, message.to_owned(), &rollout.now));
    status
}

/// The status while rolling: counts, and whether it still moves.
pub(super) fn rolling(rollout: &Rollout) -> DeploymentStatus {
    let mut status = plain(rollout);
    if rollout.has_progress_deadline() {
        judge_progress(rollout, &mut status);
    } else {
        conditions::remove(&mut status, PROGRESSING);
    }
    match replica_failure(rollout) {
        Some(failure) => conditions::set(&mut status, failure),
        None => conditions::remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// Known only once every set tells it.
fn terminating(rollout: &Rollout) -> Option<i32> {
    let all: Option<i64> = rollout.all().map(|rs| rs.status.as_ref()?.terminating_replicas.map(i64::from)).sum();
    all.map(clamped)
}

fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|&n| n != 0)
}

fn judge_progress(rollout: &Rollout, status: &mut DeploymentStatus) {
    let before = rollout.deployment.status.clone().unwrap_or_default();
    let current = conditions::get(&before, PROGRESSING).cloned();
    let has_ended = status.replicas == status.updated_replicas
        && current.as_ref().and_then(|c| c.reason.as_deref()) == Some(conditions::NEW_RS_AVAILABLE);
    if has_ended {
        return;
    }
    let about = match &rollout.new {
        Some(new) => format!("ReplicaSet \"{}\"", name(new)),
        None => format!("Deployment \"{}\"", rollout.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if rollout.is_complete(status) {
        let message = format!("{about} has successfully progressed.");
        let condition = conditions::new(PROGRESSING, "True", conditions::NEW_RS_AVAILABLE, message, &rollout.now);
        conditions::set(status, condition);
    } else if has_moved(&before, status) {
        let message = format!("{about} is progressing.");
        let mut condition = conditions::new(PROGRESSING, "True", conditions::RS_UPDATED, message, &rollout.now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            condition.last_transition_time = current.last_transition_time;
        }
        // Taken out first, so that the time of the update is renewed though reason and status stay.
        conditions::remove(status, PROGRESSING);
        conditions::set(status, condition);
    } else if has_timed_out(rollout, status) {
        let message = format!("{about} has timed out progressing.");
        let condition = conditions::new(PROGRESSING, "False", conditions::TIMED_OUT, message, &rollout.now);
        conditions::set(status, condition);
    }
}

fn has_moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let old = |s: &DeploymentStatus| i64::from(n(s.replicas)) - i64::from(n(s.updated_replicas));
    n(after.updated_replicas) > n(before.updated_replicas)
        || old(after) < old(before)
        || n(after.ready_replicas) > n(before.ready_replicas)
        || n(after.available_replicas) > n(before.available_replicas)
}

fn has_timed_out(rollout: &Rollout, status: &DeploymentStatus) -> bool {
    let Some(condition) = conditions::get(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(conditions::NEW_RS_AVAILABLE) => false,
        Some(conditions::TIMED_OUT) => true,
        _ => deadline_in(rollout, condition).is_none(),
    }
}

/// What is left until the deadline; `None` when it has passed.
fn deadline_in(rollout: &Rollout, condition: &DeploymentCondition) -> Option<Duration> {
    let since = condition.last_update_time.as_ref()?.0;
    let seconds = i64::from(rollout.spec.progress_deadline_seconds?);
    moment::remaining(since, seconds, rollout.now.0)
}

/// When an unfinished rollout must be looked at again though nothing happens.
pub(super) fn recheck_in(rollout: &Rollout, status: &DeploymentStatus) -> Option<Duration> {
    if !rollout.has_progress_deadline() || rollout.is_complete(status) || rollout.spec.paused == Some(true) {
        return None;
    }
    let condition = conditions::get(status, PROGRESSING)?;
    if matches!(condition.reason.as_deref(), Some(conditions::TIMED_OUT | conditions::NEW_RS_AVAILABLE)) {
        return None;
    }
    // A second more, for times are recorded in whole seconds.
    deadline_in(rollout, condition).map(|d| d + Duration::from_secs(1))
}

/// The new set's failure to make pods, or else an old one's.
fn replica_failure(rollout: &Rollout) -> Option<DeploymentCondition> {
    rollout.new.iter().chain(rollout.old.iter()).find_map(|rs| {
        let failure = rs.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == REPLICA_FAILURE)?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time.clone(),
        })
    })
}
