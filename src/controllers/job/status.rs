//! A Job's conditions.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};

use crate::moment;

pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUSPENDED: &str = "Suspended";

/// How a Job ends: named first as the intention, and as the fact once no pod is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) success: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl End {
    pub(super) fn success(reason: &str, message: &str) -> Self {
        Self { success: true, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(super) fn failure(reason: &str, message: &str) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(super) fn intention(&self, now: Timestamp) -> JobCondition {
        self.condition(if self.success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }, now)
    }

    pub(super) fn fact(&self, now: Timestamp) -> JobCondition {
        self.condition(if self.success { COMPLETE } else { FAILED }, now)
    }

    fn condition(&self, kind: &str, now: Timestamp) -> JobCondition {
        condition(kind, "True", &self.reason, &self.message, now)
    }

    /// The end that an earlier round settled on.
    pub(super) fn of(status: &JobStatus) -> Option<Self> {
        let intended = |kind| find(status, kind).filter(|c| c.status == "True");
        let (found, success) = match intended(SUCCESS_CRITERIA_MET) {
            Some(found) => (found, true),
            None => (intended(FAILURE_TARGET)?, false),
        };
        Some(Self {
            success,
            reason: found.reason.clone().unwrap_or_default(),
            message: found.message.clone().unwrap_or_default(),
        })
    }
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(moment::time(now)),
        last_transition_time: Some(moment::time(now)),
    }
}

pub(super) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Sets a condition, in its old place if it has one.
pub(super) fn set(status: &mut JobStatus, condition: JobCondition) {
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// `Complete` or `Failed`, with the type of the condition.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().find(|c| matches!(c.type_.as_str(), COMPLETE | FAILED) && c.status == "True")
}
