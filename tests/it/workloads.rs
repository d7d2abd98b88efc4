//! Workload kinds and what pods are made of, on real containers.

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("workloads_job_completes_and_cronjob_makes_jobs", jobs),
    ("workloads_statefulset_in_order_with_stable_names", stateful_set),
    ("workloads_daemonset_runs_on_the_node", daemon_set),
    ("workloads_a_hog_is_oom_killed", oom),
    ("workloads_crash_loop_backs_off", crash_loop),
    ("workloads_configuration_reaches_containers", configuration),
    ("workloads_programs_run_from_volumes", programs),
    ("workloads_probes_and_init_containers", probes),
    ("workloads_logs_can_be_asked_for_in_every_way", logs),
    ("workloads_priority_preempts", preemption),
];

fn jobs(c: &Cluster) {
    c.namespace("w1");
    c.kubectl(&["create", "job", "-nw1", "once", "--image=busybox", "--", "echo", "done"]);
    c.kubectl(&["wait", "-nw1", "--for=condition=complete", "job/once", "--timeout=60s"]);
    assert_eq!(c.kubectl(&["logs", "-nw1", "job/once"]), "done\n");
    assert!(c.kubectl(&["get", "job", "-nw1", "once"]).contains("Complete   1/1"));
    c.kubectl(&["create", "cronjob", "-nw1", "often", "--image=busybox", "--schedule=* * * * *", "--", "true"]);
    c.kubectl(&["create", "job", "-nw1", "by-hand", "--from=cronjob/often"]);
    c.kubectl(&["wait", "-nw1", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
    c.wait("the cron job starts a job", |c| !c.value("w1", "cronjob/often", "{.status.lastScheduleTime}").is_empty());
    c.kubectl(&["delete", "namespace", "w1", "--wait=false"]);
}

fn stateful_set(c: &Cluster) {
    c.namespace("w2");
    c.apply("w2", "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n");
    c.apply(
        "w2",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  serviceName: db\n  replicas: 2\n  selector: {matchLabels: {app: db}}\n  template:\n    metadata: {labels: {app: db}}\n    spec:\n      containers: [{name: c, image: 'nginx:alpine'}]\n",
    );
    wait_for_pods(c, "w2", "app=db", 2);
    assert_eq!(c.kubectl(&["get", "pods", "-nw2", "-o", "name"]), "pod/db-0\npod/db-1\n");
    c.wait("each pod has a name of its own", |c| {
        let answer = c.try_kubectl(&["exec", "-nw2", "db-0", "--", "wget", "-qO-", "http://db-1.db"]);
        text(&answer).contains("Welcome to nginx!")
    });
    c.kubectl(&["delete", "pod", "-nw2", "db-1"]);
    wait_for_pods(c, "w2", "app=db", 2);
    c.apply(
        "w2",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: store}\nspec:\n  serviceName: db\n  selector: {matchLabels: {app: store}}\n  template:\n    metadata: {labels: {app: store}}\n    spec:\n      containers: [{name: c, image: 'nginx:alpine', volumeMounts: [{name: data, mountPath: /data}]}]\n  volumeClaimTemplates:\n  - metadata: {name: data}\n    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
    );
    c.wait("a pod that mounts its claim is made", |c| {
        text(&c.try_kubectl(&["get", "pod", "-nw2", "store-0", "-o", "yaml"])).contains("claimName: data-store-0")
    });
    c.kubectl(&["delete", "namespace", "w2", "--wait=false"]);
}

fn daemon_set(c: &Cluster) {
    c.namespace("w3");
    c.apply(
        "w3",
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: every}\nspec:\n  selector: {matchLabels: {app: every}}\n  template:\n    metadata: {labels: {app: every}}\n    spec:\n      containers: [{name: c, image: busybox, command: [sleep, '3600']}]\n",
    );
    wait_for_pods(c, "w3", "app=every", 1);
    c.kubectl(&["rollout", "status", "-nw3", "ds/every", "--timeout=60s"]);
    c.kubectl(&["delete", "namespace", "w3", "--wait=false"]);
}

fn oom(c: &Cluster) {
    c.namespace("w4");
    c.apply(
        "w4",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: hog}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: hog\n    image: busybox\n    command: [sh, -c, 'x=a; while :; do x=$x$x; done']\n    resources: {limits: {memory: 32Mi}}\n",
    );
    c.wait("the hog is killed", |c| {
        c.value("w4", "pod/hog", "{.status.containerStatuses[0].state.terminated.reason}") == "OOMKilled"
    });
    assert_eq!(c.value("w4", "pod/hog", "{.status.containerStatuses[0].state.terminated.exitCode}"), "137");
    assert!(c.kubectl(&["get", "pod", "-nw4", "hog"]).contains("OOMKilled"));
    c.kubectl(&["delete", "namespace", "w4", "--wait=false"]);
}

fn crash_loop(c: &Cluster) {
    c.namespace("w5");
    c.kubectl(&["run", "-nw5", "crash", "--image=busybox", "--", "sh", "-c", "echo about to fail; exit 3"]);
    c.wait("it backs off", |c| c.kubectl(&["get", "pod", "-nw5", "crash"]).contains("CrashLoopBackOff"));
    let last = c.value("w5", "pod/crash", "{.status.containerStatuses[0].lastState.terminated.exitCode}");
    assert_eq!(last, "3");
    assert_eq!(c.kubectl(&["logs", "-nw5", "crash", "--previous"]), "about to fail\n");
    assert!(
        c.kubectl(&["describe", "pod", "-nw5", "crash"])
            .contains("Back-off restarting failed container crash in pod crash_w5")
    );
    c.kubectl(&["delete", "namespace", "w5", "--wait=false"]);
}

fn configuration(c: &Cluster) {
    c.namespace("w6");
    c.kubectl(&["create", "configmap", "-nw6", "settings", "--from-literal=colour=green", "--from-literal=size=large"]);
    c.kubectl(&["create", "secret", "generic", "-nw6", "keys", "--from-literal=password=s3cret"]);
    c.apply(
        "w6",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: all, labels: {app: all}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: busybox\n    command: [sh, -c, 'echo ready; exec sleep 3600']\n    envFrom: [{configMapRef: {name: settings}, prefix: CM_}]\n    env:\n    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}\n    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n    - {name: BOTH, value: '$(PASSWORD)-$(CM_colour)'}\n    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n    resources: {limits: {memory: 64Mi}}\n    volumeMounts:\n    - {name: settings, mountPath: /settings}\n    - {name: keys, mountPath: /keys, readOnly: true}\n    - {name: down, mountPath: /down}\n    - {name: scratch, mountPath: /scratch}\n    - {name: settings, mountPath: /one, subPath: size}\n    - {name: settings, mountPath: /none, subPath: later}\n  volumes:\n  - {name: settings, configMap: {name: settings}}\n  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}\n  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}\n  - {name: scratch, emptyDir: {medium: Memory}}\n",
    );
    wait_for_pods(c, "w6", "app=all", 1);
    let exec = |script: &str| c.kubectl(&["exec", "-nw6", "all", "--", "sh", "-c", script]);
    assert_eq!(exec("echo $CM_colour $PASSWORD $BOTH $LIMIT"), "green s3cret s3cret-green 64\n");
    assert_eq!(exec("cat /settings/size /one"), "largelarge");
    assert_eq!(exec("ls -d /none/."), "/none/.\n", "a subPath without a key is a directory");
    assert_eq!(exec("stat -Lc %a /keys/password; cat /down/labels"), "400\napp=\"all\"");
    assert!(exec("echo $POD_IP").starts_with("10.244."));
    assert!(exec("grep /scratch /proc/mounts").starts_with("tmpfs"));
    let token = exec("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace");
    assert_eq!(token, "w6");
    let token = exec("cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    // The administrator's certificate would win over the token.
    let server = ["--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443"];
    let ca = "--certificate-authority=/var/lib/coracle/server/tls/ca.crt";
    let whoami = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--token", token.trim(), ca];
    let account = c.kubectl(&[&whoami[..], &server[..]].concat());
    assert_eq!(account, "system:serviceaccount:w6:default");
    c.kubectl(&["patch", "configmap", "-nw6", "settings", "-p", r#"{"data":{"colour":"blue","later":"now"}}"#]);
    c.wait("the volume follows the ConfigMap", |c| {
        text(&c.try_kubectl(&["exec", "-nw6", "all", "--", "cat", "/settings/colour", "/settings/later"])) == "bluenow"
    });
    let events = c.kubectl(&["get", "events", "-nw6", "-o", "jsonpath={.items[*].message}"]);
    assert!(!events.contains("SetUp failed for volume \"settings\""), "{events}");
    c.kubectl(&["delete", "namespace", "w6", "--wait=false"]);
}

/// Straight from the volumes, not by a shell that reads them.
fn programs(c: &Cluster) {
    c.namespace("w10");
    let script = |words: &str| format!("--from-literal=run.sh=#!/bin/sh\necho {words}\n");
    c.kubectl(&["create", "secret", "generic", "-nw10", "hidden", &script("from the secret")]);
    c.kubectl(&["create", "configmap", "-nw10", "shown", &script("from the map")]);
    let container = |name: &str, command: &str| {
        format!(
            "  - name: {name}\n    image: busybox\n    command: [{command}]\n    volumeMounts: [{{name: secret, \
             mountPath: /secret}}, {{name: projected, mountPath: /projected}}, {{name: secret, mountPath: /bin/tool, \
             subPath: run.sh}}]\n"
        )
    };
    let containers = [("a", "/secret/run.sh"), ("b", "/projected/run.sh"), ("c", "/bin/tool")];
    let containers = containers.map(|(name, command)| container(name, command)).concat();
    c.apply(
        "w10",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: programs}}\nspec:\n  restartPolicy: Never\n  volumes:\n  - \
             {{name: secret, secret: {{secretName: hidden, defaultMode: 0755}}}}\n  - {{name: projected, projected: \
             {{defaultMode: 0755, sources: [{{configMap: {{name: shown}}}}]}}}}\n  containers:\n{containers}"
        ),
    );
    c.kubectl(&["wait", "-nw10", "--for=jsonpath={.status.phase}=Succeeded", "pod/programs", "--timeout=60s"]);
    for (name, words) in [("a", "from the secret\n"), ("b", "from the map\n"), ("c", "from the secret\n")] {
        assert_eq!(c.kubectl(&["logs", "-nw10", "programs", "-c", name]), words);
    }
    c.kubectl(&["delete", "namespace", "w10", "--wait=false"]);
}

fn probes(c: &Cluster) {
    c.namespace("w7");
    c.apply(
        "w7",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: probed, labels: {app: probed}}\nspec:\n  terminationGracePeriodSeconds: 1\n  initContainers:\n  - {name: first, image: busybox, command: [sh, -c, 'echo one > /work/order']  , volumeMounts: [{name: work, mountPath: /work}]}\n  - {name: second, image: busybox, command: [sh, -c, 'echo two >> /work/order'], volumeMounts: [{name: work, mountPath: /work}]}\n  containers:\n  - name: c\n    image: nginx:alpine\n    volumeMounts: [{name: work, mountPath: /work}]\n    readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}\n    livenessProbe: {exec: {command: [sh, -c, 'test ! -e /tmp/sick']}, periodSeconds: 1, failureThreshold: 1}\n    startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1}\n  volumes: [{name: work, emptyDir: {}}]\n",
    );
    wait_for_pods(c, "w7", "app=probed", 1);
    assert_eq!(c.kubectl(&["exec", "-nw7", "probed", "-c", "c", "--", "cat", "/work/order"]), "one\ntwo\n");
    c.kubectl(&["exec", "-nw7", "probed", "-c", "c", "--", "touch", "/tmp/sick"]);
    c.wait("the sick container is restarted", |c| {
        c.value("w7", "pod/probed", "{.status.containerStatuses[0].restartCount}") == "1"
    });
    c.wait("the event tells why", |c| {
        c.kubectl(&["describe", "pod", "-nw7", "probed"])
            .contains("Container c failed liveness probe, will be restarted")
    });
    c.kubectl(&["delete", "namespace", "w7", "--wait=false"]);
}

fn logs(c: &Cluster) {
    c.namespace("w8");
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; done; exec sleep 3600";
    c.kubectl(&["run", "-nw8", "talker", "--image=busybox", "--grace-period=1", "--", "sh", "-c", script]);
    c.wait("all was said", |c| text(&c.try_kubectl(&["logs", "-nw8", "talker"])).contains("line 20"));
    assert_eq!(c.kubectl(&["logs", "-nw8", "talker", "--tail=2"]), "line 19\nline 20\n");
    assert_eq!(c.kubectl(&["logs", "-nw8", "talker", "--since=1h"]).lines().count(), 20);
    let stamped = c.kubectl(&["logs", "-nw8", "talker", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.ends_with("Z line 20\n"), "{stamped}");
    let follow = c.spawn_kubectl(&["logs", "-nw8", "talker", "-f", "--tail=1"]);
    c.kubectl(&["exec", "-nw8", "talker", "--", "sh", "-c", "echo more > /proc/1/fd/1"]);
    c.kubectl(&["delete", "pod", "-nw8", "talker", "--grace-period=1"]);
    let followed = text(&follow.wait_with_output().unwrap());
    // Following may begin before or after the last line was said.
    assert!(followed.ends_with("more\n"), "{followed}");
    c.kubectl(&["delete", "namespace", "w8", "--wait=false"]);
}

fn preemption(c: &Cluster) {
    c.namespace("w9");
    c.apply("w9", "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: urgent}\nvalue: 1000\n");
    // Together these two do not fit.
    let cpus: f64 = c.value("", "node/pi", "{.status.allocatable.cpu}").parse().unwrap();
    let pod = |name: &str, extra: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{extra}  containers: [{{name: c, image: busybox, command: [sleep, '3600'], resources: {{requests: {{cpu: '{}'}}}}}}]\n",
            cpus * 0.6
        )
    };
    c.apply("w9", &pod("low", ""));
    wait_for_pods(c, "w9", "app=low", 1);
    c.apply("w9", &pod("waits", ""));
    c.wait("the second does not fit", |c| {
        c.kubectl(&["describe", "pod", "-nw9", "waits"]).contains("0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
    });
    c.kubectl(&["delete", "pod", "-nw9", "waits"]);
    c.apply("w9", &pod("high", "  priorityClassName: urgent\n"));
    wait_for_pods(c, "w9", "app=high", 1);
    assert!(c.kubectl_fails(&["get", "pod", "-nw9", "low"]).contains("not found"));
    c.kubectl(&["delete", "namespace", "w9", "--wait=false"]);
    c.kubectl(&["delete", "priorityclass", "urgent"]);
}
