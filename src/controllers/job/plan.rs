//! One round of a Job, decided from its spec, its status and its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};

use super::failure_policy::{self, Verdict};
use super::per_index::{self, Failures};
use super::status::{self, End};
use super::{FINALIZER, indexes};
use crate::moment;
use crate::pods::{self, Phase, PodView};

/// Pods made or deleted in one round, as upstream bounds it.
const BURST: usize = 500;
const BACKOFF_BASE: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// A pod to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    /// In an Indexed Job.
    pub(super) index: Option<i32>,
    /// Where failures are counted by index.
    pub(super) failures: Option<Failures>,
}

/// What to do about pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) create: Vec<NewPod>,
    /// Surplus: its finalizer goes first, so that it does not count as a failure.
    pub(super) dismiss: Vec<PodView>,
    /// Of a Job that has ended: they count as what they end as.
    pub(super) terminate: Vec<PodView>,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pods: Pods,
    /// The status to record before finalizers are removed.
    pub(super) status: JobStatus,
    /// Pods that are accounted for in `status` and may be let go.
    pub(super) release: Vec<PodView>,
    pub(super) end: Option<End>,
    pub(super) event: Option<(&'static str, &'static str)>,
    pub(super) recheck: Option<Duration>,
}

/// The Job with its pods, as a round sees them.
struct Round<'a> {
    spec: &'a JobSpec,
    pods: &'a [PodView],
    now: Timestamp,
    indexed: bool,
    /// Absent: any success completes the Job.
    completions: Option<i32>,
}

/// Finished pods, taken into the status.
struct Accounted {
    /// They need their finalizer no longer.
    release: Vec<PodView>,
    /// They keep it, and are not counted, until their index has its next pod.
    held: BTreeMap<i32, PodView>,
}

pub(super) fn plan(job: &Job, spec: &JobSpec, all: &[PodView], now: Timestamp) -> Plan {
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let round = Round { spec, pods: all, now, indexed, completions: spec.completions };
    let mut status = job.status.clone().unwrap_or_default();
    let event = round.note_suspension(&mut status);
    let Accounted { mut release, held } = round.account(&mut status);
    let end = End::of(&status).or_else(|| round.end(&status, &held));
    if end.is_some() {
        // Nothing will replace these any more.
        release.extend(round.count_held(&mut status, &held));
    }
    let mut pods = Pods::default();
    let mut recheck = round.deadline_in(&status);
    let active: Vec<PodView> = all.iter().filter(|p| p.is_active()).cloned().collect();
    if let Some(end) = &end {
        pods.terminate.clone_from(&active);
        let intention = end.intention(now);
        if status::find(&status, &intention.type_).is_none() {
            status::set(&mut status, intention);
        }
        recheck = None;
    } else if job.metadata.deletion_timestamp.is_none() {
        let backoff = round.manage(&status, &active, &held, &mut pods);
        recheck = [recheck, backoff].into_iter().flatten().min();
    }
    Plan { pods, status, release, end, event, recheck }
}

impl Round<'_> {
    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn parallelism(&self) -> i32 {
        self.spec.parallelism.unwrap_or(1)
    }

    /// Starts the clock, stops it while suspended.
    fn note_suspension(&self, status: &mut JobStatus) -> Option<(&'static str, &'static str)> {
        let noted = status::find(status, status::SUSPENDED).map(|c| c.status == "True");
        let set = |status: &mut JobStatus, truth, reason, message| {
            status::set(status, status::condition(status::SUSPENDED, truth, reason, message, self.now));
        };
        match (self.suspended(), noted) {
            (true, Some(true)) => None,
            (true, None | Some(false)) => {
                status.start_time = None;
                set(status, "True", "JobSuspended", "Job suspended");
                Some(("Suspended", "Job suspended"))
            }
            (false, Some(true)) => {
                status.start_time = Some(moment::time(self.now));
                set(status, "False", "JobResumed", "Job resumed");
                Some(("Resumed", "Job resumed"))
            }
            (false, None | Some(false)) => {
                status.start_time.get_or_insert_with(|| moment::time(self.now));
                None
            }
        }
    }

    fn is_success(pod: &PodView) -> bool {
        pod.status.phase == Phase::Succeeded
    }

    /// A deleted pod counts as failed when it was deleted, unless replacements wait for its end.
    fn is_failure(&self, pod: &PodView) -> bool {
        match pod.status.phase {
            Phase::Failed => true,
            Phase::Succeeded => false,
            Phase::Pending | Phase::Running | Phase::Unknown => !self.replaces_failed_only() && pod.index.deleting,
        }
    }

    fn valid_index(&self, pod: &PodView) -> Option<i32> {
        indexes::of(pod).filter(|&i| self.completions.is_none_or(|c| i < c))
    }

    fn is_tracked(pod: &PodView) -> bool {
        pod.index.finalizers.iter().any(|f| **f == *FINALIZER)
    }

    /// Takes finished pods into the status. Succeeded and failed indexes are noted at once, pods wait in the uncounted lists until their
    /// finalizers are gone, so that no crash in between counts one twice.
    fn account(&self, status: &mut JobStatus) -> Accounted {
        let mut release = Vec::new();
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut succeeded = uncounted.succeeded.unwrap_or_default();
        let mut failed = uncounted.failed.unwrap_or_default();
        let mut done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), self.completions.unwrap_or(0));
        let policy = self.spec.pod_failure_policy.as_ref();
        let succeeding = self.pods.iter().filter(|p| self.indexed && Self::is_tracked(p) && Self::is_success(p));
        done.extend(succeeding.filter_map(|p| self.valid_index(p)));
        let held = self.note_failed_indexes(status, &done);
        let is_held = |pod: &PodView| held.values().any(|h| h.index.uid == pod.index.uid);
        for pod in self.pods.iter().filter(|p| Self::is_tracked(p) && !is_held(p)) {
            let uid = pod.index.uid.to_string();
            let known = succeeded.contains(&uid) || failed.contains(&uid);
            if !known && Self::is_success(pod) {
                if !self.indexed {
                    succeeded.push(uid);
                }
            } else if !known && self.is_failure(pod) {
                let counts = !self.indexed || self.valid_index(pod).is_some();
                if counts && failure_policy::judge(policy, pod) != Verdict::Ignore {
                    failed.push(uid);
                }
            } else if !known {
                continue;
            }
            release.push(pod.clone());
        }
        if self.indexed {
            status.succeeded = i32::try_from(done.len()).ok().filter(|&n| n != 0);
            status.completed_indexes = Some(indexes::format(&done)).filter(|t| !t.is_empty());
        }
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: Some(succeeded).filter(|s| !s.is_empty()),
            failed: Some(failed).filter(|f| !f.is_empty()),
        });
        Accounted { release, held }
    }

    /// Brings `status.failedIndexes` up to date and returns the failed pods that wait to be replaced.
    fn note_failed_indexes(&self, status: &mut JobStatus, done: &BTreeSet<i32>) -> BTreeMap<i32, PodView> {
        let (Some(limit), Some(completions)) = (self.spec.backoff_limit_per_index, self.completions) else {
            return BTreeMap::new();
        };
        let policy = self.spec.pod_failure_policy.as_ref();
        let failures = || {
            let failed = self.pods.iter().filter(|p| Self::is_tracked(p) && self.is_failure(p));
            failed.filter(|p| self.valid_index(p).is_some())
        };
        let mut failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or(""), completions);
        failed.extend(failures().filter(|p| per_index::fails_index(limit, policy, p)).filter_map(indexes::of));
        status.failed_indexes = Some(indexes::format(&failed));
        let active = self.pods.iter().filter(|p| p.is_active()).filter_map(indexes::of);
        let settled = failed.iter().chain(done).copied().chain(active).collect();
        per_index::held(failures(), &settled)
    }

    /// Counts the pods that were held back, as those that are counted on the way.
    fn count_held(&self, status: &mut JobStatus, held: &BTreeMap<i32, PodView>) -> Vec<PodView> {
        let failed = &mut status.uncounted_terminated_pods.get_or_insert_default().failed;
        for pod in held.values() {
            let uid = pod.index.uid.to_string();
            let counts = failure_policy::judge(self.spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore;
            if counts && !failed.iter().flatten().any(|known| *known == uid) {
                failed.get_or_insert_default().push(uid);
            }
        }
        held.values().cloned().collect()
    }

    /// Whether the Job has come to its end, and which.
    fn end(&self, status: &JobStatus, held: &BTreeMap<i32, PodView>) -> Option<End> {
        if let Some(message) = self.failing_pod() {
            return Some(End::failure("PodFailurePolicy", &message));
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let waiting = i32::try_from(held.len()).unwrap_or(i32::MAX);
        if totals(status).failed.saturating_add(waiting) > limit || self.restarts_exceed(limit) {
            return Some(End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.spec.active_deadline_seconds.is_some() && !self.suspended() && self.deadline_in(status).is_none() {
            return Some(End::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if let Some(end) = self.failed_indexes_end(status) {
            return Some(end);
        }
        if let Some(at) = self.matched_success_rule(status) {
            return Some(End::success("SuccessPolicy", &format!("Matched rules at index {at}")));
        }
        let succeeded = totals(status).succeeded;
        let active = self.pods.iter().any(PodView::is_active);
        let complete = match self.completions {
            None => succeeded > 0 && !active,
            Some(completions) => succeeded >= completions && !active,
        };
        complete.then(|| End::success("CompletionsReached", "Reached expected number of succeeded pods"))
    }

    /// Too many indexes have failed, or some have and all others succeeded.
    fn failed_indexes_end(&self, status: &JobStatus) -> Option<End> {
        let completions = self.completions.filter(|_| self.spec.backoff_limit_per_index.is_some())?;
        let failed = indexes::parse(status.failed_indexes.as_deref()?, completions).len();
        let exceeds = |limit: i32| usize::try_from(limit).is_ok_and(|limit| failed > limit);
        if self.spec.max_failed_indexes.is_some_and(exceeds) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(End::failure("MaxFailedIndexesExceeded", message));
        }
        let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), completions).len();
        let settled = i32::try_from(failed + done).unwrap_or(i32::MAX);
        (failed > 0 && settled >= completions).then(|| End::failure("FailedIndexes", "Job has failed indexes"))
    }

    fn failing_pod(&self) -> Option<String> {
        let policy = self.spec.pod_failure_policy.as_ref()?;
        self.pods.iter().find_map(|pod| match failure_policy::judge(Some(policy), pod) {
            Verdict::FailJob(message) => Some(message),
            Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
        })
    }

    /// Pods that restart in place fail by their containers' restarts.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let runs = |p: &&PodView| matches!(p.status.phase, Phase::Running | Phase::Pending);
        let restarts = self
            .pods
            .iter()
            .filter(runs)
            .flat_map(|p| p.status.container_statuses.iter().chain(&p.status.init_container_statuses))
            .fold(0, |sum: i32, s| sum.saturating_add(s.restart_count));
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn deadline_in(&self, status: &JobStatus) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.suspended())?;
        moment::remaining(status.start_time.as_ref()?.0, seconds, self.now)
    }

    fn matched_success_rule(&self, status: &JobStatus) -> Option<usize> {
        let (policy, completions) = (self.spec.success_policy.as_ref()?, self.completions?);
        let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), completions);
        policy.rules.iter().position(|rule| {
            let named = rule.succeeded_indexes.as_deref().map(|text| indexes::named_and_done(text, completions, &done));
            let matched = named.map_or(done.len(), |(_, matched)| matched);
            match (rule.succeeded_count, named) {
                (Some(count), _) => usize::try_from(count).is_ok_and(|count| matched >= count),
                (None, Some((named, _))) => matched == named,
                (None, None) => false,
            }
        })
    }

    /// Fills `pods`; returns how long new pods must still wait after failures.
    fn manage(
        &self,
        status: &JobStatus,
        active: &[PodView],
        held: &BTreeMap<i32, PodView>,
        pods: &mut Pods,
    ) -> Option<Duration> {
        let succeeded = totals(status).succeeded;
        let running = active.len();
        let count = |n: i32| usize::try_from(n).unwrap_or(0);
        let wanted = match self.completions {
            _ if self.suspended() => 0,
            None if succeeded > 0 => running,
            None => count(self.parallelism()),
            Some(completions) => count((completions - succeeded).min(self.parallelism())),
        };
        pods.dismiss = self.surplus(active, running.saturating_sub(wanted), status);
        if !pods.dismiss.is_empty() || self.suspended() {
            return None;
        }
        let terminating = self.pods.iter().filter(|p| p.is_terminating()).count();
        let waiting = if self.replaces_failed_only() { terminating } else { 0 };
        let missing = wanted.saturating_sub(running + waiting).min(BURST);
        if missing == 0 {
            return None;
        }
        if self.spec.backoff_limit_per_index.is_some() {
            return self.replace_by_index(self.open_indexes(status, missing), held, pods);
        }
        if let Some(wait) = self.backoff() {
            return Some(wait);
        }
        pods.create = match (self.indexed, self.completions) {
            (true, Some(_)) => {
                let open = self.open_indexes(status, missing).into_iter();
                open.map(|index| NewPod { index: Some(index), failures: None }).collect()
            }
            (true, None) | (false, _) => vec![NewPod::default(); missing],
        };
        None
    }

    /// The lowest indexes without an outcome and without a pod.
    fn open_indexes(&self, status: &JobStatus, count: usize) -> Vec<i32> {
        let completions = self.completions.unwrap_or(0);
        let parse = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or(""), completions);
        let mut taken = parse(&status.completed_indexes);
        taken.extend(parse(&status.failed_indexes));
        let holds = |p: &&PodView| p.is_active() || (self.replaces_failed_only() && p.is_terminating());
        taken.extend(self.pods.iter().filter(holds).filter_map(indexes::of));
        indexes::first_free(&taken, completions, count)
    }

    /// Each index waits for its own failures; returns the shortest wait.
    fn replace_by_index(&self, open: Vec<i32>, held: &BTreeMap<i32, PodView>, pods: &mut Pods) -> Option<Duration> {
        let policy = self.spec.pod_failure_policy.as_ref();
        let mut shortest: Option<Duration> = None;
        for index in open {
            let last = held.get(&index);
            let failures = last.map(|pod| Failures::with(policy, pod)).unwrap_or_default();
            let wait = last.and_then(|pod| self.delay_after(failures.total(), self.finished_at(pod)?));
            match wait {
                Some(wait) => shortest = Some(shortest.map_or(wait, |s| s.min(wait))),
                None => pods.create.push(NewPod { index: Some(index), failures: Some(failures) }),
            }
        }
        shortest
    }

    /// The pods to give up: in an Indexed Job first doubles and indexes that are out of range or done.
    fn surplus(&self, active: &[PodView], at_least: usize, status: &JobStatus) -> Vec<PodView> {
        let mut ranked = active.to_vec();
        pods::rank_for_deletion(&mut ranked, &BTreeMap::new(), self.now);
        let mut surplus: Vec<PodView> = Vec::new();
        if let (true, Some(completions)) = (self.indexed, self.completions) {
            let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), completions);
            let mut seen = BTreeSet::new();
            // The best of doubles stands last in the ranking.
            let (needed, useless): (Vec<_>, Vec<_>) = ranked
                .into_iter()
                .rev()
                .partition(|pod| self.valid_index(pod).is_some_and(|i| !done.contains(&i) && seen.insert(i)));
            surplus = useless;
            ranked = needed;
            ranked.sort_by_key(|p| std::cmp::Reverse(indexes::of(p)));
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(ranked.into_iter().take(more));
        surplus.truncate(BURST);
        surplus
    }

    /// What is left of the delay after the failures since the last success; it doubles with each.
    fn backoff(&self) -> Option<Duration> {
        let successes = self.pods.iter().filter(|p| Self::is_success(p));
        let last_success = successes.filter_map(|p| self.finished_at(p)).max();
        let failures: Vec<Timestamp> = self
            .pods
            .iter()
            .filter(|p| self.is_failure(p))
            .filter_map(|p| self.finished_at(p))
            .filter(|t| last_success.is_none_or(|s| *t > s))
            .collect();
        let last = failures.iter().max()?;
        self.delay_after(i32::try_from(failures.len()).unwrap_or(i32::MAX), *last)
    }

    /// What is left of the delay after so many failures in a row.
    fn delay_after(&self, failures: i32, last: Timestamp) -> Option<Duration> {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(16);
        let delay = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        moment::remaining(last, i64::try_from(delay.as_secs()).unwrap_or(i64::MAX), self.now)
    }

    /// When the last container ended; of a pod without that, when it was no longer ready, or deleted.
    fn finished_at(&self, pod: &PodView) -> Option<Timestamp> {
        let ends =
            pod.status.container_statuses.iter().filter_map(|s| s.state.terminated.as_ref()?.finished_at.as_ref());
        let unready = || {
            let condition = pod.condition("Ready").filter(|c| c.status == "False");
            condition.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0)
        };
        let deleted = || {
            let grace = SignedDuration::from_secs(pod.meta.deletion_grace_period_seconds.unwrap_or(0));
            pod.meta.deletion_timestamp.as_ref().and_then(|t| t.0.saturating_sub(grace).ok())
        };
        ends.max().map(|t| t.0).or_else(unready).or_else(deleted).or_else(|| pod.created())
    }
}

pub(super) struct Totals {
    pub(super) succeeded: i32,
    pub(super) failed: i32,
}

/// Counts with those that are recorded but not folded in yet.
pub(super) fn totals(status: &JobStatus) -> Totals {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waiting = |list: Option<Vec<String>>| list.map_or(0, |l| i32::try_from(l.len()).unwrap_or(i32::MAX));
    Totals {
        succeeded: status.succeeded.unwrap_or(0) + waiting(uncounted.succeeded),
        failed: status.failed.unwrap_or(0) + waiting(uncounted.failed),
    }
}

/// Folds the uncounted pods whose finalizers are gone into the counts.
pub(super) fn fold(status: &mut JobStatus, still_tracked: impl Fn(&str) -> bool) {
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let take = |list: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let (keep, counted): (Vec<_>, Vec<_>) =
            list.take().unwrap_or_default().into_iter().partition(|u| still_tracked(u));
        *list = Some(keep).filter(|k| !k.is_empty());
        let total = count.unwrap_or(0) + i32::try_from(counted.len()).unwrap_or(0);
        *count = Some(total).filter(|&n| n != 0);
    };
    take(&mut uncounted.succeeded, &mut status.succeeded);
    take(&mut uncounted.failed, &mut status.failed);
    status.uncounted_terminated_pods = Some(uncounted);
}

/// All that was recorded is counted, and no pod is left: the end can be told as a fact.
pub(super) fn enact(status: &mut JobStatus, end: &End, now: Timestamp) -> bool {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waits = uncounted.succeeded.is_some() || uncounted.failed.is_some();
    if waits || status.active.unwrap_or(0) > 0 || status.terminating.unwrap_or(0) > 0 {
        return false;
    }
    status::set(status, end.fact(now));
    if end.success {
        status.completion_time = Some(moment::time(now));
    }
    true
}
