//! Daily work with Kubernetes as users' notes describe it: every command and what it prints.

use crate::cluster::{Cluster, end};
use crate::machine::text;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("notes_run_get_delete", run_get_delete),
    ("notes_pod_from_yaml_is_watched_edited_and_described", pod_from_yaml),
    ("notes_replication_controller", replication_controller),
    ("notes_replicaset_adopts_replaces_and_scales", replicaset),
    ("notes_deployment_rolls_out_back_and_survives_a_wrong_image", deployment),
    ("notes_deployment_recreate_stops_all_first", recreate),
    ("notes_services_answer_by_node_port_and_name", services),
    ("notes_every_kind_is_described", describe),
    ("notes_other_commands", other_commands),
];

/// The cells of the row whose first cell begins so.
fn row(table: &str, name: &str) -> Vec<String> {
    let line = table.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{table}"));
    line.split_whitespace().map(ToOwned::to_owned).collect()
}

fn header(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or("").split_whitespace().collect()
}

pub(crate) fn wait_for_pods(c: &Cluster, namespace: &str, selector: &str, count: usize) {
    let ready = r#"{range .items[*]}{.metadata.deletionTimestamp}{.status.phase}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    c.wait(&format!("{count} pods of {selector} run in {namespace}"), |c| {
        let pods = c.kubectl(&["get", "pods", "-n", namespace, "-l", selector, "-o", &format!("jsonpath={ready}")]);
        pods.lines().count() == count && pods.lines().all(|l| l == "RunningTrue")
    });
}

fn run_get_delete(c: &Cluster) {
    c.namespace("n1");
    let n = "-nn1";
    assert_eq!(c.kubectl(&["run", n, "my-nginx", "--image", "nginx"]), "pod/my-nginx created\n");
    c.wait("my-nginx runs", |c| c.kubectl(&["get", "pods", n]).contains("1/1     Running"));
    let pods = c.kubectl(&["get", "pods", n]);
    assert_eq!(header(&pods), ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(row(&pods, "my-nginx")[..4], ["my-nginx", "1/1", "Running", "0"]);
    assert_eq!(c.kubectl(&["get", "pods", n, "-o", "name"]), "pod/my-nginx\n");

    let all = c.kubectl(&["get", "all"]);
    assert_eq!(header(&all), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(
        row(&all, "service/kubernetes")[..5],
        ["service/kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]
    );
    assert!(c.kubectl(&["get", "all", n]).contains("pod/my-nginx"));

    let logs = c.kubectl(&["logs", n, "-l", "run=my-nginx"]);
    assert!(logs.contains("start worker process"), "{logs}");
    let one = c.kubectl(&["logs", n, "my-nginx", "--tail", "1"]);
    assert_eq!(one.lines().count(), 1, "{one}");

    let wide = c.kubectl(&["get", "pods", n, "-o", "wide"]);
    assert_eq!(header(&wide)[5..], ["IP", "NODE", "NOMINATED", "NODE", "READINESS", "GATES"]);
    assert!(wide.contains(" 10.244.") && wide.contains(" pi "), "{wide}");
    assert!(c.kubectl(&["get", "pod", n, "my-nginx", "-o", "yaml"]).contains("image: nginx\n"));
    assert_eq!(c.value("n1", "pod/my-nginx", "{.status.phase}"), "Running");
    let deleted = c.kubectl(&["delete", "pod", n, "my-nginx"]);
    assert_eq!(deleted.trim_end(), "pod \"my-nginx\" deleted from n1 namespace");
    assert!(
        c.kubectl_fails(&["get", "pod", n, "my-nginx"])
            .contains("Error from server (NotFound): pods \"my-nginx\" not found")
    );
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: nginx
  labels:
    app: myapp
    type: front-end
spec:
  containers:
    - name: nginx
      image: nginx:alpine
";

fn pod_from_yaml(c: &Cluster) {
    c.namespace("n2");
    let watch = c.spawn_kubectl(&["get", "pods", "-nn2", "-w"]);
    let created = c.kubectl_stdin(&["create", "-nn2", "-f", "-"], POD);
    assert_eq!(text(&created), "pod/nginx created\n");
    wait_for_pods(c, "n2", "app=myapp", 1);

    let editor = c.machine.directory().join("var-lib/editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/image: nginx:alpine/image: nginx:1.9.1/' \"$1\"\n").unwrap();
    c.machine.run("chmod", &["755", "/var/lib/editor"]);
    let edited = c.machine.run(
        "env",
        &[
            "KUBE_EDITOR=/var/lib/editor",
            &tool("kubectl"),
            "--kubeconfig=/etc/coracle/kubeconfig.yaml",
            "edit",
            "-nn2",
            "pod",
            "nginx",
        ],
    );
    assert_eq!(edited, "pod/nginx edited\n");
    c.wait("the container is replaced in place", |c| {
        c.value("n2", "pod/nginx", "{.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].image}")
            .starts_with("1docker.io/library/nginx:1.9.1")
    });
    let described = c.kubectl(&["describe", "-nn2", "pod/nginx"]);
    for part in [
        "Successfully assigned n2/nginx to pi",
        "Pulled",
        "Created",
        "Started",
        "definition changed, will be restarted",
    ] {
        assert!(described.contains(part), "{part} is missing in\n{described}");
    }
    c.kubectl(&["delete", "-nn2", "pods/nginx"]);
    let watched = end(watch);
    assert!(watched.contains("ContainerCreating") && watched.contains("Running"), "{watched}");
    assert!(!watched.contains("CrashLoopBackOff"), "an edited container waits for nothing\n{watched}");
}

fn tool(name: &str) -> String {
    crate::machine::top().join("target/tools").join(name).to_str().unwrap().to_owned()
}

fn controller(api: &str, kind: &str, name: &str, replicas: u32, selector: &str) -> String {
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  labels:\n    app: myapp\n    type: front-end\nspec:\n  \
         template:\n    metadata:\n      name: myapp-nginx\n      labels:\n        app: myapp\n        type: front-end\n    \
         spec:\n      containers:\n        - name: nginx\n          image: nginx:alpine\n  replicas: {replicas}\n{selector}"
    )
}

fn replication_controller(c: &Cluster) {
    c.namespace("n3");
    let yaml = controller("v1", "ReplicationController", "myapp-rc", 2, "");
    let created = c.kubectl_stdin(&["create", "-nn3", "-f", "-"], &yaml);
    assert_eq!(text(&created), "replicationcontroller/myapp-rc created\n");
    wait_for_pods(c, "n3", "type=front-end", 2);
    let pods = c.kubectl(&["get", "pods", "-nn3", "-o", "name"]);
    assert!(pods.lines().all(|l| l.starts_with("pod/myapp-rc-")), "{pods}");
    let table = c.kubectl(&["get", "rc", "-nn3"]);
    assert_eq!(row(&table, "myapp-rc")[..4], ["myapp-rc", "2", "2", "2"]);
    c.kubectl(&["delete", "-nn3", "rc", "myapp-rc"]);
    c.wait("its pods go with it", |c| c.kubectl(&["get", "pods", "-nn3", "-o", "name"]).is_empty());
}

fn replicaset(c: &Cluster) {
    c.namespace("n4");
    let selector = "  selector:\n    matchLabels:\n      type: front-end\n";
    // A bare pod that the selector matches counts as one of the replicas.
    c.apply("n4", &POD.replace("name: nginx\n  labels", "name: bare\n  labels"));
    wait_for_pods(c, "n4", "type=front-end", 1);
    let yaml = controller("apps/v1", "ReplicaSet", "myapp-rs", 2, selector);
    let created = c.kubectl_stdin(&["create", "-nn4", "-f", "-"], &yaml);
    assert_eq!(text(&created), "replicaset.apps/myapp-rs created\n");
    wait_for_pods(c, "n4", "type=front-end", 2);
    assert_eq!(c.value("n4", "pod/bare", "{.metadata.ownerReferences[0].name}"), "myapp-rs");

    c.kubectl(&["delete", "-nn4", "pod/bare"]);
    wait_for_pods(c, "n4", "type=front-end", 2);
    assert!(!c.kubectl(&["get", "pods", "-nn4", "-o", "name"]).contains("bare"));

    let file = c.machine.directory().join("var-lib/replicaset.yml");
    std::fs::write(&file, yaml.replace("replicas: 2", "replicas: 6")).unwrap();
    let replaced = c.kubectl(&["replace", "-nn4", "-f", "/var/lib/replicaset.yml"]);
    assert_eq!(replaced, "replicaset.apps/myapp-rs replaced\n");
    wait_for_pods(c, "n4", "type=front-end", 6);
    let scaled = c.kubectl(&["scale", "-nn4", "--replicas=3", "-f", "/var/lib/replicaset.yml"]);
    assert_eq!(scaled, "replicaset.apps/myapp-rs scaled\n");
    wait_for_pods(c, "n4", "type=front-end", 3);
    c.kubectl(&["scale", "-nn4", "--replicas=2", "replicaset", "myapp-rs"]);
    wait_for_pods(c, "n4", "type=front-end", 2);
    c.kubectl(&["delete", "-nn4", "rs", "myapp-rs"]);
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: myapp-deployment
  labels:
    app: myapp
    type: front-end
spec:
  selector:
    matchLabels:
      app: myapp
  replicas: 2
  template:
    metadata:
      name: nginx
      labels:
        app: myapp
    spec:
      containers:
      - name: nginx
        image: nginx:alpine
        resources:
          limits:
            memory: \"128Mi\"
            cpu: \"500m\"
";

fn rolled_out(c: &Cluster, namespace: &str) -> String {
    c.kubectl(&["rollout", "status", "-n", namespace, "deployment.apps/myapp-deployment", "--timeout=120s"])
}

fn revisions(c: &Cluster) -> Vec<String> {
    let history = c.kubectl(&["rollout", "history", "-nn5", "deployment.apps/myapp-deployment"]);
    assert!(history.starts_with("deployment.apps/myapp-deployment \nREVISION  CHANGE-CAUSE\n"), "{history}");
    history.lines().skip(2).filter_map(|l| l.split_whitespace().next()).map(ToOwned::to_owned).collect()
}

fn deployment(c: &Cluster) {
    c.namespace("n5");
    // So that a rollout takes long enough to be watched.
    let slow = DEPLOYMENT.replace("  replicas: 2\n", "  replicas: 2\n  minReadySeconds: 2\n");
    let created = c.kubectl_stdin(&["create", "-nn5", "-f", "-"], &slow);
    assert_eq!(text(&created), "deployment.apps/myapp-deployment created\n");
    let status = rolled_out(c, "n5");
    assert!(
        status.contains(
            "Waiting for deployment \"myapp-deployment\" rollout to finish: 0 of 2 updated replicas are available..."
        ),
        "{status}"
    );
    assert!(status.ends_with("deployment \"myapp-deployment\" successfully rolled out\n"), "{status}");
    assert_eq!(revisions(c), ["1"]);
    limits_stand_in_the_cgroup(c);

    c.kubectl(&[
        "patch",
        "-nn5",
        "deployment/myapp-deployment",
        "-p",
        r#"{"spec":{"template":{"metadata":{"labels":{"tier":"web"}}}}}"#,
    ]);
    let status = rolled_out(c, "n5");
    for line in ["1 out of 2 new replicas have been updated...", "1 old replicas are pending termination..."] {
        assert!(status.contains(line), "{line} is missing in\n{status}");
    }
    assert_eq!(revisions(c), ["1", "2"]);
    let set = c.kubectl(&["set", "image", "-nn5", "deployment/myapp-deployment", "nginx=nginx:1.9.1"]);
    assert_eq!(set, "deployment.apps/myapp-deployment image updated\n");
    rolled_out(c, "n5");
    assert!(c.kubectl(&["describe", "-nn5", "deployment/myapp-deployment"]).contains("Image:      nginx:1.9.1"));

    let undone = c.kubectl(&["rollout", "undo", "-nn5", "deployment/myapp-deployment"]);
    assert_eq!(undone, "deployment.apps/myapp-deployment rolled back\n");
    rolled_out(c, "n5");
    assert_eq!(revisions(c), ["1", "3", "4"]);
    assert!(c.kubectl(&["describe", "-nn5", "deployment/myapp-deployment"]).contains("Image:      nginx:alpine"));

    c.kubectl(&["set", "image", "-nn5", "deployment/myapp-deployment", "nginx=nginx:thatDoesNotExist"]);
    c.wait("the wrong image shows", |c| {
        let pods = c.kubectl(&["get", "pods", "-nn5"]);
        pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff")
    });
    let table = c.kubectl(&["get", "deployment", "-nn5"]);
    assert_eq!(header(&table), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(row(&table, "myapp-deployment")[1..4], ["2/2", "1", "2"]);
    c.kubectl(&["delete", "-nn5", "deployment", "myapp-deployment"]);
    c.wait("everything of it is gone", |c| c.kubectl(&["get", "rs,pods", "-nn5", "-o", "name"]).is_empty());
}

fn limits_stand_in_the_cgroup(c: &Cluster) {
    let pod = c.kubectl(&["get", "pods", "-nn5", "-o", "jsonpath={.items[0].metadata.name}"]);
    // cgroup v2, else v1's names.
    let read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let limits = c.kubectl(&["exec", "-nn5", &pod, "--", "sh", "-c", read]);
    assert!(limits.contains("134217728") && limits.contains("50000"), "{limits}");
}

fn recreate(c: &Cluster) {
    c.namespace("n6");
    c.apply("n6", &DEPLOYMENT.replace("  replicas: 2\n", "  replicas: 2\n  strategy:\n    type: Recreate\n"));
    rolled_out(c, "n6");
    let watch = c.spawn_kubectl(&["get", "pods", "-nn6", "-w", "--output-watch-events", "--no-headers"]);
    c.kubectl(&["set", "image", "-nn6", "deployment/myapp-deployment", "nginx=nginx:1.9.1"]);
    rolled_out(c, "n6");
    let events = end(watch);
    let name = |line: &str| line.split_whitespace().nth(1).unwrap_or("").to_owned();
    let old: Vec<String> = events.lines().take(2).map(name).collect();
    let first_new = events.lines().position(|l| l.starts_with("ADDED") && !old.contains(&name(l))).unwrap();
    for old in &old {
        let before = events.lines().take(first_new).filter(|l| name(l) == *old).last().unwrap();
        assert!(before.contains(" 0/1 "), "{old} had stopped before any new pod came\n{events}");
    }
    c.kubectl(&["delete", "-nn6", "deployment", "myapp-deployment"]);
}

fn services(c: &Cluster) {
    c.namespace("n7");
    let pod = POD.replace(
        "image: nginx:alpine\n",
        "image: nginx:alpine\n      resources:\n        limits:\n          memory: 128Mi\n          cpu: 500m\n",
    );
    c.apply("n7", &pod);
    c.apply(
        "n7",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: myapp-nodeport\nspec:\n  type: NodePort\n  ports:\n    - targetPort: 80\n      port: 80\n      nodePort: 30080\n  selector:\n    app: myapp\n    type: front-end\n",
    );
    c.apply(
        "n7",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: myapp-clusterip\nspec:\n  type: ClusterIP\n  selector:\n    app: myapp\n    type: front-end\n  ports:\n  - port: 80\n    targetPort: 80\n",
    );
    c.apply(
        "n7",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: myapp-lb\nspec:\n  type: LoadBalancer\n  selector:\n    app: myapp\n  ports:\n  - port: 8080\n    targetPort: 80\n    nodePort: 30081\n",
    );
    wait_for_pods(c, "n7", "app=myapp", 1);
    for url in ["http://127.0.0.1:30080", "http://192.168.77.2:30080"] {
        c.wait(url, |c| c.fetch(url).is_some_and(|b| b.contains("Welcome to nginx!")));
    }
    c.wait("the node port answers from outside", |c| c.fetch_from_lan("http://192.168.77.2:30080").is_some());
    c.wait("the load balancer has the node's address", |c| {
        c.value("n7", "service/myapp-lb", "{.status.loadBalancer.ingress[0].ip}") == "192.168.77.2"
    });
    c.wait("the load balancer answers from outside", |c| c.fetch_from_lan("http://192.168.77.2:8080").is_some());

    c.kubectl(&["run", "-nn7", "client", "--image", "busybox", "--", "sleep", "3600"]);
    wait_for_pods(c, "n7", "run=client", 1);
    for name in ["myapp-clusterip", "myapp-clusterip.n7", "myapp-clusterip.n7.svc.cluster.local"] {
        let page = c.kubectl(&["exec", "-nn7", "client", "--", "wget", "-qO-", &format!("http://{name}")]);
        assert!(page.contains("Welcome to nginx!"), "{name}: {page}");
    }
    let api = c.kubectl(&["exec", "-nn7", "client", "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
    assert!(api.contains("10.96.0.1"), "{api}");
    let taken = c.kubectl_stdin(
        &["apply", "-nn7", "-f", "-"],
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: second\nspec:\n  type: NodePort\n  ports:\n    - port: 80\n      nodePort: 30080\n",
    );
    assert!(
        text(&taken).contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"),
        "{}",
        text(&taken)
    );
    c.kubectl(&["delete", "namespace", "n7", "--wait=false"]);
}

fn describe(c: &Cluster) {
    c.namespace("n8");
    c.apply("n8", DEPLOYMENT);
    c.kubectl(&["expose", "-nn8", "deployment", "myapp-deployment", "--port=80"]);
    rolled_out(c, "n8");
    let deployment = c.kubectl(&["describe", "-nn8", "deployment", "myapp-deployment"]);
    for part in [
        "StrategyType:           RollingUpdate",
        "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
        "2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
        "NewReplicaSetAvailable",
        "ScalingReplicaSet",
    ] {
        assert!(deployment.contains(part), "{part} is missing in\n{deployment}");
    }
    let set = c.kubectl(&["describe", "-nn8", "rs"]);
    assert!(set.contains("Controlled By:  Deployment/myapp-deployment") && set.contains("SuccessfulCreate"), "{set}");
    let service = c.kubectl(&["describe", "-nn8", "service", "myapp-deployment"]);
    assert!(service.contains("Endpoints:") && service.contains(":80,10.244."), "{service}");
    let node = c.kubectl(&["describe", "node", "pi"]);
    for part in ["KubeletReady", "Allocatable:", "10.244.0.0/24", "Non-terminated Pods:"] {
        assert!(node.contains(part), "{part} is missing in\n{node}");
    }
    assert!(c.kubectl(&["describe", "namespace", "n8"]).contains("Status:       Active"));
    c.kubectl(&["delete", "namespace", "n8", "--wait=false"]);
}

fn other_commands(c: &Cluster) {
    c.namespace("n9");
    c.apply("n9", POD);
    c.kubectl(&["wait", "-nn9", "--for=condition=Ready", "pod/nginx", "--timeout=60s"]);
    assert!(c.kubectl(&["explain", "deployment.spec.replicas"]).contains("FIELD: replicas <integer>"));
    let resources = c.kubectl(&["api-resources"]);
    assert_eq!(row(&resources, "deployments"), ["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    assert_eq!(c.kubectl(&["label", "-nn9", "pod", "nginx", "colour=green"]), "pod/nginx labeled\n");
    assert_eq!(c.kubectl(&["annotate", "-nn9", "pod", "nginx", "note=kept"]), "pod/nginx annotated\n");
    assert_eq!(c.kubectl(&["auth", "can-i", "create", "pods"]), "yes\n");
    let denied = c.try_kubectl(&["auth", "can-i", "create", "pods", "--as=system:serviceaccount:n9:default"]);
    assert_eq!(String::from_utf8_lossy(&denied.stdout), "no\n");
    let diff = c.kubectl_stdin(&["diff", "-nn9", "-f", "-"], &POD.replace("type: front-end", "type: back-end"));
    assert!(text(&diff).contains("+    type: back-end"), "{}", text(&diff));
    let exec = c.kubectl(&["exec", "-nn9", "nginx", "--", "hostname"]);
    assert_eq!(exec, "nginx\n");
    let failed = c.try_kubectl(&["exec", "-nn9", "nginx", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let stdin = c.kubectl_stdin(&["exec", "-i", "-nn9", "nginx", "--", "cat"], "through and back\n");
    assert_eq!(String::from_utf8_lossy(&stdin.stdout), "through and back\n");
    std::fs::write(c.machine.directory().join("var-lib/copied"), "copied over\n").unwrap();
    c.kubectl(&["cp", "-nn9", "/var/lib/copied", "nginx:/tmp/copied"]);
    assert_eq!(c.kubectl(&["exec", "-nn9", "nginx", "--", "cat", "/tmp/copied"]), "copied over\n");
    c.kubectl(&["cp", "-nn9", "nginx:/etc/image-tag", "/var/lib/back"]);
    assert_eq!(c.machine.run("cat", &["/var/lib/back"]), "alpine\n");
    c.kubectl(&["delete", "namespace", "n9", "--wait=false"]);
}
