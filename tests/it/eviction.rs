//! What a node does when its disk runs out.

use std::time::Duration;

use crate::cluster::Cluster;

pub(crate) const TESTS: &[(&str, fn())] = &[("eviction_takes_the_pod_that_fills_the_disk", disk)];

/// Fills a volume until little of the disk is left, but not so far that nobody can write any more.
const FILL: &str = "n=0; while [ $(df -m /v | tail -1 | awk '{print int($4*100/$2)}') -gt 6 ]; do n=$((n+1)); \
                    dd if=/dev/zero of=/v/$n bs=1M count=8 2>/dev/null; done; sleep 3600";

fn pod(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         volumes: [{{name: v, emptyDir: {{}}}}]\n  containers:\n  - name: c\n    image: busybox\n    \
         command: [sh, -c, \"{script}\"]\n    volumeMounts: [{{name: v, mountPath: /v}}]\n"
    )
}

fn disk() {
    let c = Cluster::start_with("evict", |machine| {
        machine.run("mkdir", &["-p", "/var/lib/coracle"]);
        machine.run("mount", &["-t", "tmpfs", "-o", "size=1g,mode=755", "disk", "/var/lib/coracle"]);
    });
    c.namespace("e1");
    let small = "dd if=/dev/zero of=/own bs=1k count=32 2>/dev/null; sleep 3600";
    for name in ["innocent-1", "innocent-2"] {
        c.apply("e1", &pod(name, small));
    }
    c.kubectl(&["run", "-ne1", "done", "--image=busybox", "--restart=Never", "--", "sh", "-c", "echo over > /x"]);
    c.kubectl(&["wait", "-ne1", "--for=condition=Ready", "pod/innocent-1", "pod/innocent-2", "--timeout=60s"]);
    c.apply("e1", &pod("culprit", FILL));
    c.wait_within(Duration::from_secs(120), "the culprit is evicted", |c| {
        c.value("e1", "pod/culprit", "{.status.phase} {.status.reason}") == "Failed Evicted"
    });
    let message = c.value("e1", "pod/culprit", "{.status.message}");
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "), "{message}");
    for name in ["innocent-1", "innocent-2"] {
        assert_eq!(c.value("e1", &format!("pod/{name}"), "{.status.phase}"), "Running");
    }
    let events = c.kubectl(&["get", "events", "-A", "-o", "jsonpath={.items[*].message}"]);
    assert!(events.contains("Attempting to reclaim ephemeral-storage"), "{events}");
    // The container of the pod that had finished went first, and its end is still told.
    let end = "{.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(c.value("e1", "pod/done", end), "Completed");
}
