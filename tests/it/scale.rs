//! A full node: a hundred pods at once, what they cost, and that nothing of them stays.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::machine::Machine;

pub(crate) const TESTS: &[(&str, fn())] = &[("scale_a_hundred_pods_run_and_leave_nothing", hundred)];

const PODS: usize = 100;
/// A build for debugging takes 40 s for them on two busy cores.
const LIMIT: Duration = Duration::from_secs(150);

/// `sleep` as the first process of its pod ignores the stop signal: the grace period is its life.
const SLEEPERS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: sleepers}
spec:
  replicas: 1
  selector: {matchLabels: {app: sleepers}}
  template:
    metadata: {labels: {app: sleepers}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: sleep, image: busybox, command: [sleep, '3600']}]
";

fn hundred() {
    let c = Cluster::start("scale");
    c.namespace("h1");
    c.apply("h1", SLEEPERS);
    c.wait("one pod runs", |c| ready(c) == "1");
    c.kubectl(&["scale", "-nh1", "deployment/sleepers", "--replicas=0"]);
    c.wait("it is gone", |c| c.kubectl(&["get", "pods", "-nh1", "-o", "name"]).is_empty());
    // What the first pod of a node leaves for the next ones is there now: the image, parents of cgroups.
    c.wait("no process is left", |c| shims(&c.machine).is_empty());
    let before = census(&c.machine);

    let start = tokio::time::Instant::now();
    c.kubectl(&["scale", "-nh1", "deployment/sleepers", &format!("--replicas={PODS}")]);
    c.wait_within(LIMIT, "a hundred pods run", |c| ready(c) == PODS.to_string());
    let seconds = start.elapsed().as_secs_f32();
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    let restarts = c.kubectl(&["get", "pods", "-nh1", "-o", &format!("jsonpath={restarts}")]);
    assert_eq!(restarts.split_whitespace().collect::<Vec<_>>(), ["0"; PODS]);
    println!("{PODS} pods in {seconds:.1} s; {}", memory(&c.machine));
    let idle = cpu(&c.machine);
    println!("with them the idle daemon takes {idle} % of a core");
    assert!(idle < 10.0, "nothing happens, yet the daemon takes {idle} % of a core");

    let start = tokio::time::Instant::now();
    c.kubectl(&["delete", "namespace", "h1", "--wait=false"]);
    c.wait_within(LIMIT, "the namespace is gone", |c| !c.try_kubectl(&["get", "namespace", "h1"]).status.success());
    println!("all of them gone after {:.1} s", start.elapsed().as_secs_f32());
    let left: Vec<String> = census(&c.machine).difference(&before).cloned().collect();
    assert!(left.is_empty(), "of pods that are gone there is left:\n{}", left.join("\n"));
}

fn ready(c: &Cluster) -> String {
    c.value("h1", "deployment/sleepers", "{.status.readyReplicas}")
}

/// Everything on the machine that a pod brings.
fn census(machine: &Machine) -> BTreeSet<String> {
    let commands: [(&str, &[&str]); 8] = [
        ("mount", &["findmnt", "-rn", "-o", "TARGET"]),
        ("link", &["ip", "-br", "link"]),
        ("route", &["ip", "route"]),
        ("neighbour", &["ip", "neighbour"]),
        ("namespace", &["lsns", "-rn", "-t", "net", "-o", "NS"]),
        ("rule", &["nft", "list", "ruleset"]),
        ("cgroup", &["find", "/sys/fs/cgroup", "-type", "d"]),
        ("file", &["find", "/var/lib/coracle/agent", "/run", "-name", "imagestore", "-prune", "-o", "-print"]),
    ];
    let mut all: BTreeSet<String> = shims(machine).into_iter().map(|pid| format!("shim {pid}")).collect();
    for (what, command) in commands {
        let out = machine.run(command[0], &command[1..]);
        all.extend(out.lines().map(|line| format!("{what} {}", line.trim())));
    }
    all
}

fn shims(machine: &Machine) -> Vec<String> {
    let ps = machine.run("ps", &["-eo", "pid=,args="]);
    let mine = |l: &&str| l.split_whitespace().nth(2) == Some("shim");
    ps.lines().filter(mine).filter_map(|l| Some(l.split_whitespace().next()?.to_owned())).collect()
}

/// Proportional set sizes: pages that processes share are counted once.
fn memory(machine: &Machine) -> String {
    let pss = |pid: &str| -> u64 {
        let rollup = machine.run("cat", &[&format!("/proc/{pid}/smaps_rollup")]);
        let line = rollup.lines().find(|l| l.starts_with("Pss:")).expect("a line of the kernel's");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    let (shims, daemon) = (shims(machine), daemon(machine));
    let rss = machine.run("ps", &["-o", "rss=", &daemon]);
    let sum: u64 = shims.iter().map(|pid| pss(pid)).sum();
    format!(
        "daemon {} KiB resident; {} shims of {} KiB each",
        rss.trim(),
        shims.len(),
        sum / u64::try_from(shims.len()).expect("few").max(1)
    )
}

fn daemon(machine: &Machine) -> String {
    machine.run("pgrep", &["-of", "coracle[^ ]* server"]).trim().to_owned()
}

/// Percent of one core over five seconds: the second of two samples, as the first is since the start.
fn cpu(machine: &Machine) -> f32 {
    let pid = daemon(machine);
    let top = machine.run("top", &["-b", "-d", "5", "-n", "2", "-p", &pid]);
    let line = top.lines().rfind(|l| l.split_whitespace().next() == Some(&pid)).expect("top shows it");
    line.split_whitespace().nth(8).and_then(|cpu| cpu.parse().ok()).expect("a number")
}
