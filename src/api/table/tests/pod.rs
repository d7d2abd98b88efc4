//! Pods in their many states.

use serde_json::{Value, json};

use super::{NOW, rows, wide};

/// READY, STATUS and RESTARTS of a pod with the containers `a` and `b`, the init container `i` and,
/// if asked for, the sidecar `s`.
fn pod(sidecar: bool, meta: &Value, status: &Value) -> String {
    let mut init = vec![json!({"name": "i"})];
    if sidecar {
        init.push(json!({"name": "s", "restartPolicy": "Always"}));
    }
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": init});
    let row = wide("", "pods", json!({"metadata": meta, "spec": spec, "status": status}));
    row.split('|').skip(1).take(3).collect::<Vec<_>>().join("|")
}

fn container(name: &str, state: &Value) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn running(name: &str) -> Value {
    let mut status = container(name, &json!({"running": {}}));
    status["ready"] = json!(true);
    status["started"] = json!(true);
    status
}

fn waiting(name: &str, reason: &str) -> Value {
    container(name, &json!({"waiting": {"reason": reason}}))
}

fn ended(name: &str, code: i32, reason: &str) -> Value {
    container(name, &json!({"terminated": {"exitCode": code, "reason": reason}}))
}

fn killed(name: &str, signal: i32) -> Value {
    container(name, &json!({"terminated": {"exitCode": 128 + signal, "signal": signal}}))
}

fn restarted(mut status: Value, count: i32, finished: &str) -> Value {
    status["restartCount"] = json!(count);
    status["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": finished}});
    status
}

fn in_phase(phase: &str, init: &[Value], containers: &[Value], conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<Value> =
        conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
    json!({
        "phase": phase, "initContainerStatuses": init, "containerStatuses": containers, "conditions": conditions,
    })
}

#[test]
fn pods_before_their_containers_run() {
    let creating = [waiting("a", "PodInitializing"), waiting("b", "PodInitializing")];
    let init = |status: Value| in_phase("Pending", &[status], &creating, &[("Initialized", "False")]);
    for (expected, status) in [
        ("0/2|Pending|0", json!({"phase": "Pending"})),
        (
            "0/2|SchedulingGated|0",
            json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        ),
        ("0/2|Evicted|0", json!({"phase": "Failed", "reason": "Evicted"})),
        ("0/2|Init:0/1|0", init(container("i", &json!({"running": {}})))),
        ("0/2|Init:0/1|0", init(waiting("i", "PodInitializing"))),
        ("0/2|Init:CrashLoopBackOff|0", init(waiting("i", "CrashLoopBackOff"))),
        ("0/2|Init:Error|0", init(ended("i", 1, "Error"))),
        ("0/2|Init:ExitCode:3|0", init(ended("i", 3, ""))),
        ("0/2|Init:Signal:9|0", init(killed("i", 9))),
        (
            "0/2|Init:0/1|2 (3m ago)",
            init(restarted(container("i", &json!({"running": {}})), 2, "2026-01-01T00:07:00Z")),
        ),
        ("0/2|PodInitializing|0", init(ended("i", 0, "Completed"))),
        (
            "0/2|ContainerCreating|0",
            in_phase("Pending", &[], &[waiting("a", "ContainerCreating"), waiting("b", "ContainerCreating")], &[]),
        ),
    ] {
        assert_eq!(pod(false, &json!({}), &status), expected, "{status:#}");
    }
}

#[test]
fn pods_with_containers() {
    let done = ended("a", 0, "Completed");
    let failed = ended("b", 2, "Error");
    let run = |containers: &[Value], ready: &str| in_phase("Running", &[], containers, &[("Ready", ready)]);
    let deleted = json!({"deletionTimestamp": NOW});
    let lost = json!({"phase": "Running", "reason": "NodeLost"});
    for (expected, meta, status) in [
        ("2/2|Running|0", json!({}), run(&[running("a"), running("b")], "True")),
        ("1/2|CrashLoopBackOff|0", json!({}), run(&[running("a"), waiting("b", "CrashLoopBackOff")], "False")),
        ("1/2|ErrImagePull|0", json!({}), run(&[waiting("a", "ErrImagePull"), running("b")], "False")),
        ("1/2|Error|0", json!({}), run(&[failed.clone(), running("b")], "False")),
        ("1/2|ExitCode:3|0", json!({}), run(&[ended("a", 3, ""), running("b")], "False")),
        ("1/2|Signal:9|0", json!({}), run(&[killed("a", 9), running("b")], "False")),
        ("1/2|NotReady|0", json!({}), run(&[done.clone(), running("b")], "False")),
        ("1/2|Running|0", json!({}), run(&[done.clone(), running("b")], "True")),
        ("0/2|Completed|0", json!({}), in_phase("Succeeded", &[], &[done.clone(), done.clone()], &[])),
        ("0/2|Error|0", json!({}), in_phase("Failed", &[], &[done.clone(), failed], &[])),
        (
            "2/2|Running|5 (5s ago)",
            json!({}),
            run(
                &[
                    restarted(running("a"), 3, "2026-01-01T00:09:55Z"),
                    restarted(running("b"), 2, "2026-01-01T00:01:00Z"),
                ],
                "True",
            ),
        ),
        ("2/2|Terminating|0", deleted.clone(), run(&[running("a"), running("b")], "True")),
        ("0/2|Completed|0", deleted.clone(), in_phase("Succeeded", &[], &[done.clone(), done], &[])),
        ("0/2|NodeLost|0", json!({}), lost.clone()),
        ("0/2|Unknown|0", deleted, lost),
    ] {
        assert_eq!(pod(false, &meta, &status), expected, "{status:#}");
    }
}

#[test]
fn sidecars_count_with_the_containers() {
    let ready = [running("a"), running("b")];
    let done = restarted(ended("i", 0, "Completed"), 4, "2026-01-01T00:01:00Z");
    let sidecar = restarted(running("s"), 1, "2026-01-01T00:08:00Z");
    let up = in_phase("Running", &[done.clone(), sidecar], &ready, &[("Initialized", "True"), ("Ready", "True")]);
    assert_eq!(pod(true, &json!({}), &up), "3/3|Running|1 (2m ago)", "restarts of done init containers do not count");
    let starting = in_phase("Pending", &[ended("i", 0, "Completed"), waiting("s", "PodInitializing")], &[], &[]);
    assert_eq!(pod(true, &json!({}), &starting), "0/3|Init:1/2|0");
    let crashed = [done, waiting("s", "CrashLoopBackOff")];
    let crashed = in_phase("Running", &crashed, &ready, &[("Initialized", "True"), ("Ready", "False")]);
    assert_eq!(pod(true, &json!({}), &crashed), "2/3|Init:CrashLoopBackOff|0", "sidecars that end after the start");
}

#[test]
fn pods_in_wide_output() {
    rows(
        "",
        "pods",
        vec![
            (
                "x|0/1|Pending|0|10m|<none>|<none>|<none>|<none>",
                json!({
            "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Pending"}}),
            ),
            (
                "x|0/1|Pending|0|10m|10.42.0.7|pi1|pi2|1/2",
                json!({
            "spec": {"containers": [{"name": "a"}], "nodeName": "pi1",
                "readinessGates": [{"conditionType": "example.com/a"}, {"conditionType": "example.com/b"}]},
            "status": {"phase": "Pending", "podIP": "10.42.0.7", "podIPs": [{"ip": "10.42.0.7"}],
                "nominatedNodeName": "pi2", "conditions": [{"type": "example.com/b", "status": "True"}]}}),
            ),
        ],
    );
}
