//! The daemon stops, is killed, or the plug is pulled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("restart_of_the_daemon_leaves_pods_running", daemon),
    ("restart_after_a_pulled_plug_brings_pods_back", plug),
    ("restart_in_the_middle_of_writes_loses_none", writes),
];

fn started(c: &Cluster) -> String {
    c.value("r1", "pod/web", "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}")
}

fn daemon() {
    let mut c = Cluster::start("restart");
    c.namespace("r1");
    c.kubectl(&["run", "-nr1", "web", "--image=nginx:alpine"]);
    wait_for_pods(&c, "r1", "run=web", 1);
    let (before, ip) = (started(&c), c.value("r1", "pod/web", "{.status.podIP}"));
    for signal in ["TERM", "KILL"] {
        c.end_daemon(signal);
        let page = c.fetch(&format!("http://{ip}"));
        assert!(page.is_some_and(|p| p.contains("nginx")), "the pod answers while the daemon is away");
        c.start_daemon();
        c.wait("the node is ready again", |c| c.node_is_ready());
        assert_eq!(started(&c), before, "after SIG{signal}");
        assert_eq!(c.kubectl(&["exec", "-nr1", "web", "--", "hostname"]), "web\n");
    }
    assert_eq!(c.value("r1", "pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
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

fn writes() {
    let mut c = Cluster::start("writes");
    c.namespace("r3");
    c.kubectl(&["run", "-nr3", "steady", "--image=busybox", "--", "sleep", "3600"]);
    wait_for_pods(&c, "r3", "run=steady", 1);
    let acknowledged: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let killed = Arc::new(AtomicBool::new(false));
    let pid = c.daemon_pid().to_string();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (acknowledged, killed, c, pid) = (acknowledged.clone(), killed.clone(), &c, &pid);
            scope.spawn(move || {
                for n in (writer..WRITES).step_by(WRITERS) {
                    let name = format!("w{n}");
                    let args = ["create", "configmap", "-nr3", &name, "--from-literal=a=b", "-o", "jsonpath={.metadata.resourceVersion}"];
                    let out = c.try_kubectl(&args);
                    if !out.status.success() {
                        return;
                    }
                    let mut all = acknowledged.lock().unwrap();
                    all.insert(name, String::from_utf8(out.stdout).unwrap().parse().unwrap());
                    if all.len() == WRITES / 4 && !killed.swap(true, Ordering::SeqCst) {
                        crate::machine::succeed(crate::machine::command("kill").args(["-9", pid]));
                    }
                }
            });
        }
    });
    c.daemon_ended();
    c.start_daemon();
    let acknowledged = acknowledged.lock().unwrap();
    let list = c.kubectl(&["get", "configmaps", "-nr3", "-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}"]);
    let found: BTreeMap<&str, u64> =
        list.lines().filter_map(|l| l.split_once(' ')).map(|(n, v)| (n, v.parse().unwrap())).collect();
    for (name, revision) in acknowledged.iter() {
        assert_eq!(found.get(name.as_str()), Some(revision), "{name} was acknowledged");
    }
    let highest = acknowledged.values().max().copied().unwrap();
    let next: u64 = c
        .kubectl(&["create", "configmap", "-nr3", "after", "-o", "jsonpath={.metadata.resourceVersion}"])
        .parse()
        .unwrap();
    assert!(next > highest && !found.values().any(|&v| v == next), "revision {next} is new");
    let steady = text(&c.try_kubectl(&["get", "pod", "-nr3", "steady", "--no-headers"]));
    assert!(steady.contains("1/1") && steady.contains(" 0 "), "{steady}");
}
