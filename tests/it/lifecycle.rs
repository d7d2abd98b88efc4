//! What happens to a pod between its start and its end, and what the node refuses to start.

use crate::cluster::Cluster;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("lifecycle_hooks_run_and_their_failures_are_told", hooks),
    ("lifecycle_a_deadline_that_passed_fails_the_pod", deadline),
    ("lifecycle_a_changed_image_leaves_the_pod_ready_until_its_container_ended", image_change),
    ("lifecycle_what_the_node_cannot_honour_is_refused", refused),
    ("lifecycle_use_is_told_with_upstreams_names", statistics),
];

/// A pod of one busybox container; `spec` and `container` are further fields in flow style.
fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, {spec} \
         containers: [{{name: c, image: busybox, command: [sleep, '3600'], {container}}}]}}\n"
    )
}

fn events(c: &Cluster, namespace: &str, pod: &str) -> String {
    let about = format!("--field-selector=involvedObject.name={pod}");
    c.kubectl(&[
        "get",
        "events",
        "-n",
        namespace,
        &about,
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}",
    ])
}

fn hooks(c: &Cluster) {
    c.namespace("l1");
    let lifecycle = "lifecycle: {postStart: {exec: {command: [touch, /tmp/up]}}, preStop: {sleep: {seconds: 1}}}";
    c.apply("l1", &pod("hooked", "", lifecycle));
    c.kubectl(&["wait", "-nl1", "--for=condition=Ready", "pod/hooked", "--timeout=60s"]);
    c.kubectl(&["exec", "-nl1", "hooked", "--", "test", "-e", "/tmp/up"]);
    c.apply("l1", &pod("failing", "", "lifecycle: {postStart: {exec: {command: [sh, -c, 'exit 7']}}}"));
    c.apply("l1", &pod("tcp", "", "lifecycle: {postStart: {tcpSocket: {port: 80}}}"));
    for name in ["failing", "tcp"] {
        c.wait("the hook's failure is told", |c| {
            events(c, "l1", name).contains("FailedPostStartHook: PostStartHook failed")
        });
    }
    c.kubectl(&["delete", "namespace", "l1", "--wait=false"]);
}

fn deadline(c: &Cluster) {
    c.namespace("l2");
    c.apply("l2", &pod("late", "activeDeadlineSeconds: 1,", ""));
    c.wait("the deadline ends the pod", |c| c.value("l2", "pod/late", "{.status.phase}") == "Failed");
    assert_eq!(
        c.value("l2", "pod/late", "{.status.reason}: {.status.message}"),
        "DeadlineExceeded: Pod was active on the node longer than the specified deadline"
    );
    c.kubectl(&["delete", "namespace", "l2", "--wait=false"]);
}

fn image_change(c: &Cluster) {
    c.namespace("l3");
    let slow = "apiVersion: v1\nkind: Pod\nmetadata: {name: slow}\nspec:\n  terminationGracePeriodSeconds: 30\n  containers:\n  - name: c\n    image: busybox\n    command: [sh, -c, \"trap 'sleep 4; exit 0' TERM; while :; do sleep 0.1; done\"]\n";
    c.apply("l3", slow);
    c.kubectl(&["wait", "-nl3", "--for=condition=Ready", "pod/slow", "--timeout=60s"]);
    c.kubectl(&["set", "image", "-nl3", "pod/slow", "c=busybox:latest"]);
    c.wait("the old container is asked to end", |c| events(c, "l3", "slow").contains("definition changed"));
    let state = "{.status.conditions[?(@.type=='Ready')].status} {.status.containerStatuses[0].state} \
                 {.status.containerStatuses[0].restartCount}";
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    c.wait("the new container runs", |c| {
        let now = c.value("l3", "pod/slow", state);
        let over = now.starts_with("True") && now.ends_with(" 1");
        seen.borrow_mut().insert(now);
        over
    });
    // It may be seen between its two containers, but as long as the old one runs it is ready.
    let early: Vec<String> = seen.into_inner().into_iter().filter(|s| s.starts_with("False {\"running")).collect();
    assert!(early.is_empty(), "{early:?}");
    assert_eq!(c.value("l3", "pod/slow", "{.status.containerStatuses[0].lastState.terminated.exitCode}"), "0");
    c.kubectl(&["delete", "namespace", "l3", "--wait=false"]);
}

fn refused(c: &Cluster) {
    c.namespace("l4");
    c.apply("l4", &pod("users", "hostUsers: false,", ""));
    c.apply("l4", &pod("driver", "volumes: [{name: v, csi: {driver: none.example.com}}],", ""));
    for (name, expected) in [
        ("users", "FailedCreatePodSandBox: Failed to create pod sandbox: can't set `spec.hostUsers: false`"),
        ("driver", "FailedMount: MountVolume.SetUp failed for volume \"v\" : "),
    ] {
        c.wait("the event tells what is missing", |c| events(c, "l4", name).contains(expected));
        assert_eq!(c.value("l4", &format!("pod/{name}"), "{.status.phase}"), "Pending");
    }
    for (name, spec, container, expected) in [
        (
            "profile",
            "",
            "securityContext: {appArmorProfile: {type: RuntimeDefault}}",
            "AppArmor: Pod was rejected: Cannot enforce AppArmor: ",
        ),
        (
            "windows",
            "nodeName: NODE, os: {name: windows},",
            "",
            "PodOSNotSupported: Pod was rejected: Failed to admit pod as the OS field",
        ),
        (
            "port",
            "nodeName: NODE,",
            "ports: [{containerPort: 80, hostPort: 6443}]",
            "NodePorts: Pod was rejected: Predicate NodePorts failed: ",
        ),
    ] {
        let node = c.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
        c.apply("l4", &pod(name, spec, container).replace("NODE", &node));
        c.wait("the node refuses it", |c| c.value("l4", &format!("pod/{name}"), "{.status.phase}") == "Failed");
        let why = c.value("l4", &format!("pod/{name}"), "{.status.reason}: {.status.message}");
        assert!(why.starts_with(expected), "{why}");
    }
    c.kubectl(&["delete", "namespace", "l4", "--wait=false"]);
}

fn statistics(c: &Cluster) {
    c.namespace("l5");
    c.apply("l5", &pod("used", "volumes: [{name: v, emptyDir: {}}],", ""));
    c.kubectl(&["wait", "-nl5", "--for=condition=Ready", "pod/used", "--timeout=60s"]);
    let node = c.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let proxy = |path: &str| c.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy{path}")]);
    // A rate takes two looks.
    proxy("/stats/summary");
    c.wait("a second has passed", |_| proxy("/stats/summary").matches("usageNanoCores").count() >= 3);
    let summary: serde_json::Value = serde_json::from_str(&proxy("/stats/summary")).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let used = pods.iter().find(|p| p["podRef"]["name"] == "used").unwrap();
    for path in [
        "/cpu/usageNanoCores",
        "/memory/rssBytes",
        "/network/rxBytes",
        "/ephemeral-storage/usedBytes",
        "/volume/0/capacityBytes",
        "/process_stats/process_count",
        "/containers/0/memory/pageFaults",
        "/containers/0/rootfs/inodesUsed",
        "/containers/0/logs/usedBytes",
        "/containers/0/startTime",
    ] {
        assert!(used.pointer(path).is_some_and(|v| !v.is_null()), "{path} is missing in {used:#}");
    }
    for path in
        ["/fs/usedBytes", "/runtime/imageFs/usedBytes", "/rlimit/maxpid", "/network/name", "/systemContainers/0/cpu"]
    {
        assert!(
            summary["node"].pointer(path).is_some_and(|v| !v.is_null()),
            "{path} is missing in {:#}",
            summary["node"]
        );
    }
    let metrics = proxy("/metrics");
    for name in [
        "kubelet_started_pods_total ",
        "kubelet_started_containers_total{container_type=\"container\"} ",
        "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} ",
        "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"start_container\",le=",
    ] {
        assert!(metrics.lines().any(|l| l.starts_with(name)), "{name} is missing in {metrics}");
    }
    c.kubectl(&["delete", "namespace", "l5", "--wait=false"]);
}
