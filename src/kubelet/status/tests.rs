use super::*;
use crate::fixtures::{exited, observed, pod, running};
use crate::observed::Observed;
use serde_json::{Value, json};

struct Given {
    observed: Observed,
    old: PodStatus,
    waiting: BTreeMap<String, Waiting>,
    unready: Vec<&'static str>,
    applied: HashMap<String, ResourceRequirements>,
    resize: Resize,
    replaced: HashSet<String>,
    verdict: Option<Verdict>,
    stopping: bool,
    ended: bool,
}

impl Given {
    fn seen(observed: Observed) -> Self {
        Self {
            observed,
            old: PodStatus::default(),
            waiting: BTreeMap::new(),
            unready: vec![],
            applied: HashMap::new(),
            resize: Resize::default(),
            replaced: HashSet::new(),
            verdict: None,
            stopping: false,
            ended: false,
        }
    }
}

/// What a worker publishes that has nothing under way: it has ended where its phase is to be final and nothing runs.
fn status(pod: &Pod, given: &Given) -> PodStatus {
    let first = computed(pod, given, &given.old, (given.stopping, given.ended));
    if first.finished && given.observed.running().next().is_none() {
        return computed(pod, given, &first.status, (true, true)).status;
    }
    first.status
}

fn computed(pod: &Pod, given: &Given, old: &PodStatus, (stopping, ended): (bool, bool)) -> Computed {
    let health = given
        .observed
        .running()
        .map(|c| (c.id.clone(), Health { started: true, ready: !given.unready.contains(&&*c.id) }))
        .collect();
    let host = ["192.168.1.5".parse().unwrap()];
    compute(&Inputs {
        pod,
        old,
        observed: &given.observed,
        waiting: &given.waiting,
        health: &health,
        messages: &HashMap::from([("a-0".to_owned(), "last words".to_owned())]),
        users: &HashMap::from([("a-1".to_owned(), LinuxContainerUser { uid: 5, gid: 6, supplemental_groups: None })]),
        applied: &given.applied,
        resize: &given.resize,
        replaced: &given.replaced,
        verdict: given.verdict.as_ref(),
        stopping,
        ended,
        host_ips: &host,
        now: Timestamp::from_second(1000).unwrap(),
    })
}

fn condition(status: &PodStatus, name: &str) -> (String, Option<String>, Option<String>) {
    let c = status.conditions.iter().flatten().find(|c| c.type_ == name).unwrap();
    (c.status.clone(), c.reason.clone(), c.message.clone())
}

fn says(status: &str, reason: &str, message: &str) -> (String, Option<String>, Option<String>) {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    (status.to_owned(), text(reason), text(message))
}

#[test]
fn phases_follow_containers_and_policy() {
    let make = |policy: &str| pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
    let p = make("Always");
    for (policy, codes, stopping, expected) in [
        ("Always", [None, None], false, "Running"),
        ("Always", [Some(1), None], false, "Running"),
        ("Always", [Some(0), Some(0)], false, "Running"),
        ("Always", [Some(0), Some(0)], true, "Succeeded"),
        ("Always", [Some(137), Some(0)], true, "Failed"),
        ("OnFailure", [Some(0), Some(0)], false, "Succeeded"),
        ("OnFailure", [Some(1), Some(0)], false, "Running"),
        ("Never", [Some(1), Some(0)], false, "Failed"),
        ("Never", [Some(0), Some(0)], false, "Succeeded"),
        ("Never", [Some(0), None], false, "Running"),
    ] {
        let one = |name: &str, code: Option<i32>| match code {
            Some(code) => exited(&p, name, 0, code),
            None => running(&p, name, 0),
        };
        let seen = observed(vec![one("a", codes[0]), one("b", codes[1])]);
        let given = Given { stopping, ..Given::seen(seen) };
        let got = status(&make(policy), &given);
        assert_eq!(got.phase.as_deref(), Some(expected), "{policy} {codes:?} {stopping}");
    }
}

#[test]
fn a_new_pod_waits_for_its_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let got = status(&pod, &Given::seen(Observed::default()));
    assert_eq!(got.phase.as_deref(), Some("Pending"));
    assert_eq!(got.observed_generation, Some(2));
    assert_eq!(condition(&got, "PodReadyToStartContainers"), says("False", "", ""));
    assert_eq!(condition(&got, "Initialized"), says("True", "", ""));
    let unready = says("False", "ContainersNotReady", "containers with unready status: [a]");
    assert_eq!(condition(&got, "Ready"), unready);
    assert_eq!(condition(&got, "ContainersReady"), unready);
    let container = serde_json::to_value(&got.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(container["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!((&container["ready"], &container["restartCount"]), (&json!(false), &json!(0)));
}

#[test]
fn a_running_pod_is_ready_and_has_its_addresses() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let got = serde_json::to_value(status(&pod, &Given::seen(observed(vec![running(&pod, "a", 3)])))).unwrap();
    assert_eq!(got["podIP"], "10.244.0.5");
    assert_eq!(got["hostIPs"], json!([{"ip": "192.168.1.5"}]));
    let c: &Value = &got["containerStatuses"][0];
    assert_eq!(c["containerID"], "coracle://a-3");
    assert_eq!(c["imageID"], "docker.io/library/nginx@sha256:2");
    assert_eq!((&c["restartCount"], &c["ready"], &c["started"]), (&json!(3), &json!(true), &json!(true)));
    assert_eq!(c["state"]["running"]["startedAt"], "1970-01-01T00:00:01Z");
}

#[test]
fn a_container_that_never_ran_started_at_the_epoch() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut never_ran = exited(&pod, "a", 0, 128);
    never_ran.started_at_ns = None;
    never_ran.error = Some("no such file".to_owned());
    let got = status(&pod, &Given::seen(observed(vec![never_ran])));
    let c = serde_json::to_value(&got.container_statuses.unwrap()[0]).unwrap();
    let ended = &c["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["startedAt"]), (&json!("StartError"), &json!("1970-01-01T00:00:00Z")));
}

#[test]
fn a_crashing_container_shows_why_it_waits_and_how_it_ended() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let waiting = BTreeMap::from([("a".to_owned(), Waiting::new("CrashLoopBackOff", "back-off 10s"))]);
    let given = Given { waiting, ..Given::seen(observed(vec![exited(&pod, "a", 0, 3)])) };
    let got = status(&pod, &given);
    assert_eq!(got.phase.as_deref(), Some("Running"));
    let c = serde_json::to_value(&got.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(c["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    assert_eq!(
        c["lastState"],
        json!({"terminated": {"containerID": "coracle://a-0", "exitCode": 3, "reason": "Error", "message": "last words",
            "startedAt": "1970-01-01T00:00:01Z", "finishedAt": "1970-01-01T00:00:10Z"}})
    );
}

#[test]
fn init_containers_hold_the_pod_back() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}, {"name": "j"}],
        "containers": [{"name": "a"}]}));
    let got = status(&pod, &Given::seen(observed(vec![running(&pod, "i", 0)])));
    assert_eq!(got.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&got, "Initialized"),
        says("False", "ContainersNotInitialized", "containers with incomplete status: [i j]")
    );
    let app = got.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(app.reason.as_deref(), Some("PodInitializing"));
    let failed = status(&pod, &Given::seen(observed(vec![exited(&pod, "i", 0, 1)])));
    assert_eq!(failed.phase.as_deref(), Some("Failed"));
    assert_eq!(condition(&failed, "Ready"), says("False", "PodFailed", ""));
}

#[test]
fn readiness_gates_count_after_containers() {
    let gated = pod(json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]}));
    let mut given = Given::seen(observed(vec![running(&gated, "a", 0)]));
    let got = status(&gated, &given);
    assert_eq!(
        condition(&got, "Ready"),
        says(
            "False",
            "ReadinessGatesNotReady",
            "corresponding condition of pod readiness gate \"x/y\" does not exist."
        )
    );
    given.unready = vec!["a-0"];
    assert_eq!(condition(&status(&gated, &given), "Ready").1.as_deref(), Some("ContainersNotReady"));
}

#[test]
fn a_verdict_fails_the_pod_and_a_final_phase_stays() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let verdict = Verdict { reason: "Evicted".to_owned(), message: "low".to_owned(), disruption: true };
    let mut given = Given { verdict: Some(verdict), ..Given::seen(observed(vec![running(&pod, "a", 0)])) };
    given.old.phase = Some("Running".to_owned());
    let got = status(&pod, &given);
    assert_eq!((got.phase.as_deref(), got.reason.as_deref()), (Some("Running"), None), "while a container runs");
    assert_eq!(condition(&got, "DisruptionTarget").0, "True");
    given.observed = observed(vec![exited(&pod, "a", 0, 137)]);
    let got = status(&pod, &given);
    assert_eq!((got.phase.as_deref(), got.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(condition(&got, "DisruptionTarget"), says("True", "TerminationByKubelet", "low"));
    given.verdict = None;
    given.old = got;
    assert_eq!(status(&pod, &given).phase.as_deref(), Some("Failed"));
}

#[test]
fn a_container_that_is_replaced_does_not_finish_its_pod() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    for (replaced, expected) in [(HashSet::from(["a-0".to_owned()]), "Running"), (HashSet::new(), "Failed")] {
        let given = Given { replaced, ..Given::seen(observed(vec![exited(&pod, "a", 0, 137)])) };
        let got = status(&pod, &given);
        assert_eq!(got.phase.as_deref(), Some(expected));
        // The API server lets no container of such a pod leave its end again.
        let state = got.container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.terminated.is_some(), expected == "Failed");
    }
}

#[test]
fn a_pod_is_finished_only_when_its_sidecars_are() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]}));
    let old = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
    for (sidecar, expected) in [(running(&pod, "s", 0), "Running"), (exited(&pod, "s", 0, 0), "Succeeded")] {
        let seen = observed(vec![exited(&pod, "a", 0, 0), sidecar]);
        let got = status(&pod, &Given { old: old.clone(), stopping: true, ..Given::seen(seen) });
        assert_eq!(got.phase.as_deref(), Some(expected));
    }
}

#[test]
fn a_resize_shows_what_is_granted_and_what_is_there_already() {
    let asks = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}});
    let pod = pod(json!({"containers": [{"name": "a", "resources": asks}]}));
    let mut given = Given::seen(observed(vec![running(&pod, "a", 0)]));
    let has: ResourceRequirements = serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap();
    given.applied = HashMap::from([("a-0".to_owned(), has.clone())]);
    given.resize.pending = Some(("Deferred", "no room".to_owned()));
    given.resize.in_progress = Some(String::new());
    let got = status(&pod, &given);
    let c = &got.container_statuses.as_ref().unwrap()[0];
    assert_eq!(c.resources.as_ref(), Some(&has));
    assert_eq!(serde_json::to_value(&c.allocated_resources).unwrap(), json!({"cpu": "2"}));
    assert_eq!(condition(&got, "PodResizePending"), says("True", "Deferred", "no room"));
    assert_eq!(condition(&got, "PodResizeInProgress"), says("True", "", ""));
    given.old = got;
    given.resize = Resize::default();
    let over = status(&pod, &given);
    assert!(!over.conditions.iter().flatten().any(|c| c.type_.contains("Resize")), "they go with what they tell of");
}

#[test]
fn transition_times_change_only_with_the_status() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut given = Given::seen(observed(vec![running(&pod, "a", 0)]));
    let first = status(&pod, &given);
    given.old = serde_json::from_value(
        serde_json::to_value(&first)
            .unwrap()
            .to_string()
            .replace("1970-01-01T00:16:40Z", "1969-01-01T00:00:00Z")
            .parse()
            .unwrap(),
    )
    .unwrap();
    given.unready = vec!["a-0"];
    let second = status(&pod, &given);
    let when = |s: &PodStatus, name: &str| {
        s.conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == name)
            .unwrap()
            .last_transition_time
            .clone()
            .unwrap()
            .0
            .as_second()
    };
    assert_eq!(when(&second, "Ready"), 1000);
    assert!(when(&second, "Initialized") < 0);
}

#[test]
fn what_never_started_has_failed_when_the_pod_has_ended() {
    let unknown = Some("ContainerStatusUnknown".to_owned());
    let plain = pod(json!({"containers": [{"name": "a"}]}));
    let two_inits = pod(json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}));
    for (pod, seen, expected) in [
        (&plain, vec![], vec![("a", true)]),
        (&two_inits, vec![], vec![("i", true), ("j", false), ("a", false)]),
        (&two_inits, vec![exited(&two_inits, "i", 0, 0)], vec![("i", false), ("j", false), ("a", false)]),
        (
            &two_inits,
            vec![exited(&two_inits, "i", 0, 0), exited(&two_inits, "j", 0, 0)],
            vec![("i", false), ("j", false), ("a", true)],
        ),
    ] {
        let got = status(pod, &Given { stopping: true, ended: true, ..Given::seen(observed(seen)) });
        assert_eq!(got.phase.as_deref(), Some("Failed"));
        for (name, is_unknown) in expected {
            let state = crate::pod::container_status(&got, name).unwrap().state.clone().unwrap();
            let reason = state.terminated.and_then(|t| t.reason);
            assert_eq!(reason == unknown, is_unknown, "{name}");
        }
    }
}

#[test]
fn the_user_is_that_of_the_present_container() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let user = |seen, old| {
        let given = Given { old, ..Given::seen(observed(seen)) };
        let got = status(&pod, &given);
        (got.container_statuses.clone().unwrap()[0].user.clone().and_then(|u| u.linux).map(|u| u.uid), got)
    };
    let (uid, old) = user(vec![running(&pod, "a", 1)], PodStatus::default());
    assert_eq!(uid, Some(5));
    assert_eq!(user(vec![running(&pod, "a", 2)], old).0, None);
    let ran = json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": "coracle://a-0", "user": {"linux": {"uid": 9, "gid": 9}}}]});
    let old: PodStatus = serde_json::from_value(ran).unwrap();
    assert_eq!(user(vec![exited(&pod, "a", 0, 0)], old).0, Some(9), "as the API server remembers it");
}

#[test]
fn a_container_that_was_lost_keeps_its_start_and_was_found_dead_once() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let ran = json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": "coracle://a-0", "state": {"running": {"startedAt": "1970-01-01T00:00:07Z"}}}]});
    let old: PodStatus = serde_json::from_value(ran).unwrap();
    let mut lost = exited(&pod, "a", 0, 0);
    (lost.state, lost.exit_code) = (runtime::ContainerState::Unknown, None);
    (lost.started_at_ns, lost.finished_at_ns) = (None, None);
    let end = |seen: Vec<runtime::ContainerStatus>, old: PodStatus| {
        let got = status(&pod, &Given { old, ..Given::seen(observed(seen)) });
        let c = serde_json::to_value(&got.container_statuses.as_ref().unwrap()[0]).unwrap();
        (c["state"]["terminated"].clone(), got)
    };
    let expected = json!({"containerID": "coracle://a-0", "exitCode": 255, "reason": "Unknown", "message": "last words",
        "startedAt": "1970-01-01T00:00:07Z", "finishedAt": "1970-01-01T00:16:40Z"});
    let (first, mut got) = end(vec![lost.clone()], old.clone());
    assert_eq!(first, expected);
    let earlier = Time(Timestamp::from_second(900).unwrap());
    let known = &mut got.container_statuses.as_mut().unwrap()[0];
    known.state.as_mut().unwrap().terminated.as_mut().unwrap().finished_at = Some(earlier);
    let (again, _) = end(vec![lost.clone()], got);
    assert_eq!(again["finishedAt"], "1970-01-01T00:15:00Z", "it is found dead once");
    let (untold, _) = end(vec![lost], PodStatus::default());
    assert_eq!(untold["startedAt"], "1970-01-01T00:00:01Z", "at least it was made then");
    let (gone, _) = end(vec![], old);
    assert_eq!(
        gone,
        json!({"containerID": "coracle://a-0", "exitCode": 137, "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": "1970-01-01T00:00:07Z", "finishedAt": "1970-01-01T00:16:40Z"})
    );
}

#[test]
fn containers_share_what_their_last_words_may_take() {
    let names = ["a", "b", "c", "d"];
    let list: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let pod = pod(json!({"restartPolicy": "Never", "containers": list}));
    let mut seen: Vec<_> = names.iter().map(|name| exited(&pod, name, 0, 1)).collect();
    for (n, c) in seen.iter_mut().enumerate().skip(1) {
        c.error = Some("ä".repeat(if n == 1 { 4096 } else { 10 }));
    }
    let got = status(&pod, &Given::seen(observed(seen)));
    let lengths: Vec<usize> = got
        .container_statuses
        .unwrap()
        .into_iter()
        .map(|c| c.state.unwrap().terminated.unwrap().message.unwrap().len())
        .collect();
    assert_eq!(lengths, ["last words".len(), 3072, 20, 20]);
}
