//! What a hostile pod may not do.

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("security_no_block_devices_for_unprivileged_pods", devices),
    ("security_seccomp_holds_in_init_and_exec", seccomp),
    ("security_context_is_applied", context),
    ("security_kubelet_port_takes_tokens", kubelet_port),
    ("security_links_of_pods_are_without_ipv6", ipv6),
    ("security_a_node_puts_its_status_right", node_status),
];

fn node_status(c: &Cluster) {
    let told = "{.status.addresses[?(@.type=='InternalIP')].address}:{.status.daemonEndpoints.kubeletEndpoint.Port}";
    assert_eq!(c.value("", "node/pi", told), "192.168.77.2:10250");
    let forged = r#"{"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 6443}}}}"#;
    c.kubectl(&["patch", "node", "pi", "--subresource=status", "--type=merge", "-p", forged]);
    c.wait("the node has put it right", |c| c.value("", "node/pi", told) == "192.168.77.2:10250");
}

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

fn kubelet_port(c: &Cluster) {
    c.namespace("s4");
    c.kubectl(&["create", "serviceaccount", "-ns4", "scraper"]);
    c.kubectl(&["create", "clusterrole", "s4-scraper", "--verb=get", "--resource=nodes/metrics"]);
    c.kubectl(&[
        "create",
        "clusterrolebinding",
        "s4-scraper",
        "--clusterrole=s4-scraper",
        "--serviceaccount=s4:scraper",
    ]);
    let token = c.kubectl(&["create", "token", "-ns4", "scraper"]);
    let stranger = c.kubectl(&["create", "token", "-ns4", "default"]);
    let ask = |path: &str, token: &str| {
        let header = format!("Authorization: Bearer {}", token.trim());
        let url = format!("https://127.0.0.1:10250{path}");
        c.machine.run("curl", &["-sk", "-w", " %{http_code}", "-H", &header, &url])
    };
    let metrics = ask("/metrics/resource", &token);
    assert!(metrics.contains("node_cpu_usage_seconds_total") && metrics.ends_with(" 200"), "{metrics}");
    let user = "system:serviceaccount:s4";
    for (path, token, expected) in [
        ("/metrics/resource", "made-up", "Unauthorized 401".to_owned()),
        (
            "/metrics/resource",
            &*stranger,
            format!("Forbidden (user={user}:default, verb=get, resource=nodes, subresource(s)=[metrics])\n 403"),
        ),
        (
            "/pods",
            &*token,
            format!("Forbidden (user={user}:scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])\n 403"),
        ),
    ] {
        assert_eq!(ask(path, token), expected, "{path}");
    }
    c.kubectl(&["delete", "clusterrolebinding,clusterrole", "s4-scraper"]);
    c.kubectl(&["delete", "namespace", "s4", "--wait=false"]);
}

fn ipv6(c: &Cluster) {
    c.namespace("s5");
    c.kubectl(&["run", "-ns5", "plain", "--image=busybox", "--", "sleep", "3600"]);
    wait_for_pods(c, "s5", "run=plain", 1);
    assert_eq!(c.kubectl(&["exec", "-ns5", "plain", "--", "ip", "-6", "addr", "show", "dev", "eth0"]), "");
    let off = c.machine.run("sh", &["-c", "cat /proc/sys/net/ipv6/conf/pod*/disable_ipv6 | sort -u"]);
    assert_eq!(off, "1\n");
    c.kubectl(&["delete", "namespace", "s5", "--wait=false"]);
}
