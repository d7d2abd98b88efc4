//! The daemon stops, is killed, or the plug is pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::machine::top;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("restart_of_the_daemon_leaves_pods_running", daemon),
    ("restart_with_damaged_records_starts_nothing_twice", damaged),
    ("restart_ends_a_pod_with_a_real_time_stop_signal", real_time),
    ("restart_in_the_middle_of_a_kill_does_not_begin_it_anew", kill),
    ("restart_after_a_pulled_plug_brings_pods_back", plug),
    ("restart_in_the_middle_of_writes_loses_none", writes),
];

/// Which container of the pod `web` runs, and since when.
fn started(c: &Cluster, namespace: &str) -> String {
    c.value(
        namespace,
        "pod/web",
        "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}",
    )
}

fn daemon() {
    let mut c = Cluster::start("restart");
    c.namespace("r1");
    c.kubectl(&["run", "-nr1", "web", "--image=nginx:alpine"]);
    wait_for_pods(&c, "r1", "run=web", 1);
    let (before, ip) = (started(&c, "r1"), c.value("r1", "pod/web", "{.status.podIP}"));
    for signal in ["TERM", "KILL"] {
        c.end_daemon(signal);
        let page = c.fetch(&format!("http://{ip}"));
        assert!(page.is_some_and(|p| p.contains("nginx")), "the pod answers while the daemon is away");
        c.start_daemon();
        c.wait("the node is ready again", |c| c.node_is_ready());
        assert_eq!(started(&c, "r1"), before, "after SIG{signal}");
        assert_eq!(c.kubectl(&["exec", "-nr1", "web", "--", "hostname"]), "web\n");
    }
    assert_eq!(c.value("r1", "pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", c.daemon_pid())).unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files[3], files[4], "the daemon opens as many files as it may");
}

/// A pod's processes by a word of their command line.
fn processes(c: &Cluster, word: &str) -> String {
    c.machine.run("sh", &["-c", &format!("ps ax | grep -c '[{}]{}'", &word[..1], &word[1..])])
}

fn damaged() {
    let mut c = Cluster::start("damaged");
    c.namespace("r4");
    c.kubectl(&["run", "-nr4", "web", "--image=busybox:1.35", "--", "sleep", "86399"]);
    wait_for_pods(&c, "r4", "run=web", 1);
    let (before, ip) = (started(&c, "r4"), c.value("r4", "pod/web", "{.status.podIP}"));
    assert_eq!(processes(&c, "sleep 86399"), "1\n");
    let agent = "/var/lib/coracle/agent";
    let files = format!(
        "{agent}/runtime/sandboxes/*/sandbox.json {agent}/runtime/sandboxes/*/*/container.json {agent}/network/{ip}"
    );
    for damage in ["truncate -s 0", "truncate -s 40", "cp /etc/hostname"] {
        c.end_daemon("KILL");
        c.machine.run("sh", &["-c", &format!("for file in {files}; do {damage} $file || exit 1; done")]);
        c.start_daemon();
        c.wait("the node is ready again", |c| c.node_is_ready());
        assert_eq!(c.kubectl(&["exec", "-nr4", "web", "--", "hostname"]), "web\n", "{damage}");
        assert_eq!(started(&c, "r4"), before, "{damage}");
        assert_eq!(c.value("r4", "pod/web", "{.status.podIP}"), ip, "{damage}");
        assert_eq!(c.value("r4", "pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
        assert_eq!(processes(&c, "sleep 86399"), "1\n", "{damage}");
    }
    c.kubectl(&["delete", "pod", "-nr4", "web", "--now"]);
    assert_eq!(c.machine.run("sh", &["-c", "ps ax | grep -c '[s]leep 86399' || true"]), "0\n");
}

fn real_time() {
    let c = Cluster::start("realtime");
    c.namespace("r5");
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rt"}, "spec": {
        "os": {"name": "linux"}, "terminationGracePeriodSeconds": 2,
        "containers": [{"name": "c", "image": "busybox:1.35", "command": ["sleep", "86398"], "lifecycle": {"stopSignal": "SIGRTMIN+3"}}]}}"#;
    for flags in [&["--wait=true"][..], &["--force", "--grace-period=0"]] {
        let out = c.kubectl_stdin(&["apply", "-nr5", "-f", "-"], pod);
        assert!(out.status.success(), "{out:?}");
        c.wait("the pod runs", |c| c.value("r5", "pod/rt", "{.status.phase}") == "Running");
        c.kubectl(&[&["delete", "pod", "-nr5", "rt"][..], flags].concat());
        c.wait("nothing of it is left", |c| {
            c.machine.run("sh", &["-c", "ps ax | grep -cE '[s]leep 86398|[c]oracle shim' || true"]) == "0\n"
        });
    }
}

fn kill() {
    const GRACE: u64 = 30;
    let mut c = Cluster::start("kill");
    c.namespace("r6");
    let pod = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "deaf"}}, "spec": {{
        "activeDeadlineSeconds": 5, "terminationGracePeriodSeconds": {GRACE}, "restartPolicy": "Never",
        "containers": [{{"name": "c", "image": "busybox:1.35",
            "command": ["sh", "-c", "trap '' TERM; while true; do sleep 0.2; done"]}}]}}}}"#
    );
    c.apply("r6", &pod);
    c.wait("its process is asked to end", |c| {
        c.kubectl(&["get", "events", "-nr6", "-oname", "--field-selector=reason=Killing"]).contains("event/deaf")
    });
    let asked = Instant::now();
    // A clock that began anew at the last restart would run out long after the limit below.
    while asked.elapsed() < Duration::from_secs(GRACE * 2 / 3) {
        c.end_daemon("KILL");
        c.start_daemon();
        c.wait("the node is ready again", |c| c.node_is_ready());
    }
    let limit = Duration::from_secs(GRACE + GRACE / 3).saturating_sub(asked.elapsed());
    c.wait_within(limit, "the kill goes on where it was", |c| {
        c.value("r6", "pod/deaf", "{.status.phase} {.status.reason}") == "Failed DeadlineExceeded"
    });
}

fn plug() {
    let mut c = Cluster::start("plug");
    c.namespace("r2");
    c.kubectl(&["create", "deployment", "-nr2", "web", "--image=nginx:alpine"]);
    c.kubectl(&["expose", "-nr2", "deployment", "web", "--port=80", "--type=NodePort"]);
    wait_for_pods(&c, "r2", "app=web", 1);
    let port = c.value("r2", "service/web", "{.spec.ports[0].nodePort}");
    c.power_off();
    c.machine.boot();
    c.start_daemon();
    let url = format!("http://192.168.77.2:{port}");
    c.wait("the service answers again", |c| c.fetch_from_lan(&url).is_some());
    wait_for_pods(&c, "r2", "app=web", 1);
}

const WRITERS: usize = 16;
const WRITES: usize = 1000;
/// A kill is rarely in the few milliseconds of a commit: several are.
const KILLS: usize = 3;

/// What the writers said, in order.
#[derive(Default)]
struct Said {
    acknowledged: BTreeMap<String, u64>,
    /// Written, though the answer was lost.
    present: BTreeSet<String>,
    /// Answers that a kill cut off.
    lost: usize,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["acknowledged", name, revision] => {
                let twice = self.acknowledged.insert(name.to_owned(), revision.parse().unwrap());
                assert_eq!(twice, None, "{name} was created twice");
            }
            ["present", name] => assert!(self.present.insert(name.to_owned())),
            ["lost", _] => self.lost += 1,
            _ => panic!("the writers said {line:?}"),
        }
    }
}

/// The clients go on against the server that was started again, so that a revision given out twice
/// shows: as two objects that have it.
fn writes() {
    let mut c = Cluster::start("writes");
    c.namespace("r3");
    c.kubectl(&["run", "-nr3", "web", "--image=nginx:alpine"]);
    wait_for_pods(&c, "r3", "run=web", 1);
    let before = started(&c, "r3");
    let script = top().join("tests/it/writers.py");
    let mut writers = c.machine.command("python3");
    writers.arg(script).args(["/etc/coracle/kubeconfig.yaml", "r3", &WRITERS.to_string(), &WRITES.to_string()]);
    let mut writers = writers.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(writers.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Said::default();
    for _ in 0..KILLS {
        lines.by_ref().take(WRITES / (KILLS + 1)).for_each(|line| said.hear(&line));
        c.end_daemon("KILL");
        c.start_daemon();
    }
    lines.for_each(|line| said.hear(&line));
    assert!(writers.wait().unwrap().success(), "the writers came to their end");
    assert!(said.lost >= KILLS, "each kill was in the middle of writes");
    assert_eq!(said.acknowledged.len() + said.present.len(), WRITES);

    let each = r#"jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}"#;
    let list = c.kubectl(&["get", "configmaps", "-nr3", "-o", each]);
    let found: BTreeMap<&str, u64> =
        list.lines().filter_map(|l| l.split_once(' ')).map(|(n, v)| (n, v.parse().unwrap())).collect();
    for (name, revision) in &said.acknowledged {
        assert_eq!(found.get(name.as_str()), Some(revision), "{name} was acknowledged");
    }
    for name in &said.present {
        assert!(found.contains_key(name.as_str()), "{name} had been there");
    }
    assert_eq!(found.values().collect::<BTreeSet<_>>().len(), found.len(), "each has a revision of its own");
    println!("{} answers were lost, {} of their writes kept", said.lost, said.present.len());
    c.wait("the node is ready again", |c| c.node_is_ready());
    assert_eq!(started(&c, "r3"), before, "the pod never stopped");
    assert_eq!(c.value("r3", "pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
}
