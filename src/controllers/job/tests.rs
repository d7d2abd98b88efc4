//! Jobs as tables: what a round decides.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, JobStatus, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
    SuccessPolicy, SuccessPolicyRule, UncountedTerminatedPods,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::plan::{self, NewPod, Plan, plan};
use super::{FINALIZER, pods::new_pod, status};
use crate::fixtures::{PodBuilder, at, pod};

fn job(completions: Option<i32>, parallelism: i32) -> Job {
    let spec = PodSpec {
        containers: vec![Container { name: "c".into(), ..Container::default() }],
        restart_policy: Some("Never".into()),
        ..PodSpec::default()
    };
    Job {
        metadata: ObjectMeta { name: Some("pi".into()), namespace: Some("default".into()), ..ObjectMeta::default() },
        spec: Some(JobSpec {
            completions,
            parallelism: Some(parallelism),
            backoff_limit: Some(2),
            template: PodTemplateSpec { metadata: None, spec: Some(spec) },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn tracked(name: &str) -> PodBuilder {
    pod(name).finalizer(FINALIZER).on("n")
}

fn failed(name: &str, second: i64) -> PodBuilder {
    tracked(name).phase("Failed").exited(1, at(second))
}

fn run(job: &Job, pods: &[PodBuilder], now: i64) -> Plan {
    let pods: Vec<_> = pods.iter().cloned().map(PodBuilder::view).collect();
    plan(job, job.spec.as_ref().unwrap(), &pods, at(now))
}

fn indexed(completions: i32, parallelism: i32) -> Job {
    let mut job = job(Some(completions), parallelism);
    job.spec.as_mut().unwrap().completion_mode = Some("Indexed".into());
    job
}

fn index(pod: PodBuilder, index: i32) -> PodBuilder {
    pod.annotation(super::indexes::ANNOTATION, &index.to_string())
}

#[test]
fn pods_are_made_up_to_parallelism_and_what_is_left_to_complete() {
    let rows: [(Option<i32>, i32, Vec<PodBuilder>, usize); 6] = [
        (Some(1), 1, vec![], 1),
        (Some(5), 2, vec![], 2),
        (Some(5), 2, vec![tracked("a").running()], 1),
        (Some(2), 5, vec![tracked("a").phase("Succeeded")], 1),
        (None, 3, vec![tracked("a").running()], 2),
        (None, 3, vec![tracked("a").running(), tracked("b").phase("Succeeded")], 0),
    ];
    for (completions, parallelism, pods, expected) in rows {
        let plan = run(&job(completions, parallelism), &pods, 100);
        assert_eq!(plan.pods.create.len(), expected, "{completions:?} {parallelism}");
        assert!(plan.pods.dismiss.is_empty());
    }
}

#[test]
fn a_finished_pod_is_recorded_then_counted_once() {
    let plan = run(&job(Some(2), 2), &[tracked("a").phase("Succeeded")], 100);
    assert_eq!(plan.release.len(), 1);
    let uncounted = plan.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["uid-a".to_owned()]));
    let mut status = plan.status;
    plan::fold(&mut status, |_| true);
    assert_eq!(status.succeeded, None);
    plan::fold(&mut status, |_| false);
    assert_eq!((status.succeeded, plan::totals(&status).succeeded), (Some(1), 1));
    assert_eq!(status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
}

#[test]
fn the_last_success_completes_the_job() {
    let plan = run(&job(Some(1), 1), &[tracked("a").phase("Succeeded")], 100);
    let end = plan.end.unwrap();
    assert_eq!((end.success, end.reason.as_str()), (true, "CompletionsReached"));
    assert!(status::find(&plan.status, "SuccessCriteriaMet").is_some());
    let mut status = plan.status;
    assert!(!plan::enact(&mut status, &end, at(101)), "a pod is recorded but not counted yet");
    plan::fold(&mut status, |_| false);
    assert!(plan::enact(&mut status, &end, at(101)));
    assert_eq!(status.completion_time, Some(Time(at(101))));
    assert_eq!(
        status::find(&status, "Complete").unwrap().message.as_deref(),
        Some("Reached expected number of succeeded pods")
    );
}

#[test]
fn failures_delay_new_pods_ever_longer() {
    let plan = run(&job(Some(1), 1), &[failed("a", 100)], 104);
    assert!(plan.pods.create.is_empty());
    assert_eq!(plan.recheck, Some(Duration::from_secs(6)));
    assert_eq!(run(&job(Some(1), 1), &[failed("a", 100)], 110).pods.create.len(), 1);
    let twice = run(&job(Some(1), 1), &[failed("a", 100), failed("b", 120)], 125);
    assert_eq!(twice.recheck, Some(Duration::from_secs(15)));
    let success = tracked("s").phase("Succeeded").exited(0, at(110));
    let after_success = run(&job(Some(3), 1), &[failed("a", 100), success, failed("b", 120)], 121);
    assert_eq!(after_success.recheck, Some(Duration::from_secs(9)));
}

#[test]
fn too_many_failures_end_the_job_and_stop_what_runs() {
    let pods = [failed("a", 1), failed("b", 2), failed("c", 3), tracked("d").running()];
    let plan = run(&job(Some(5), 5), &pods, 100);
    let end = plan.end.unwrap();
    assert_eq!((end.success, end.reason.as_str()), (false, "BackoffLimitExceeded"));
    assert_eq!(end.message, "Job has reached the specified backoff limit");
    assert_eq!(plan.pods.terminate.len(), 1);
    assert!(plan.pods.create.is_empty());
    assert!(status::find(&plan.status, "FailureTarget").is_some());
}

#[test]
fn restarts_in_place_count_against_the_limit() {
    let mut job = job(Some(1), 1);
    job.spec.as_mut().unwrap().template.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
    assert!(run(&job, &[tracked("a").running().restarts(1)], 100).end.is_none());
    assert_eq!(run(&job, &[tracked("a").running().restarts(2)], 100).end.unwrap().reason, "BackoffLimitExceeded");
}

#[test]
fn the_active_deadline_ends_the_job() {
    let mut job = job(Some(1), 1);
    job.spec.as_mut().unwrap().active_deadline_seconds = Some(30);
    job.status = Some(JobStatus { start_time: Some(Time(at(100))), ..JobStatus::default() });
    assert_eq!(run(&job, &[tracked("a").running()], 110).recheck, Some(Duration::from_secs(20)));
    assert_eq!(run(&job, &[tracked("a").running()], 130).end.unwrap().reason, "DeadlineExceeded");
}

#[test]
fn suspension_dismisses_pods_and_stops_the_clock() {
    let mut job = job(Some(2), 2);
    job.spec.as_mut().unwrap().suspend = Some(true);
    job.status = Some(JobStatus { start_time: Some(Time(at(1))), ..JobStatus::default() });
    let plan = run(&job, &[tracked("a").running()], 100);
    assert_eq!(plan.event, Some(("Suspended", "Job suspended")));
    assert_eq!((plan.pods.dismiss.len(), plan.status.start_time.clone()), (1, None));
    job.status = Some(plan.status);
    job.spec.as_mut().unwrap().suspend = Some(false);
    let resumed = run(&job, &[], 200);
    assert_eq!(resumed.event, Some(("Resumed", "Job resumed")));
    assert_eq!((resumed.pods.create.len(), resumed.status.start_time), (2, Some(Time(at(200)))));
}

#[test]
fn indexed_jobs_work_on_the_lowest_open_indexes() {
    let pods = [index(tracked("a").phase("Succeeded"), 0), index(tracked("b").running(), 2)];
    let plan = run(&indexed(5, 3), &pods, 100);
    let created: Vec<_> = plan.pods.create.iter().map(|p| p.index.unwrap()).collect();
    assert_eq!(created, [1, 3]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.status.succeeded, Some(1));
    let doubles = [index(tracked("a").running(), 0), index(tracked("b").running(), 0)];
    assert_eq!(run(&indexed(5, 2), &doubles, 100).pods.dismiss.len(), 1);
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let mut job = indexed(5, 5);
    let rule = SuccessPolicyRule { succeeded_indexes: Some("0,2".into()), succeeded_count: Some(1) };
    job.spec.as_mut().unwrap().success_policy = Some(SuccessPolicy { rules: vec![rule] });
    let pods = [index(tracked("a").phase("Succeeded"), 2), index(tracked("b").running(), 1)];
    let plan = run(&job, &pods, 100);
    assert_eq!(plan.end.unwrap().reason, "SuccessPolicy");
    assert_eq!(plan.pods.terminate.len(), 1);
}

#[test]
fn pods_of_an_indexed_job_know_their_index() {
    let job = indexed(3, 3);
    let made = new_pod(&job, job.spec.as_ref().unwrap(), &NewPod { index: Some(2), failures: None });
    assert_eq!(made.metadata.generate_name.as_deref(), Some("pi-2-"));
    assert_eq!(made.metadata.labels.unwrap()["batch.kubernetes.io/job-completion-index"], "2");
    assert_eq!(made.metadata.finalizers.unwrap(), [FINALIZER]);
    let spec = made.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("pi-2"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
}

fn per_index(limit: i32, most: Option<i32>) -> Job {
    let mut job = indexed(3, 3);
    let spec = job.spec.as_mut().unwrap();
    (spec.backoff_limit, spec.backoff_limit_per_index, spec.max_failed_indexes) = (Some(i32::MAX), Some(limit), most);
    job
}

#[test]
fn an_index_that_failed_is_tried_again_with_its_count() {
    let pods = [index(failed("a", 100), 0), index(tracked("b").running(), 1), index(tracked("c").running(), 2)];
    let waits = run(&per_index(1, None), &pods, 104);
    assert_eq!((waits.recheck, waits.release.len()), (Some(Duration::from_secs(6)), 0), "kept for its count");
    assert_eq!(waits.status.failed_indexes.as_deref(), Some(""));
    let again = run(&per_index(1, None), &pods, 111);
    let job = per_index(1, None);
    let made = new_pod(&job, job.spec.as_ref().unwrap(), &again.pods.create[0]);
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "1");
    assert_eq!(annotations["batch.kubernetes.io/job-completion-index"], "0");
    let replaced = run(&job, &[pods[0].clone(), index(tracked("d").running(), 0)], 112);
    assert_eq!(replaced.status.uncounted_terminated_pods.unwrap().failed.unwrap(), ["uid-a"]);
}

#[test]
fn indexes_fail_apart_and_the_others_go_on() {
    let last = || index(failed("a", 1), 0).annotation("batch.kubernetes.io/job-index-failure-count", "1");
    let running = run(&per_index(1, None), &[last(), index(tracked("b").phase("Succeeded"), 1)], 100);
    assert_eq!(running.status.failed_indexes.as_deref(), Some("0"));
    assert!(running.end.is_none());
    assert_eq!(running.pods.create.iter().map(|p| p.index.unwrap()).collect::<Vec<_>>(), [2]);
    let done = |n: &str, i| index(tracked(n).phase("Succeeded"), i);
    let ended = run(&per_index(1, None), &[last(), done("b", 1), done("c", 2)], 100).end.unwrap();
    assert_eq!((ended.success, ended.reason.as_str()), (false, "FailedIndexes"));
}

#[test]
fn too_many_failed_indexes_end_the_job_and_count_what_was_kept() {
    let pods = [index(failed("a", 98), 0), index(failed("b", 98), 1), index(failed("c", 98), 2)];
    let ended = run(&per_index(0, Some(1)), &pods, 100);
    assert_eq!(ended.end.unwrap().reason, "MaxFailedIndexesExceeded");
    let mut policy = per_index(3, Some(0));
    policy.spec.as_mut().unwrap().pod_failure_policy = Some(PodFailurePolicy {
        rules: vec![PodFailurePolicyRule {
            action: "FailIndex".into(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                operator: "In".into(),
                values: vec![42],
                container_name: None,
            }),
            on_pod_conditions: None,
        }],
    });
    let pods = [index(tracked("a").phase("Failed").exited(42, at(98)), 0), index(failed("b", 98), 1)];
    let ended = run(&policy, &pods, 100);
    assert_eq!(ended.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(ended.end.unwrap().reason, "MaxFailedIndexesExceeded");
    assert_eq!((ended.release.len(), ended.status.uncounted_terminated_pods.unwrap().failed.unwrap().len()), (2, 2));
}

#[test]
fn a_long_name_leaves_room_for_the_index() {
    let mut job = indexed(3, 3);
    job.metadata.name = Some("x".repeat(63));
    let made = new_pod(&job, job.spec.as_ref().unwrap(), &NewPod { index: Some(2), failures: None });
    assert!(made.metadata.generate_name.is_some_and(|n| n.len() == 58 && n.ends_with("-2-")));
}
