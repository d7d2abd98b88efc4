//! A board under siege: hostile pods do their worst, one after another, while a pod of somebody else is served.
//!
//! Throughout, an administrator's client asks whether the API server is ready, and commands run in the other
//! pod. The right pod pays for each attack, and nothing of it stays on the board.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cluster::{Cluster, binary};
use crate::machine::{text, top};
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn())] = &[("siege_by_hostile_pods_is_borne", siege)];

/// The longest that `/readyz` may take while a pod attacks, of a server that was built for release, and of one
/// that was built for debugging, which is ten times as slow.
const READY_WITHIN_MS: u32 = 250;
const DEBUG_READY_WITHIN_MS: u32 = 2500;
/// So many processes stay before the container's memory is used up.
const FORKS: u32 = 100;
/// What is written in five seconds takes this much at the least, and what is kept of it at the most: upstream's
/// containerLogMaxFiles of containerLogMaxSize each, and one that is being written.
const LOGS_KIB: std::ops::Range<u64> = 1024..6 * 11 * 1024;
/// What 20,000 requests of strangers may add to the daemon's memory.
const STRANGERS_KIB: u64 = 32 * 1024;
/// What ten pods with 54 MB of files each may add to it while they are set up.
const VOLUMES_KIB: u64 = 64 * 1024;
/// Bodies that cost too much would be answered by now, one after another.
const ATTACK_LIMIT: Duration = Duration::from_secs(180);

/// Rights that a namespace's own workload often has.
const RIGHTS: &str = "apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: default, namespace: hostile}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: target}
data: {'0': a}
";

/// A pod that attacks; `more` goes into its container.
fn attacker(c: &Cluster, attack: &str, more: &str) -> String {
    let victim = c.value("victim", "pod/web", "{.status.podIP}");
    let words = attack.split(' ').collect::<Vec<_>>().join(", ");
    let name = attack.split(' ').next().unwrap();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  \
         volumes: [{{name: v, emptyDir: {{sizeLimit: 16Mi}}}}]\n  containers:\n  - name: c\n    image: hostile\n    args: [{words}]\n    \
         volumeMounts: [{{name: v, mountPath: /v}}]\n    \
         env: [{{name: NODE, value: 192.168.77.2}}, {{name: VICTIM, value: {victim}}}]\n{more}"
    )
}

/// The binary knows how it was built; these tests may be built otherwise.
fn ready_within_ms(c: &Cluster) -> u32 {
    let version = c.machine.run(&binary(), &["version", "--output=json"]);
    match (version.contains(r#""profile":"release""#), version.contains(r#""profile":"debug""#)) {
        (true, false) => READY_WITHIN_MS,
        (false, true) => DEBUG_READY_WITHIN_MS,
        _ => panic!("how was the server built? {version}"),
    }
}

fn watchdog(c: &Cluster) -> Child {
    let mut command = c.machine.command("python3");
    command.arg(top().join("tests/it/watchdog.py")).arg("/etc/coracle/kubeconfig.yaml");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Runs one attack to its end and gives what the attacker printed.
fn attack(c: &Cluster, attack: &str, more: &str) -> String {
    let manifest = attacker(c, attack, more);
    watched(c, attack, |c| drop(c.apply("hostile", &manifest)))
}

fn create(c: &Cluster, object: &serde_json::Value) {
    let out = c.kubectl_stdin(&["create", "-nhostile", "-f", "-"], &object.to_string());
    assert!(out.status.success(), "{}", text(&out));
}

/// All at once.
fn create_pods(c: &Cluster, names: &[&str], spec: &serde_json::Value) {
    let pod =
        |name: &&str| serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    let items: Vec<_> = names.iter().map(pod).collect();
    create(c, &serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}));
}

/// Pods that take as many variables as there may be from one Secret of almost a megabyte: one for each thread.
fn references(c: &Cluster) -> String {
    let data = serde_json::json!({"k": "v", "large": "x".repeat(900_000)});
    create(
        c,
        &serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large"}, "stringData": data}),
    );
    let variable =
        |n| serde_json::json!({"name": format!("V{n}"), "valueFrom": {"secretKeyRef": {"name": "large", "key": "k"}}});
    let env: Vec<_> = (0..4000).map(variable).collect();
    let container = serde_json::json!({"name": "c", "image": "busybox", "command": ["true"], "env": env});
    let spec = serde_json::json!({"restartPolicy": "Never", "containers": [container]});
    let names = ["references-1", "references-2", "references-3", "references"];
    watched(c, "references", |c| create_pods(c, &names, &spec))
}

/// Pods that each have that Secret in sixty volumes: 54 MB of files, and as much again for each pod that is set up
/// at the same time.
fn volumes(c: &Cluster) -> String {
    let volume = |n| serde_json::json!({"name": format!("v{n}"), "secret": {"secretName": "large"}});
    let volumes: Vec<_> = (0..60).map(volume).collect();
    let container = serde_json::json!({"name": "c", "image": "busybox", "command": ["true"]});
    let spec = serde_json::json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
    let names = ["v-1", "v-2", "v-3", "v-4", "v-5", "v-6", "v-7", "v-8", "v-9", "volumes"];
    watched(c, "volumes", |c| create_pods(c, &names, &spec))
}

fn watched(c: &Cluster, attack: &str, start: impl FnOnce(&Cluster)) -> String {
    let name = attack.split(' ').next().unwrap();
    let dog = watchdog(c);
    start(c);
    c.wait_within(ATTACK_LIMIT, &format!("{attack} has ended"), |c| {
        let hello = c.try_kubectl(&["exec", "-nvictim", "web", "--", "echo", "served"]);
        assert!(hello.status.success() && text(&hello).contains("served"), "exec during {attack}: {}", text(&hello));
        ["Succeeded", "Failed"].contains(&c.value("hostile", &format!("pod/{name}"), "{.status.phase}").as_str())
    });
    // The end of its input ends the watchdog.
    let seen = text(&dog.wait_with_output().unwrap());
    let words: Vec<&str> = seen.split_whitespace().collect();
    let ["asked", asked, "longest", longest, "failed", failed] = words[..] else {
        panic!("the watchdog said {seen:?}")
    };
    let log = text(&c.try_kubectl(&["logs", "-nhostile", name, "--tail=20"]));
    println!("{attack}: /readyz asked {asked} times, longest {longest} ms; daemon {} KiB", resident(c));
    assert_eq!(failed, "0", "/readyz during {attack}\n{log}");
    let within = ready_within_ms(c);
    assert!(longest.parse::<u32>().unwrap() <= within, "/readyz took {longest} ms during {attack}\n{log}");
    assert!(asked.parse::<u32>().unwrap() > 0, "nobody asked during {attack}");
    log
}

fn phase(c: &Cluster, pod: &str) -> String {
    c.value("hostile", pod, "{.status.phase}{.status.reason}")
}

/// The daemon's memory in KiB.
fn resident(c: &Cluster) -> u64 {
    memory(c, "VmRSS:")
}

/// The most that it had since [`forget_peak`].
fn peak(c: &Cluster) -> u64 {
    memory(c, "VmHWM:")
}

fn forget_peak(c: &Cluster) {
    std::fs::write(format!("/proc/{}/clear_refs", c.daemon_pid()), "5").unwrap();
}

fn memory(c: &Cluster, of: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.daemon_pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(of)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn siege() {
    let c = Cluster::start("siege");
    for namespace in ["victim", "hostile"] {
        c.namespace(namespace);
    }
    c.apply("hostile", RIGHTS);
    c.kubectl(&["run", "-nvictim", "web", "--image=nginx:alpine"]);
    wait_for_pods(&c, "victim", "run=web", 1);
    let before = c.value("victim", "pod/web", "{.status.containerStatuses[0].containerID}");

    let log = attack(&c, "bodies", "");
    assert_eq!(phase(&c, "pod/bodies"), "Succeeded", "{log}");

    let log = attack(&c, "strangers", "");
    assert_eq!(phase(&c, "pod/strangers"), "Succeeded", "{log}");
    for port in ["443: ", "10250: "] {
        assert!(log.contains(port), "no connection to {port}came about: {log}");
    }
    let log = text(&c.try_kubectl(&["logs", "-nvictim", "web"]));
    assert!(log.contains("nginx"), "{log}");

    let memory = resident(&c);
    let log = attack(&c, "paths", "");
    assert_eq!(phase(&c, "pod/paths"), "Succeeded", "{log}");
    let grown = resident(&c).saturating_sub(memory);
    assert!(grown < STRANGERS_KIB, "20,000 requests of strangers took {grown} KiB");
    let series = c.kubectl(&["get", "--raw", "/metrics"]);
    assert!(!series.contains("g19999"), "a stranger named a series");

    let log = references(&c);
    assert_eq!(phase(&c, "pod/references"), "Succeeded", "{log}");

    let memory = resident(&c);
    forget_peak(&c);
    let log = volumes(&c);
    assert_eq!(phase(&c, "pod/volumes"), "Succeeded", "{log}");
    let grown = peak(&c).saturating_sub(memory);
    assert!(grown < VOLUMES_KIB, "ten pods with sixty volumes of a Secret took {grown} KiB");
    c.kubectl(&["delete", "-nhostile", "pods", "--all"]);

    let log = attack(&c, "routes", "");
    assert_eq!(phase(&c, "pod/routes"), "Succeeded", "{log}");
    assert_eq!(log.trim(), "sent");
    let routes = c.machine.run("ip", &["-6", "route", "show"]);
    assert!(!routes.contains("default") && !routes.contains("fd00:bad"), "a pod advertised itself: {routes}");
    assert!(c.fetch(&format!("http://{}", c.value("victim", "pod/web", "{.status.podIP}"))).is_some());

    let log = attack(&c, "forks", "    resources: {limits: {memory: 512Mi}}\n");
    // Either the memory ended it, or it counted what its memory was enough for.
    if phase(&c, "pod/forks") == "Succeeded" {
        let count = log.lines().find_map(|line| line.strip_suffix(" processes")).unwrap_or("0");
        assert!(count.parse::<u32>().unwrap() >= FORKS, "{log}");
    } else {
        let reason = c.value("hostile", "pod/forks", "{.status.containerStatuses[0].state.terminated.reason}");
        assert_eq!(reason, "OOMKilled", "{log}");
    }
    attack(&c, "logs", "");
    assert_eq!(phase(&c, "pod/logs"), "Succeeded");
    let kept = c.machine.run("du", &["-sk", "/var/lib/coracle/agent/logs"]);
    let kept: u64 = kept.split_whitespace().next().unwrap().parse().unwrap();
    assert!(LOGS_KIB.contains(&kept), "{kept} KiB of logs are kept");

    attack(&c, "fill /v", "");
    assert_eq!(phase(&c, "pod/fill"), "FailedEvicted");

    let web = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.phase}";
    assert_eq!(c.value("victim", "pod/web", web), format!("{before} 0 Running"), "somebody else's pod paid");
}
