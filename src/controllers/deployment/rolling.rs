//! The two strategies: rolling from old sets to the new one within the bounds, or all old pods
//! first and then the new ones.

use super::plan::{Rollout, is_recreate};
use super::replicasets::{available, by_creation, clamped, name, size};
use super::scaling;

pub(super) fn roll(rollout: &mut Rollout) {
    rollout.ensure_new_set();
    if grow_new(rollout) || shrink_old(rollout) {
        return;
    }
    if rollout.was_complete() {
        scaling::clean_up(rollout);
    }
}

pub(super) fn recreate(rollout: &mut Rollout, old_pods_run: bool) {
    let active: Vec<_> = rollout.old.iter().filter(|rs| size(rs) > 0).cloned().collect();
    let mut scaled_down = false;
    for set in active {
        scaled_down |= rollout.resize(&set, 0);
    }
    if scaled_down || old_pods_run {
        return;
    }
    rollout.ensure_new_set();
    grow_new(rollout);
    if rollout.was_complete() {
        scaling::clean_up(rollout);
    }
}

/// The size that the new set, now of size `current`, may have.
pub(super) fn size_of_new(rollout: &Rollout, current: i32) -> i32 {
    let wanted = rollout.wanted();
    if is_recreate(&rollout.deployment) {
        return wanted;
    }
    let room = clamped(i64::from(rollout.most()) - rollout.total(size));
    if room <= 0 { current } else { current + room.min(wanted - current) }
}

fn grow_new(rollout: &mut Rollout) -> bool {
    let Some(new) = rollout.new.clone() else { return false };
    let (current, wanted) = (size(&new), rollout.wanted());
    if current == wanted {
        return false;
    }
    let target = if current > wanted { wanted } else { size_of_new(rollout, current) };
    rollout.resize(&new, target)
}

/// Takes old pods while enough stay available; new pods that are not available yet count against it.
fn shrink_old(rollout: &mut Rollout) -> bool {
    if rollout.old.iter().all(|rs| size(rs) == 0) {
        return false;
    }
    let Some(new) = &rollout.new else { return false };
    let min_available = rollout.wanted() - rollout.max_unavailable();
    let new_unavailable = i64::from(size(new)) - i64::from(available(new));
    let most = clamped(rollout.total(size) - i64::from(min_available) - new_unavailable);
    if most <= 0 {
        return false;
    }
    let unhealthy = clean_up_unhealthy(rollout, most);
    let healthy = shrink_healthy(rollout, min_available);
    unhealthy + healthy > 0
}

/// Old pods that are not available go first: they would only hold the rollout up.
fn clean_up_unhealthy(rollout: &mut Rollout, most: i32) -> i32 {
    let mut total = 0;
    for set in old_by_creation(rollout) {
        if total >= most {
            break;
        }
        let unhealthy = size(&set) - available(&set);
        if size(&set) == 0 || unhealthy <= 0 {
            continue;
        }
        let take = unhealthy.min(most - total);
        rollout.resize(&set, size(&set) - take);
        total += take;
    }
    total
}

fn shrink_healthy(rollout: &mut Rollout, min_available: i32) -> i32 {
    let most = clamped(rollout.total(available) - i64::from(min_available));
    let mut total = 0;
    for set in old_by_creation(rollout) {
        if total >= most {
            break;
        }
        let take = size(&set).min(most - total);
        if take > 0 {
            rollout.resize(&set, size(&set) - take);
            total += take;
        }
    }
    total.max(0)
}

fn old_by_creation(rollout: &Rollout) -> Vec<k8s_openapi::api::apps::v1::ReplicaSet> {
    let mut sets: Vec<_> = rollout.old.iter().filter(|rs| size(rs) > 0).cloned().collect();
    sets.sort_by(|a, b| by_creation(a, b).then_with(|| name(a).cmp(name(b))));
    sets
}
