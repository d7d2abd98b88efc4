//! What a hostile pod may not do.

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("security_no_block_devices_for_unprivileged_pods", devices),
    ("security_seccomp_holds_in_init_and_exec", seccomp),
    ("security_context_is_applied", context),
];

fn devices(c: &Cluster) {
    c.namespace("s1");
    c.kubectl(&["run", "-ns1", "hostile", "--image=busybox", "--", "sleep", "3600"]);
    wait_for_pods(c, "s1", "run=hostile", 1);
    // The number of the disk that the machine itself runs on.
    let disk = c.machine.run("sh", &["-c", "cat /sys/block/*/dev | head -1"]);
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let script = format!("mknod /tmp/disk b {major} {minor} && dd if=/tmp/disk of=/dev/null bs=512 count=1");
    let out = c.try_kubectl(&["exec", "-ns1", "hostile", "--", "sh", "-c", &script]);
    assert!(!out.status.success() && text(&out).contains("ermi"), "{}", text(&out));
    c.kubectl(&["delete", "namespace", "s1", "--wait=false"]);
}

fn seccomp(c: &Cluster) {
    c.namespace("s2");
    c.apply(
        "s2",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: confined, labels: {app: confined}}\nspec:\n  terminationGracePeriodSeconds: 1\n  securityContext: {seccompProfile: {type: RuntimeDefault}}\n  containers: [{name: c, image: busybox, command: [sh, -c, 'grep Seccomp: /proc/self/status; exec sleep 3600']}]\n",
    );
    wait_for_pods(c, "s2", "app=confined", 1);
    assert_eq!(c.kubectl(&["logs", "-ns2", "confined"]), "Seccomp:\t2\n");
    assert_eq!(
        c.kubectl(&["exec", "-ns2", "confined", "--", "grep", "Seccomp:", "/proc/self/status"]),
        "Seccomp:\t2\n"
    );
    let unshare = c.try_kubectl(&["exec", "-ns2", "confined", "--", "unshare", "-U", "true"]);
    assert!(!unshare.status.success(), "{}", text(&unshare));
    c.kubectl(&["delete", "namespace", "s2", "--wait=false"]);
}

fn context(c: &Cluster) {
    c.namespace("s3");
    c.apply(
        "s3",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: limited, labels: {app: limited}}\nspec:\n  terminationGracePeriodSeconds: 1\n  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000, runAsNonRoot: true}\n  containers:\n  - name: c\n    image: busybox\n    command: [sleep, '3600']\n    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v, emptyDir: {}}]\n",
    );
    wait_for_pods(c, "s3", "app=limited", 1);
    let exec = |script: &str| c.kubectl(&["exec", "-ns3", "limited", "--", "sh", "-c", script]);
    assert_eq!(exec("id -u; id -g; id -G"), "1000\n2000\n2000 3000\n");
    assert_eq!(exec("grep -E 'CapEff|NoNewPrivs' /proc/self/status"), "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
    assert!(exec("touch /x 2>&1 || true").contains("Read-only file system"));
    assert_eq!(exec("touch /v/x && stat -c %g /v/x"), "3000\n");
    let root = "apiVersion: v1\nkind: Pod\nmetadata: {name: root}\nspec: {securityContext: {runAsNonRoot: true}, containers: [{name: c, image: busybox, command: [sleep, '1']}]}\n";
    c.apply("s3", root);
    c.wait("a root image is refused", |c| {
        c.kubectl(&["get", "pod", "-ns3", "root"]).contains("CreateContainerConfigError")
    });
    assert!(
        c.kubectl(&["describe", "pod", "-ns3", "root"])
            .contains("container has runAsNonRoot and image will run as root")
    );
    c.kubectl(&["delete", "namespace", "s3", "--wait=false"]);
}
