//! Scaling outside a rollout's steps: proportionally over all active sets, so that a change of size
//! in the middle of a rollout changes nothing else; and the clean-up of old sets.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::annotations;
use super::plan::{Rollout, Step, is_recreate};
use super::replicasets::{actual, available, by_creation, clamped, name, size};

/// The wanted size differs from the one that an active set was last sized for.
pub(super) fn is_scaling_event(rollout: &Rollout) -> bool {
    let wanted = rollout.wanted();
    let desired = |rs: &ReplicaSet| annotations::number(&rs.metadata, annotations::DESIRED_REPLICAS);
    rollout.all().filter(|rs| size(rs) > 0).filter_map(desired).any(|desired| desired != wanted)
}

pub(super) fn scale(rollout: &mut Rollout) {
    let wanted = rollout.wanted();
    if let Some(only) = active_or_latest(rollout) {
        rollout.resize(&only, wanted);
        return;
    }
    if rollout.new.as_ref().is_some_and(|new| is_saturated(new, wanted)) {
        let active: Vec<_> = rollout.old.iter().filter(|rs| size(rs) > 0).cloned().collect();
        for set in active {
            rollout.resize(&set, 0);
        }
        return;
    }
    if !is_recreate(&rollout.deployment) {
        scale_proportionally(rollout);
    }
}

/// The only active set; with none active, the new one or else the youngest.
fn active_or_latest(rollout: &Rollout) -> Option<ReplicaSet> {
    let active: Vec<_> = rollout.all().filter(|rs| size(rs) > 0).collect();
    match active.as_slice() {
        [] => rollout.new.clone().or_else(|| rollout.old.iter().max_by(|a, b| by_creation(a, b)).cloned()),
        [only] => Some((*only).clone()),
        _ => None,
    }
}

fn is_saturated(new: &ReplicaSet, wanted: i32) -> bool {
    size(new) == wanted
        && annotations::number(&new.metadata, annotations::DESIRED_REPLICAS) == Some(wanted)
        && available(new) == wanted
}

fn scale_proportionally(rollout: &mut Rollout) {
    let mut sets: Vec<_> = rollout.all().filter(|rs| size(rs) > 0).cloned().collect();
    let wanted = rollout.wanted();
    let max = rollout.most();
    let allowed = if wanted > 0 { max } else { 0 };
    let to_add = clamped(i64::from(allowed) - rollout.total(size));
    // Growth favours the newer of two equal sets, shrinking takes from the older.
    if to_add >= 0 {
        sets.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| by_creation(b, a)));
    } else {
        sets.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| by_creation(a, b)));
    }
    let status_size = rollout.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
    let mut added = 0;
    for set in &sets {
        let share = if to_add == 0 { 0 } else { share(set, wanted, max, status_size, to_add, added) };
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(largest) = sizes.first_mut()
        && to_add != 0
    {
        *largest = clamped(i64::from(*largest) + i64::from(to_add) - i64::from(added)).max(0);
    }
    for (set, new_size) in sets.iter().zip(sizes) {
        rollout.resize(set, new_size);
    }
}

/// How much of `to_add` falls to this set, of which `added` is given out already.
fn share(set: &ReplicaSet, wanted: i32, max: i32, status_size: i32, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, wanted, max, status_size);
    let allowed = to_add - added;
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

/// The change that keeps the set's share of the whole as it was.
fn fraction(set: &ReplicaSet, wanted: i32, max: i32, status_size: i32) -> i32 {
    if wanted == 0 {
        return -size(set);
    }
    let before = annotations::number(&set.metadata, annotations::MAX_REPLICAS).filter(|&n| n != 0);
    let before = before.unwrap_or(status_size).max(1);
    rounded_quotient(i64::from(size(set)) * i64::from(max), i64::from(before)) - size(set)
}

/// Rounds half away from zero; both arguments are positive.
fn rounded_quotient(numerator: i64, denominator: i64) -> i32 {
    i32::try_from((2 * numerator + denominator) / (2 * denominator)).unwrap_or(i32::MAX)
}

/// Deletes the oldest idle sets beyond `revisionHistoryLimit`.
pub(super) fn clean_up(rollout: &mut Rollout) {
    let Some(limit) = rollout.spec.revision_history_limit.filter(|&l| l != i32::MAX) else { return };
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut sets: Vec<_> = rollout.old.iter().filter(|rs| rs.metadata.deletion_timestamp.is_none()).cloned().collect();
    let Some(excess) = sets.len().checked_sub(limit) else { return };
    sets.sort_by_key(|rs| (annotations::revision(&rs.metadata), name(rs).to_owned()));
    for set in sets.into_iter().take(excess) {
        let observed = set.status.as_ref().and_then(|s| s.observed_generation);
        if actual(&set) == 0 && size(&set) == 0 && set.metadata.generation <= observed {
            rollout.steps.push(Step::Delete { set });
        }
    }
}
