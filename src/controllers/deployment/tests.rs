//! Rollouts as tables: what a round decides for a Deployment and the sets it has.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
    RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Observed, Plan, Step, plan};
use super::{annotations, conditions, replicasets};
use crate::fixtures::at;

fn template(image: &str) -> PodTemplateSpec {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let container = Container { name: "c".into(), image: Some(image.into()), ..Container::default() };
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
    }
}

fn deployment(replicas: i32, image: &str, surge: i32, unavailable: i32) -> Deployment {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            uid: Some("uid-web".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: Some(labels), ..LabelSelector::default() },
            template: template(image),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(10),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// A set of the Deployment for `image`, sized for a Deployment of `desired`, with `up` available pods.
fn set(name: &str, image: &str, revision: i64, size: i32, up: i32, desired: i32, max: i32) -> ReplicaSet {
    let mut metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        generation: Some(1),
        creation_timestamp: Some(Time(at(revision * 100))),
        ..ObjectMeta::default()
    };
    annotations::set(&mut metadata, annotations::REVISION, revision.to_string());
    annotations::set_sizes(&mut metadata, desired, max);
    ReplicaSet {
        metadata,
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            template: Some(template(image)),
            ..ReplicaSetSpec::default()
        }),
        status: Some(ReplicaSetStatus {
            replicas: size,
            ready_replicas: Some(up),
            available_replicas: Some(up),
            observed_generation: Some(1),
            ..ReplicaSetStatus::default()
        }),
    }
}

fn run(deployment: &Deployment, sets: &[ReplicaSet]) -> Plan {
    plan(deployment, &Observed { sets: sets.to_vec(), old_pods_run: false, now: Time(at(10_000)) })
}

fn sizes(plan: &Plan) -> Vec<(String, i32)> {
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Create { set, scaled } | Step::Update { set, scaled } if !scaled.is_empty() => {
                Some((replicasets::name(set).to_owned(), replicasets::size(set)))
            }
            Step::Create { .. } | Step::Update { .. } | Step::Delete { .. } => None,
        })
        .collect()
}

fn events(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .flat_map(|step| match step {
            Step::Create { scaled, .. } | Step::Update { scaled, .. } => scaled.clone(),
            Step::Delete { .. } => Vec::new(),
        })
        .collect()
}

#[test]
fn the_first_round_makes_a_full_set_of_revision_one() {
    let plan = run(&deployment(3, "v1", 1, 0), &[]);
    let [Step::Create { set, scaled }] = plan.steps.as_slice() else { panic!("{:?}", plan.steps) };
    let name = replicasets::name(set);
    let hash = name.strip_prefix("web-").unwrap();
    assert_eq!(scaled, &[format!("Scaled up replica set {name} from 0 to 3")]);
    assert_eq!(annotations::revision(&set.metadata), 1);
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(set.metadata.labels.as_ref().unwrap()["pod-template-hash"], hash);
    let after = plan.deployment.unwrap();
    assert_eq!(annotations::revision(&after.metadata), 1);
    let status = after.status.unwrap();
    let progressing = conditions::get(&status, conditions::PROGRESSING).unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("NewReplicaSetCreated"));
    assert_eq!(progressing.message.as_deref(), Some(&*format!("Created new replica set \"{name}\"")));
    assert_eq!(status.unavailable_replicas, Some(3));
}

#[test]
fn rolling_steps_stay_within_surge_and_unavailability() {
    type Row = (&'static str, i32, i32, Vec<ReplicaSet>, Vec<(&'static str, i32)>);
    let rows: [Row; 6] = [
        ("surge first", 1, 0, vec![set("a", "v1", 1, 3, 3, 3, 4), set("b", "v2", 2, 0, 0, 3, 4)], vec![("b", 1)]),
        ("wait for the new pod", 1, 0, vec![set("a", "v1", 1, 3, 3, 3, 4), set("b", "v2", 2, 1, 0, 3, 4)], vec![]),
        (
            "then take an old one",
            1,
            0,
            vec![set("a", "v1", 1, 3, 3, 3, 4), set("b", "v2", 2, 1, 1, 3, 4)],
            vec![("a", 2)],
        ),
        (
            "no surge: take first",
            0,
            1,
            vec![set("a", "v1", 1, 3, 3, 3, 3), set("b", "v2", 2, 0, 0, 3, 3)],
            vec![("a", 2)],
        ),
        (
            "unhealthy old pods go at once",
            1,
            0,
            vec![set("a", "v1", 1, 2, 0, 2, 3), set("b", "v2", 2, 1, 0, 2, 3)],
            vec![],
        ),
        (
            "unhealthy beyond the minimum",
            1,
            1,
            vec![set("a", "v1", 1, 3, 1, 3, 4), set("b", "v2", 2, 1, 1, 3, 4)],
            vec![("a", 1)],
        ),
    ];
    for (what, surge, unavailable, sets, expected) in rows {
        let wanted = if what.starts_with("unhealthy old") { 2 } else { 3 };
        let got = sizes(&run(&deployment(wanted, "v2", surge, unavailable), &sets));
        let expected: Vec<_> = expected.into_iter().map(|(n, s)| (n.to_owned(), s)).collect();
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn sizes_as_large_as_their_type_are_sized_as_any_other() {
    const MOST: i32 = i32::MAX;
    let quarter = || Some(IntOrString::String("25%".into()));
    let rolling = RollingUpdateDeployment { max_surge: quarter(), max_unavailable: quarter() };
    let mut huge = deployment(MOST, "v2", 1, 0);
    huge.spec.as_mut().unwrap().strategy.as_mut().unwrap().rolling_update = Some(rolling);
    let Step::Create { set: made, scaled } = &run(&huge, &[]).steps[0] else { panic!() };
    assert_eq!(replicasets::size(made), MOST);
    assert_eq!(annotations::number(&made.metadata, annotations::MAX_REPLICAS), Some(MOST));
    assert!(scaled[0].ends_with("from 0 to 2147483647"), "{scaled:?}");
    // In the middle of a rollout, and when the size changes there.
    let (old, new) = (set("a", "v1", 1, MOST, 5, MOST, MOST), set("b", "v2", 2, MOST, MOST, MOST, MOST));
    assert_eq!(sizes(&run(&huge, &[old.clone(), new.clone()])), [("a".to_owned(), 0)]);
    let status = run(&huge, &[old.clone(), new.clone()]).deployment.unwrap().status.unwrap();
    assert_eq!((status.available_replicas, status.unavailable_replicas), (Some(MOST), None));
    let fewer = sizes(&run(&deployment(10, "v2", MOST, 0), &[old, new]));
    assert_eq!(fewer, [("a".to_owned(), 0)]);
}

#[test]
fn a_rollback_raises_the_revision_and_remembers_the_old_one() {
    let sets = [set("a", "v1", 1, 0, 0, 1, 2), set("b", "v2", 2, 0, 0, 1, 2), set("c", "v3", 3, 1, 1, 1, 2)];
    let plan = run(&deployment(1, "v2", 1, 0), &sets);
    let Step::Update { set, scaled } = &plan.steps[0] else { panic!("{:?}", plan.steps) };
    assert_eq!(replicasets::name(set), "b");
    assert_eq!(annotations::revision(&set.metadata), 4);
    assert_eq!(annotations::get(&set.metadata, "deployment.kubernetes.io/revision-history"), Some("2"));
    assert_eq!(scaled, &["Scaled up replica set b from 0 to 1"]);
    assert_eq!(annotations::revision(&plan.deployment.unwrap().metadata), 4);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let sets = [set("a", "v1", 1, 8, 8, 10, 13), set("b", "v2", 2, 5, 5, 10, 13)];
    let plan = run(&deployment(20, "v2", 6, 0), &sets);
    assert_eq!(sizes(&plan), [("a".to_owned(), 16), ("b".to_owned(), 10)]);
    let down = run(&deployment(5, "v2", 2, 0), &sets);
    assert_eq!(sizes(&down), [("a".to_owned(), 4), ("b".to_owned(), 3)]);
    let none = run(&deployment(0, "v2", 2, 0), &sets);
    assert_eq!(sizes(&none), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
}

#[test]
fn a_lone_set_takes_the_whole_change_of_size() {
    let plan = run(&deployment(5, "v1", 1, 0), &[set("a", "v1", 1, 2, 2, 2, 3)]);
    assert_eq!(events(&plan), ["Scaled up replica set a from 2 to 5"]);
    let Step::Update { set, .. } = &plan.steps[0] else { panic!() };
    assert!(annotations::sizes_are(&set.metadata, 5, 6));
}

#[test]
fn recreate_takes_all_old_pods_before_it_makes_new_ones() {
    let mut d = deployment(2, "v2", 0, 0);
    d.spec.as_mut().unwrap().strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    let first = run(&d, &[set("a", "v1", 1, 2, 2, 2, 2)]);
    assert_eq!(events(&first), ["Scaled down replica set a from 2 to 0"]);
    let waiting = Observed { sets: vec![set("a", "v1", 1, 0, 0, 2, 2)], old_pods_run: true, now: Time(at(10_000)) };
    assert!(plan(&d, &waiting).steps.is_empty());
    let last = run(&d, &[set("a", "v1", 1, 0, 0, 2, 2)]);
    assert!(matches!(last.steps.as_slice(), [Step::Create { set, .. }] if replicasets::size(set) == 2));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut d = deployment(4, "v2", 1, 0);
    d.spec.as_mut().unwrap().paused = Some(true);
    let plan = run(&d, &[set("a", "v1", 1, 2, 2, 2, 3)]);
    assert_eq!(events(&plan), ["Scaled up replica set a from 2 to 4"]);
    let status = plan.deployment.unwrap().status.unwrap();
    assert_eq!(conditions::get(&status, "Progressing").unwrap().reason.as_deref(), Some("DeploymentPaused"));
}

#[track_caller]
fn check_progress(last_update: i64, up: i32, expected: (&str, &str)) -> Option<std::time::Duration> {
    let mut d = deployment(2, "v2", 1, 0);
    let mut status = DeploymentStatus { replicas: Some(2), updated_replicas: Some(2), ..DeploymentStatus::default() };
    let condition = conditions::new("Progressing", "True", "ReplicaSetUpdated", "…".to_owned(), &Time(at(last_update)));
    conditions::set(&mut status, condition);
    d.status = Some(status);
    let plan = run(&d, &[set("b", "v2", 2, 2, up, 2, 3)]);
    let status = plan.deployment.unwrap().status.unwrap();
    let progressing = conditions::get(&status, "Progressing").unwrap();
    assert_eq!((progressing.status.as_str(), progressing.reason.as_deref().unwrap()), expected);
    plan.recheck
}

#[test]
fn progress_is_judged_by_the_deadline() {
    assert_eq!(check_progress(9_990, 2, ("True", "NewReplicaSetAvailable")), None);
    check_progress(9_000, 1, ("True", "ReplicaSetUpdated"));
    assert_eq!(check_progress(9_500, 0, ("True", "ReplicaSetUpdated")), Some(std::time::Duration::from_secs(101)));
    assert_eq!(check_progress(9_000, 0, ("False", "ProgressDeadlineExceeded")), None);
}

#[test]
fn idle_sets_beyond_the_history_limit_are_deleted_oldest_first() {
    let mut d = deployment(1, "v4", 1, 0);
    d.spec.as_mut().unwrap().revision_history_limit = Some(1);
    d.status = Some(DeploymentStatus {
        replicas: Some(1),
        updated_replicas: Some(1),
        available_replicas: Some(1),
        observed_generation: Some(1),
        ..DeploymentStatus::default()
    });
    let sets = [
        set("a", "v1", 1, 0, 0, 1, 2),
        set("b", "v2", 2, 0, 0, 1, 2),
        set("c", "v3", 3, 0, 0, 1, 2),
        set("d", "v4", 4, 1, 1, 1, 2),
    ];
    let deleted: Vec<_> = run(&d, &sets)
        .steps
        .into_iter()
        .filter_map(|s| match s {
            Step::Delete { set } => set.metadata.name,
            Step::Create { .. } | Step::Update { .. } => None,
        })
        .collect();
    assert_eq!(deleted, ["a", "b"]);
}
