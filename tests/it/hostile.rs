//! Pods that try to freeze the node or to read what is not theirs. Whatever they do, the API server
//! answers at once and other pods run.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("hostile_file_keys_neither_hang_nor_read_the_host", file_keys),
    ("hostile_host_path_that_never_answers_holds_nobody_else", dead_host_path),
    ("hostile_neighbours_find_no_secrets_on_the_disk", secrets),
];

/// Bare of kubectl's own time, on a machine that builds beside the test.
const PROMPT: Duration = Duration::from_secs(5);

/// The API server is ready, and says so without delay.
#[track_caller]
fn is_prompt(c: &Cluster) {
    let asked = Instant::now();
    c.kubectl(&["get", "--raw", "/readyz", "--request-timeout=20s"]);
    assert!(asked.elapsed() < PROMPT, "/readyz took {:?}", asked.elapsed());
}

#[track_caller]
fn waits_for(c: &Cluster, namespace: &str, pod: &str, reason: &str) {
    c.wait(&format!("{pod} is in {reason}"), |c| {
        c.value(namespace, &format!("pod/{pod}"), "{.status.containerStatuses[*].state.waiting.reason}") == reason
    });
}

/// A pod whose variable comes from what its init container makes of `/v/f`.
fn with_file_key(name: &str, command: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  volumes: [{{name: v, emptyDir: {{}}}}]\n  initContainers:\n  - {{name: i, image: busybox, command: [sh, -c, '{command}'], volumeMounts: [{{name: v, mountPath: /v}}]}}\n  containers:\n  - name: c\n    image: busybox\n    command: [sh, -c, 'echo got=$X']\n    env: [{{name: X, valueFrom: {{fileKeyRef: {{volumeName: v, path: f, key: psk}}}}}}]\n"
    )
}

fn file_keys(c: &Cluster) {
    c.namespace("h1");
    c.machine.run("sh", &["-c", "umask 077; echo psk=hunter2-wifi > /var/lib/host-secret"]);
    // More of them than the server has threads.
    for name in ["fifo1", "fifo2", "fifo3"] {
        c.apply("h1", &with_file_key(name, "mkfifo /v/f"));
    }
    c.apply("h1", &with_file_key("absolute", "ln -s /var/lib/host-secret /v/f"));
    c.apply("h1", &with_file_key("relative", "ln -s ../../../../../../../../var/lib/host-secret /v/f"));
    c.apply("h1", &with_file_key("honest", "echo psk=mine > /v/f"));
    for name in ["fifo1", "fifo2", "fifo3", "absolute", "relative"] {
        waits_for(c, "h1", name, "CreateContainerConfigError");
        is_prompt(c);
    }
    c.wait("the honest one has run", |c| c.value("h1", "pod/honest", "{.status.phase}") == "Succeeded");
    assert_eq!(c.kubectl(&["logs", "-nh1", "honest"]), "got=mine\n");
    let told = c.kubectl(&["get", "pods", "-nh1", "-o", "yaml"]);
    assert!(!told.contains("hunter2"), "{told}");
    let refused = with_file_key("host", "true").replace("emptyDir: {}", "hostPath: {path: /var/lib}");
    let out = text(&c.kubectl_stdin(&["apply", "-nh1", "-f", "-"], &refused));
    assert!(out.contains("referenced volume must be of type emptyDir"), "{out}");
    c.kubectl(&["delete", "namespace", "h1", "--timeout=60s"]);
}

/// A file system whose server took the connection and says nothing: what a dead NFS server is.
const DEAD: &str = "
import ctypes, os, time
fd = os.open('/dev/fuse', os.O_RDWR)
os.makedirs('/mnt/dead', exist_ok=True)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'dead', b'/mnt/dead', b'fuse', 0, options) != 0:
    raise OSError(ctypes.get_errno(), 'mount')
print('mounted', flush=True)
time.sleep(600)
";

fn dead_host_path(c: &Cluster) {
    if !std::path::Path::new("/dev/fuse").exists() {
        println!("SKIPPED: this kernel has no FUSE");
        return;
    }
    c.namespace("h2");
    let mut dead = c.machine.command("python3");
    let dead = dead.args(["-c", DEAD]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    c.wait("it is mounted", |c| c.machine.run("cat", &["/proc/mounts"]).contains("/mnt/dead"));
    for (n, kind) in ["", ", type: Directory", ", type: DirectoryOrCreate"].iter().enumerate() {
        let volume = format!("{{name: v, hostPath: {{path: /mnt/dead/below{kind}}}}}");
        c.apply(
            "h2",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: dead{n}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{volume}]\n  containers: [{{name: c, image: busybox, command: [sleep, '3600'], volumeMounts: [{{name: v, mountPath: /v}}]}}]\n"
            ),
        );
    }
    c.kubectl(&["run", "-nh2", "alive", "--image=busybox", "--", "sleep", "3600"]);
    wait_for_pods(c, "h2", "run=alive", 1);
    is_prompt(c);
    assert_eq!(c.kubectl(&["exec", "-nh2", "alive", "--", "echo", "here"]), "here\n");
    c.kubectl(&["delete", "pod", "-nh2", "alive", "--now"]);
    c.wait("the pod is told why it waits", |c| {
        let events = c.kubectl(&["get", "events", "-nh2", "--field-selector=reason=FailedMount"]);
        events.contains("MountVolume.SetUp failed for volume \"v\" : the file system did not answer in time")
    });
    is_prompt(c);
    crate::cluster::end(dead);
    c.machine.run("umount", &["-l", "/mnt/dead"]);
    c.kubectl(&["delete", "namespace", "h2", "--timeout=90s"]);
}

fn secrets(c: &Cluster) {
    c.namespace("h3");
    c.kubectl(&["create", "secret", "generic", "-nh3", "s", "--from-literal=key=hunter2-of-h3"]);
    c.apply(
        "h3",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: reader, labels: {app: reader}}\nspec:\n  terminationGracePeriodSeconds: 1\n  securityContext: {runAsUser: 1000, fsGroup: 3000}\n  volumes:\n  - {name: s, secret: {secretName: s}}\n  - {name: p, projected: {sources: [{secret: {name: s, items: [{key: key, path: below/key}]}}]}}\n  containers:\n  - name: c\n    image: busybox\n    command: [sh, -c, 'exec sleep 3600', \"$(PW)\"]\n    env: [{name: PW, valueFrom: {secretKeyRef: {name: s, key: key}}}]\n    volumeMounts: [{name: s, mountPath: /s}, {name: p, mountPath: /p}]\n",
    );
    wait_for_pods(c, "h3", "app=reader", 1);
    let shown = c.kubectl(&["exec", "-nh3", "reader", "--", "sh", "-c", "cat /s/key /p/below/key; echo $PW"]);
    assert_eq!(shown, "hunter2-of-h3hunter2-of-h3hunter2-of-h3\n");
    // The store is where Secrets rest; nothing else on the disk has them. -xdev: a tmpfs is not the disk.
    let search = "find /var/lib/coracle -xdev -type f ! -name 'state.redb*' -exec grep -l hunter2-of-h3 {} +; true";
    assert_eq!(c.machine.run("sh", &["-c", search]), "");
    for dir in ["/run/coracle", "/var/lib/coracle", "/run/coracle/sandboxes"] {
        assert_eq!(c.machine.run("stat", &["-c", "%a", dir]), "700\n", "{dir}");
    }
    c.kubectl(&["patch", "secret", "-nh3", "s", "-p", "{\"stringData\":{\"key\":\"changed-of-h3\"}}"]);
    c.wait("the volume follows its Secret", |c| {
        text(&c.try_kubectl(&["exec", "-nh3", "reader", "--", "cat", "/s/key"])) == "changed-of-h3"
    });
    let in_memory = || c.machine.run("find", &["/var/lib/coracle/agent/kubelet/secrets", "-name", "s"]);
    assert!(in_memory().contains("/volumes/kubernetes.io~secret/s\n"), "{}", in_memory());
    c.kubectl(&["delete", "namespace", "h3", "--timeout=60s"]);
    assert_eq!(in_memory(), "", "it goes with its pod");
}
