use super::*;
use crate::fixtures::{container, exited, observed, pod, running, sandbox};
use runtime::SandboxState;
use serde_json::json;

fn two() -> Pod {
    pod(json!({"initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "a"}, {"name": "b"}]}))
}

fn with_sidecar() -> Pod {
    pod(json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}],
        "containers": [{"name": "a"}]}))
}

#[derive(Default)]
struct Given {
    started: Vec<&'static str>,
    unhealthy: Vec<(&'static str, Unhealthy)>,
    crashes: HashMap<String, Failures>,
    held: HashMap<String, Timestamp>,
    outgrown: HashSet<String>,
    starting: Option<&'static str>,
    now: i64,
}

fn run(pod: &Pod, observed: &Observed, given: &Given) -> Plan {
    let health = given.started.iter().map(|id| ((*id).to_owned(), Health { started: true, ready: true })).collect();
    let unhealthy = given.unhealthy.iter().map(|(id, u)| ((*id).to_owned(), *u)).collect();
    plan(&Inputs {
        pod,
        observed,
        health: &health,
        unhealthy: &unhealthy,
        crashes: &given.crashes,
        held: &given.held,
        outgrown: &given.outgrown,
        replaced: &given.outgrown,
        starting: given.starting,
        now: Timestamp::from_second(given.now).unwrap(),
    })
}

#[track_caller]
fn check_start(pod: &Pod, containers: Vec<ContainerStatus>, started: &[&'static str], expected: &[&str]) {
    let given = Given { started: started.to_vec(), ..Given::default() };
    let plan = run(pod, &observed(containers), &given);
    assert_eq!((plan.groundwork(true), plan.groundwork(false)), (Groundwork::Done, Groundwork::SetUp));
    assert_eq!((plan.sandbox, plan.kill), (SandboxPlan::Keep, vec![]));
    assert_eq!(plan.start, expected);
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    let plan = run(&two(), &Observed::default(), &Given::default());
    assert_eq!(plan.sandbox, SandboxPlan::Create { attempt: 0, changed: false });
    assert_eq!(plan.groundwork(true), Groundwork::SetUp);
    assert!(plan.start.is_empty());
}

#[test]
fn a_lost_sandbox_is_made_again_with_the_next_attempt() {
    let pod = two();
    let seen = Observed::new(Some(sandbox(SandboxState::NotReady)), vec![running(&pod, "a", 0)], vec![]);
    let plan = run(&pod, &seen, &Given::default());
    assert_eq!(plan.sandbox, SandboxPlan::Create { attempt: 1, changed: true });
    assert_eq!(plan.kill.len(), 1);
}

#[test]
fn no_sandbox_is_made_again_for_a_pod_whose_containers_do_not_come_back() {
    let (over, again) = (SandboxPlan::Over, SandboxPlan::Create { attempt: 1, changed: true });
    for (policy, codes, expected) in [
        ("Never", &[Some(137), Some(0)][..], &over),
        ("Never", &[Some(137), None], &again),
        ("OnFailure", &[Some(0), Some(0)], &over),
        ("OnFailure", &[Some(0), Some(137)], &again),
        ("Always", &[Some(0), Some(0)], &again),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}]}));
        let ended = codes.iter().zip(["a", "b"]).filter_map(|(code, name)| Some(exited(&pod, name, 0, (*code)?)));
        let containers = ended.chain([exited(&pod, "i", 0, 0)]).collect();
        let seen = Observed::new(Some(sandbox(SandboxState::NotReady)), containers, vec![]);
        let plan = run(&pod, &seen, &Given::default());
        assert_eq!(&plan.sandbox, expected, "{policy} {codes:?}");
        let groundwork = if expected == &over { Groundwork::Done } else { Groundwork::SetUp };
        assert_eq!((plan.groundwork(false), plan.start.len()), (groundwork, 0));
    }
}

#[test]
fn everything_is_started_again_in_a_new_sandbox_but_what_is_done() {
    let pod = pod(json!({"restartPolicy": "OnFailure", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "b"}]}));
    let mut anew = sandbox(SandboxState::Ready);
    anew.labels.insert(label::SANDBOX_ATTEMPT.to_owned(), "1".to_owned());
    let before = || vec![exited(&pod, "i", 0, 0), exited(&pod, "a", 0, 0), exited(&pod, "b", 0, 137)];
    let seen = Observed::new(Some(anew.clone()), before(), vec![]);
    assert_eq!(run(&pod, &seen, &Given::default()).start, ["i"]);
    let mut again = exited(&pod, "i", 1, 0);
    again.labels.insert(label::SANDBOX_ATTEMPT.to_owned(), "1".to_owned());
    let seen = Observed::new(Some(anew), [before(), vec![again]].concat(), vec![]);
    assert_eq!(run(&pod, &seen, &Given::default()).start, ["b"]);
}

#[test]
fn nothing_is_ended_or_started_in_a_sandbox_that_nobody_can_look_into() {
    let pod = two();
    let seen = Observed::new(Some(sandbox(SandboxState::Unknown)), vec![running(&pod, "a", 0)], vec![]);
    let plan = run(&pod, &seen, &Given::default());
    for mounted in [false, true] {
        assert_eq!(plan.groundwork(mounted), Groundwork::Recover, "not after volumes that may never come");
    }
    assert_eq!((plan.sandbox, plan.kill, plan.start), (SandboxPlan::Recover, vec![], vec![]));
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = two();
    check_start(&pod, vec![], &[], &["i1"]);
    check_start(&pod, vec![running(&pod, "i1", 0)], &[], &[]);
    check_start(&pod, vec![exited(&pod, "i1", 0, 0)], &[], &["i2"]);
    check_start(&pod, vec![exited(&pod, "i1", 0, 1)], &[], &["i1"]);
    check_start(&pod, vec![exited(&pod, "i1", 0, 0), exited(&pod, "i2", 0, 0)], &[], &["a", "b"]);
}

#[test]
fn init_containers_do_not_run_again_once_an_app_ran() {
    let pod = two();
    check_start(&pod, vec![exited(&pod, "i1", 0, 0), running(&pod, "a", 0)], &[], &["b"]);
    check_start(&pod, vec![exited(&pod, "a", 0, 1), running(&pod, "b", 0)], &[], &["a"]);
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let pod = two();
    let mut old = exited(&pod, "i1", 0, 0);
    old.labels.insert(label::SANDBOX_ATTEMPT.to_owned(), "7".to_owned());
    check_start(&pod, vec![old], &[], &["i1"]);
}

#[test]
fn what_follows_a_sidecar_waits_until_it_has_started() {
    let pod = with_sidecar();
    check_start(&pod, vec![], &[], &["s"]);
    check_start(&pod, vec![running(&pod, "s", 0)], &[], &[]);
    check_start(&pod, vec![running(&pod, "s", 0)], &["s-0"], &["i"]);
    check_start(&pod, vec![running(&pod, "s", 0), exited(&pod, "i", 0, 0)], &["s-0"], &["a"]);
    check_start(&pod, vec![exited(&pod, "s", 0, 0), running(&pod, "a", 0)], &[], &["s"]);
}

#[test]
fn restart_policies() {
    for (policy, code, expected) in [
        ("Always", 0, vec!["a"]),
        ("Always", 1, vec!["a"]),
        ("OnFailure", 0, vec![]),
        ("OnFailure", 1, vec!["a"]),
        ("Never", 1, vec![]),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        check_start(&pod, vec![exited(&pod, "a", 0, code)], &[], &expected);
    }
}

#[test]
fn a_container_that_keeps_crashing_waits() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut crashes = Failures::default();
    crashes.add(Timestamp::from_second(5).unwrap());
    let key = backoff_key(&pod.spec().containers[0]);
    let given = Given { crashes: [(key, crashes)].into(), now: 12, ..Given::default() };
    let got = run(&pod, &observed(vec![exited(&pod, "a", 1, 1)]), &given);
    assert!(got.start.is_empty());
    assert_eq!(
        got.crash_looping["a"],
        Waiting::new("CrashLoopBackOff", "back-off 10s restarting failed container=a pod=web_prod(u1)")
    );
    assert_eq!(got.look_again, Some(Timestamp::from_second(20).unwrap()));
    let at_once = Given { now: 11, ..given };
    let got = run(&pod, &observed(vec![exited(&pod, "a", 1, 1)]), &at_once);
    assert_eq!((got.start.len(), got.crash_looping.len()), (0, 0), "first its end is shown");
    assert_eq!(got.look_again, Some(Timestamp::from_second(12).unwrap()));
    let starting = Given { starting: Some("a"), now: 12, ..at_once };
    let meanwhile = run(&pod, &observed(vec![exited(&pod, "a", 1, 1)]), &starting);
    assert_eq!((meanwhile.start, meanwhile.crash_looping), (vec!["a".to_owned()], BTreeMap::new()));
    let mut changed = pod.clone();
    changed.spec.as_mut().unwrap().containers[0].image = Some("other".to_owned());
    let given = Given { starting: None, ..starting };
    assert_eq!(run(&changed, &observed(vec![exited(&pod, "a", 1, 1)]), &given).start, ["a"]);
    let later = run(&pod, &observed(vec![exited(&pod, "a", 1, 1)]), &Given { now: 20, ..given });
    assert_eq!(later.start, ["a"]);
}

#[test]
fn a_failed_start_is_held_back() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let until = Timestamp::from_second(30).unwrap();
    let given = Given { held: [("a".to_owned(), until)].into(), now: 12, ..Given::default() };
    let got = run(&pod, &observed(vec![]), &given);
    assert_eq!((got.start, got.look_again), (vec!["b".to_owned()], Some(until)));
}

#[test]
fn failing_probes_and_changed_images_kill() {
    let make = |policy: &str| {
        pod(json!({"restartPolicy": policy, "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}]}))
    };
    let (liveness, startup) = (Some(Unhealthy::Liveness), Some(Unhealthy::Startup));
    for (policy, name, unhealthy, expected, replace) in [
        ("Always", "a", liveness, "Container a failed liveness probe, will be restarted", false),
        ("Always", "a", startup, "Container a failed startup probe, will be restarted", false),
        ("Never", "a", liveness, "Container a failed liveness probe", false),
        ("Never", "s", liveness, "Init container s failed liveness probe", false),
        ("Never", "a", None, "Container a definition changed, will be restarted", true),
        ("Always", "s", None, "Init container s definition changed", true),
    ] {
        let pod = make(policy);
        let mut containers = vec![running(&pod, "a", 0), running(&pod, "s", 0)];
        let changed = containers.iter_mut().find(|c| c.name == name && unhealthy.is_none());
        if let Some(changed) = changed {
            changed.labels.insert(label::HASH.to_owned(), "before".to_owned());
        }
        let id = if name == "a" { "a-0" } else { "s-0" };
        let unhealthy = unhealthy.map(|u| (id, u)).into_iter().collect();
        let got = run(&pod, &observed(containers), &Given { unhealthy, ..Given::default() });
        assert_eq!(got.kill.iter().map(|k| (&*k.message, k.replace)).collect::<Vec<_>>(), [(expected, replace)]);
    }
}

#[test]
fn a_container_that_was_made_but_not_started_is_made_again() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    check_start(&pod, vec![container(&pod, "a", 0, ContainerState::Created)], &[], &["a"]);
}

#[test]
fn a_container_that_outgrew_its_resources_is_restarted_whatever_its_policy() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let given = Given { outgrown: HashSet::from(["a-0".to_owned()]), ..Given::default() };
    let plan = run(&pod, &observed(vec![running(&pod, "a", 0)]), &given);
    assert_eq!(plan.kill.iter().map(|k| &*k.message).collect::<Vec<_>>(), ["Container a resize requires restart"]);
    assert_eq!(run(&pod, &observed(vec![exited(&pod, "a", 0, 0)]), &given).start, ["a"]);
}
