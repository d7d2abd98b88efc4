//! A full node: a hundred pods at once, and what they cost.

use crate::cluster::Cluster;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[("scale_a_hundred_pods_run", hundred)];

fn hundred(c: &Cluster) {
    c.namespace("h1");
    c.kubectl(&["create", "deployment", "-nh1", "sleepers", "--image=busybox", "--replicas=100", "--", "sleep", "3600"]);
    let start = tokio::time::Instant::now();
    c.wait("a hundred pods run", |c| c.value("h1", "deployment/sleepers", "{.status.readyReplicas}") == "100");
    let seconds = start.elapsed().as_secs_f32();
    let restarts = c.kubectl(&["get", "pods", "-nh1", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);
    assert!(restarts.split_whitespace().all(|r| r == "0"), "{restarts}");
    let resident = |pattern: &str| -> Vec<u64> {
        let ps = c.machine.run("ps", &["-eo", "rss,args"]);
        ps.lines().filter(|l| l.contains(pattern)).filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect()
    };
    let (daemon, shims) = (resident("coracle server"), resident(" shim"));
    println!(
        "100 pods in {seconds:.1} s; daemon {} KiB; {} shims of {} KiB on average",
        daemon.iter().max().copied().unwrap_or(0),
        shims.len(),
        shims.iter().sum::<u64>() / (shims.len() as u64).max(1)
    );
    c.kubectl(&["delete", "namespace", "h1", "--wait=false"]);
}
