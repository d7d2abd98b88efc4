//! Many at once, and how fast and small.

use std::fs;

use tokio::time::Instant;

use crate::fixture::Node;

pub(crate) async fn twenty_sandboxes(node: &mut Node) {
    let started = Instant::now();
    let node = &*node;
    let one = |number: usize| async move {
        let uid = format!("p{number}");
        node.sandbox(&uid).await;
        let mut config = node.shell(&format!("exit {number}"));
        config.log_path = node.dir.path().join(format!("logs/{uid}/0.log"));
        let id = node.start(&uid, config).await;
        let ours = node.runtime().sandbox_containers(&uid);
        assert_eq!(ours.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [id.as_str()], "one of twenty");
        node.ended(&id).await.exit_code
    };
    let codes = futures::future::join_all((0..20).map(one)).await;
    assert_eq!(codes, (0..20).map(Some).collect::<Vec<_>>());
    println!("  20 sandboxes with a container each, at once: {:?}", started.elapsed());
}

/// Prints what DESIGN's budgets are about.
pub(crate) async fn figures(node: &mut Node) {
    let (mut sandboxes, mut containers) = (Vec::new(), Vec::new());
    for number in 0..10 {
        let uid = format!("p{number}");
        let started = Instant::now();
        let sandbox = node.sandbox(&uid).await;
        sandboxes.push(started.elapsed());
        let mut config = node.shell("sleep 1000");
        config.security.seccomp = runtime::Seccomp::RuntimeDefault;
        config.log_path = node.dir.path().join(format!("logs/{uid}/0.log"));
        let started = Instant::now();
        node.start(&uid, config).await;
        containers.push(started.elapsed());
        if number == 9 {
            print_memory(sandbox.shim_pid);
        }
    }
    sandboxes.sort();
    containers.sort();
    println!("  sandbox: median {:?}, container create+start: median {:?}", sandboxes[5], containers[5]);
}

fn print_memory(pid: u32) {
    let kibibytes =
        |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let total = |name: &str| rollup.lines().find(|line| line.starts_with(name)).map_or(0, kibibytes);
    // By kind: relocations of a position-independent test binary are not there in the static one.
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut heap, mut file, mut mapping) = (0, 0, "");
    for line in maps.lines() {
        if !line.split_whitespace().next().is_some_and(|word| word.ends_with(':')) {
            mapping = line.split_whitespace().nth(5).unwrap_or("");
        } else if line.starts_with("Anonymous:") {
            *(if mapping.starts_with('/') { &mut file } else { &mut heap }) += kibibytes(line);
        }
    }
    println!(
        "  shim: RSS {} KiB, PSS {} KiB; anonymous: {heap} KiB of heap and stack, {file} KiB of relocated file pages",
        total("Rss:"),
        total("Pss:"),
    );
}
