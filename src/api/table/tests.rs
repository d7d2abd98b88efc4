//! Golden rows: objects as users have them, and what `kubectl get -o wide` prints for them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cells, columns};

mod pod;

/// Ten minutes after every object here was made.
const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

/// The row of an object, its cells parted by `|`. The object gets a name and an age.
fn wide(group: &str, resource: &str, mut object: Value) -> String {
    if object.pointer("/metadata").is_none() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = json!("x");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let cells = cells(group, resource, &object, now());
    assert_eq!(cells.len(), columns(group, resource).len(), "{group}/{resource}");
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    cells.iter().map(text).collect::<Vec<_>>().join("|")
}

fn rows(group: &str, resource: &str, cases: Vec<(&str, Value)>) {
    for (expected, object) in cases {
        assert_eq!(wide(group, resource, object.clone()), expected, "{object:#}");
    }
}

#[test]
fn nodes() {
    let info = json!({"kubeletVersion": "v1.36.0", "osImage": "Debian 13", "kernelVersion": "6.12.1",
        "architecture": "arm64", "containerRuntimeVersion": "coracle://0.1.0"});
    rows(
        "",
        "nodes",
        vec![
            ("x|Unknown|<none>|10m||<none>|<none>|<unknown>|<unknown>|<unknown>", json!({})),
            (
                "x|Ready,SchedulingDisabled|control-plane,edge|10m|v1.36.0|10.0.0.5|<none>|Debian 13|6.12.1 (arm64)|coracle://0.1.0",
                json!({
                    "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge",
                        "node-role.kubernetes.io/": ""}},
                    "spec": {"unschedulable": true},
                    "status": {"nodeInfo": info, "conditions": [{"type": "Ready", "status": "True"}],
                        "addresses": [{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "10.0.0.5"}]},
                }),
            ),
            (
                "x|NotReady|<none>|10m||<none>|1.2.3.4|<unknown>|<unknown>|<unknown>",
                json!({
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
                "addresses": [{"type": "ExternalIP", "address": "1.2.3.4"}]}}),
            ),
        ],
    );
}

#[test]
fn services() {
    let port = json!({"port": 80, "protocol": "TCP"});
    rows(
        "",
        "services",
        vec![
            (
                "x|ClusterIP|10.96.0.1|<none>|80/TCP|10m|app=web,tier=a",
                json!({"spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [port],
            "selector": {"tier": "a", "app": "web"}}}),
            ),
            (
                "x|ClusterIP|None|<none>|<none>|10m|<none>",
                json!({"spec": {
            "type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}}),
            ),
            (
                "x|NodePort|10.96.0.2|192.0.2.1|80:30080/TCP,53/UDP|10m|<none>",
                json!({"spec": {
            "type": "NodePort", "clusterIPs": ["10.96.0.2"], "externalIPs": ["192.0.2.1"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            ),
            (
                "x|LoadBalancer|10.96.0.3|<pending>|80/TCP|10m|<none>",
                json!({"spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.3"], "ports": [port]}}),
            ),
            (
                "x|LoadBalancer|10.96.0.3|192.0.2.7,lb.example.com,192.0.2.1|80/TCP|10m|<none>",
                json!({
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.3"], "ports": [port], "externalIPs": ["192.0.2.1"]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "192.0.2.7"}, {"ip": "192.0.2.7"}]}}}),
            ),
            (
                "x|ExternalName|<none>|example.com|<none>|10m|<none>",
                json!({"spec": {
            "type": "ExternalName", "externalName": "example.com"}}),
            ),
        ],
    );
}

#[test]
fn workloads() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [
        {"name": "a", "image": "nginx:1"}, {"name": "b", "image": "redis"}]}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let status = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
    let object = json!({"spec": spec, "status": status});
    rows(
        "apps",
        "deployments",
        vec![
            ("x|2/3|3|1|10m|a,b|nginx:1,redis|app=web", object.clone()),
            ("x|0/3|0|0|10m|a,b|nginx:1,redis|app=web", json!({"spec": spec, "status": {}})),
        ],
    );
    rows("apps", "replicasets", vec![("x|3|3|2|10m|a,b|nginx:1,redis|app=web", object.clone())]);
    rows("apps", "statefulsets", vec![("x|2/3|10m|a,b|nginx:1,redis", object)]);
    rows(
        "apps",
        "daemonsets",
        vec![(
            "x|4|3|2|1|0|disk=ssd|10m|a,b|nginx:1,redis|app=web",
            json!({
        "spec": spec,
        "status": {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2,
            "updatedNumberScheduled": 1, "numberMisscheduled": 0}}),
        )],
    );
    let controller =
        json!({"spec": {"replicas": 3, "selector": {"app": "web"}, "template": template}, "status": {"replicas": 1}});
    rows("", "replicationcontrollers", vec![("x|3|1|0|10m|a,b|nginx:1,redis|app=web", controller)]);
    rows("", "podtemplates", vec![("x|a,b|nginx:1,redis|app=web", json!({"template": template}))]);
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "u", "controller": true});
    rows(
        "apps",
        "controllerrevisions",
        vec![
            ("x|daemonset.apps/ds|2|10m", json!({"metadata": {"ownerReferences": [owner]}, "revision": 2})),
            ("x|<none>|1|10m", json!({"revision": 1})),
        ],
    );
}

#[test]
fn jobs() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    let job = |meta: Value, spec: Value, status: Value| {
        let mut spec = spec;
        spec["template"] = template.clone();
        json!({"metadata": meta, "spec": spec, "status": status})
    };
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    let one = json!({"completions": 1, "parallelism": 1});
    rows(
        "batch",
        "jobs",
        vec![
            ("x|Running|0/1||10m|a|busybox|<none>", job(json!({}), one.clone(), json!({}))),
            (
                "x|Running|0/1|9m|10m|a|busybox|<none>",
                job(json!({}), json!({"parallelism": 1}), json!({"startTime": "2026-01-01T00:01:00Z"})),
            ),
            (
                "x|Running|2/1 of 3||10m|a|busybox|<none>",
                job(json!({}), json!({"parallelism": 3}), json!({"succeeded": 2})),
            ),
            (
                "x|Complete|1/1|65s|10m|a|busybox|<none>",
                job(
                    json!({}),
                    one.clone(),
                    json!({
            "startTime": "2026-01-01T00:01:00Z", "completionTime": "2026-01-01T00:02:05Z", "succeeded": 1,
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}),
                ),
            ),
            (
                "x|Failed|0/1||10m|a|busybox|<none>",
                job(json!({"deletionTimestamp": NOW}), one.clone(), condition("Failed")),
            ),
            (
                "x|Terminating|0/1||10m|a|busybox|<none>",
                job(json!({"deletionTimestamp": NOW}), one.clone(), condition("Suspended")),
            ),
            ("x|Suspended|0/1||10m|a|busybox|<none>", job(json!({}), one.clone(), condition("Suspended"))),
            ("x|FailureTarget|0/1||10m|a|busybox|<none>", job(json!({}), one.clone(), condition("FailureTarget"))),
            ("x|SuccessCriteriaMet|0/1||10m|a|busybox|<none>", job(json!({}), one, condition("SuccessCriteriaMet"))),
        ],
    );
    let cron = |extra: Value| {
        let mut spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}});
        spec.as_object_mut().expect("an object").extend(extra.as_object().cloned().expect("an object"));
        spec
    };
    rows(
        "batch",
        "cronjobs",
        vec![
            (
                "x|*/5 * * * *|<none>|False|0|<none>|10m|a|busybox|<none>",
                json!({"spec": cron(json!({"suspend": false}))}),
            ),
            (
                "x|*/5 * * * *|Europe/Berlin|True|1|30s|10m|a|busybox|<none>",
                json!({
            "spec": cron(json!({"suspend": true, "timeZone": "Europe/Berlin"})),
            "status": {"active": [{"name": "x-1"}], "lastScheduleTime": "2026-01-01T00:09:30Z"}}),
            ),
        ],
    );
}

#[test]
fn events() {
    let about = json!({"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"});
    rows(
        "",
        "events",
        vec![
            (
                "60s|Normal|Pulled|pod/web|spec.containers{a}|kubelet, pi1|Image is there|5m|7|x",
                json!({
            "involvedObject": about, "type": "Normal", "reason": "Pulled", "message": "Image is there\n", "count": 7,
            "source": {"component": "kubelet", "host": "pi1"}, "reportingComponent": "ignored",
            "firstTimestamp": "2026-01-01T00:05:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"}),
            ),
            ("<unknown>|||||||<unknown>|1|x", json!({"involvedObject": {}})),
        ],
    );
    let newer = json!({"apiVersion": "events.k8s.io/v1", "regarding": about, "type": "Warning", "reason": "Failed",
        "note": "No", "reportingController": "kubelet", "reportingInstance": "pi1",
        "eventTime": "2026-01-01T00:05:00.000000Z"});
    let mut series = newer.clone();
    series["series"] = json!({"count": 3, "lastObservedTime": "2026-01-01T00:09:50.000000Z"});
    rows(
        "events.k8s.io",
        "events",
        vec![
            ("5m|Warning|Failed|pod/web|spec.containers{a}|kubelet, pi1|No|5m|1|x", newer),
            ("10s|Warning|Failed|pod/web|spec.containers{a}|kubelet, pi1|No|5m|3|x", series),
        ],
    );
}

#[test]
fn volumes() {
    let bound = json!({"volumeName": "pv1", "storageClassName": "local", "volumeMode": "Filesystem"});
    let capacity =
        json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]});
    rows(
        "",
        "persistentvolumeclaims",
        vec![
            (
                "x|Pending||||local|<unset>|10m|<unset>",
                json!({
            "spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}}),
            ),
            ("x|Bound|pv1|1Gi|RWO,RWX|local|<unset>|10m|Filesystem", json!({"spec": bound, "status": capacity})),
            (
                "x|Lost|pv1|0||old|fast|10m|<unset>",
                json!({
            "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            "spec": {"volumeName": "pv1", "storageClassName": "local", "volumeAttributesClassName": "fast"},
            "status": {"phase": "Lost"}}),
            ),
            (
                "x|Terminating|pv1|1Gi|RWO,RWX|local|<unset>|10m|Filesystem",
                json!({
            "metadata": {"deletionTimestamp": NOW}, "spec": bound, "status": capacity}),
            ),
        ],
    );
    rows(
        "",
        "persistentvolumes",
        vec![(
            "x|1Gi|RWOP|Retain|Bound|default/data|local|<unset>||10m|Filesystem",
            json!({
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"], "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "local",
                "claimRef": {"namespace": "default", "name": "data"}},
            "status": {"phase": "Bound"}}),
        )],
    );
    rows(
        "storage.k8s.io",
        "storageclasses",
        vec![
            (
                "x (default)|example.com/nfs|Delete|Immediate|false|10m",
                json!({
            "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/nfs"}),
            ),
            (
                "x|p|Retain|WaitForFirstConsumer|true|10m",
                json!({"provisioner": "p", "reclaimPolicy": "Retain",
            "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true}),
            ),
        ],
    );
}

#[test]
fn networking() {
    rows(
        "networking.k8s.io",
        "ingresses",
        vec![
            ("x|<none>|*||80|10m", json!({"spec": {"rules": [{}]}})),
            (
                "x|web|a,b,c + 1 more...|192.0.2.1|80, 443|10m",
                json!({
            "spec": {"ingressClassName": "web", "tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}),
            ),
        ],
    );
    rows(
        "networking.k8s.io",
        "ingressclasses",
        vec![(
            "x (default)|example.com/c|Cfg.example.com/p|10m",
            json!({
        "metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/c", "parameters": {"apiGroup": "example.com", "kind": "Cfg", "name": "p"}}}),
        )],
    );
    rows(
        "networking.k8s.io",
        "networkpolicies",
        vec![
            ("x|<none>|10m", json!({"spec": {"podSelector": {}}})),
            ("x|app=a|10m", json!({"spec": {"podSelector": {"matchLabels": {"app": "a"}}}})),
        ],
    );
    rows(
        "networking.k8s.io",
        "ipaddresses",
        vec![(
            "x|services/default/kubernetes",
            json!({
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "kubernetes"}}}),
        )],
    );
    rows(
        "networking.k8s.io",
        "servicecidrs",
        vec![(
            "x|10.96.0.0/12,fd00::/112|10m",
            json!({
        "spec": {"cidrs": ["10.96.0.0/12", "fd00::/112"]}}),
        )],
    );
}

#[test]
fn endpoints() {
    let four = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
    rows(
        "",
        "endpoints",
        vec![
            ("x|<none>|10m", json!({})),
            (
                "x|10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...|10m",
                json!({
            "subsets": [{"addresses": four, "ports": [{"port": 80}, {"port": 81}]}]}),
            ),
            (
                "x|[fd00::1]:80,10.0.0.1|10m",
                json!({"subsets": [
            {"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}, {"addresses": [{"ip": "10.0.0.1"}]}]}),
            ),
        ],
    );
    rows(
        "discovery.k8s.io",
        "endpointslices",
        vec![
            ("x|IPv4|<unset>|<unset>|10m", json!({"addressType": "IPv4", "endpoints": []})),
            (
                "x|IPv4|80,dns,*|1,2,3 + 2 more...|10m",
                json!({"addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "dns"}, {}],
            "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4", "5"]}]}),
            ),
        ],
    );
}

#[test]
fn the_small_ones() {
    rows("", "configmaps", vec![("x|3|10m", json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}))]);
    rows("", "secrets", vec![("x|Opaque|1|10m", json!({"type": "Opaque", "data": {"a": "AA=="}}))]);
    rows("", "serviceaccounts", vec![("x|10m", json!({"secrets": [{"name": "t"}]}))]);
    rows("", "namespaces", vec![("x|Active|10m", json!({"status": {"phase": "Active"}}))]);
    rows(
        "",
        "resourcequotas",
        vec![(
            "x|pods: 2/10, requests.cpu: 500m/1|limits.cpu: 0/2|10m",
            json!({"status": {
        "hard": {"pods": "10", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "2", "requests.cpu": "500m"}}}),
        )],
    );
    rows(
        "policy",
        "poddisruptionbudgets",
        vec![(
            "x|50%|N/A|1|10m",
            json!({
        "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}),
        )],
    );
    rows(
        "scheduling.k8s.io",
        "priorityclasses",
        vec![(
            "x|1000|false|10m|Never",
            json!({
        "value": 1000, "preemptionPolicy": "Never"}),
        )],
    );
    rows("coordination.k8s.io", "leases", vec![("x|me|10m", json!({"spec": {"holderIdentity": "me"}}))]);
    let subjects = json!([{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "ops"}, {"kind": "User", "name": "bob"},
        {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"}]);
    rows(
        "rbac.authorization.k8s.io",
        "rolebindings",
        vec![(
            "x|ClusterRole/view|10m|ann, bob|ops|ns/sa",
            json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": subjects}),
        )],
    );
    rows(
        "certificates.k8s.io",
        "certificatesigningrequests",
        vec![
            (
                "x|10m|example.com/s|ann|<none>|Pending",
                json!({
            "spec": {"request": "AA==", "signerName": "example.com/s", "username": "ann"}}),
            ),
            (
                "x|10m|example.com/s|ann|24h|Approved,Issued",
                json!({
            "spec": {"request": "AA==", "signerName": "example.com/s", "username": "ann", "expirationSeconds": 86400},
            "status": {"certificate": "AA==", "conditions": [{"type": "Approved", "status": "True"}]}}),
            ),
        ],
    );
}

#[test]
fn drivers_and_devices() {
    rows(
        "storage.k8s.io",
        "csidrivers",
        vec![
            ("x|true|false|false|<unset>|false|<none>|10m", json!({"spec": {}})),
            (
                "x|false|true|true|a,b|true|Persistent,Ephemeral|10m",
                json!({"spec": {"attachRequired": false, "podInfoOnMount": true, "storageCapacity": true,
                    "tokenRequests": [{"audience": "a"}, {"audience": "b"}], "requiresRepublish": true,
                    "volumeLifecycleModes": ["Persistent", "Ephemeral"]}}),
            ),
        ],
    );
    for (group, resource, expected, object) in [
        ("storage.k8s.io", "csinodes", "x|1|10m", json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}})),
        (
            "storage.k8s.io",
            "volumeattachments",
            "x|d|pv|pi1|true|10m",
            json!({"spec": {"attacher": "d", "nodeName": "pi1", "source": {"persistentVolumeName": "pv"}},
                "status": {"attached": true}}),
        ),
        ("storage.k8s.io", "volumeattributesclasses", "x|d|10m", json!({"driverName": "d"})),
        ("node.k8s.io", "runtimeclasses", "x|kata|10m", json!({"handler": "kata"})),
        ("resource.k8s.io", "deviceclasses", "x|10m", json!({"spec": {}})),
        ("resource.k8s.io", "resourceclaims", "x|pending|10m", json!({"spec": {}})),
        (
            "resource.k8s.io",
            "resourceclaims",
            "x|deleted,allocated,reserved|10m",
            json!({"metadata": {"deletionTimestamp": NOW}, "spec": {}, "status": {"allocation": {},
                "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}),
        ),
        (
            "resource.k8s.io",
            "resourceslices",
            "x|pi1|gpu.example.com|pool|10m",
            json!({"spec": {"driver": "gpu.example.com", "nodeName": "pi1",
                "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1}}}),
        ),
    ] {
        rows(group, resource, vec![(expected, object)]);
    }
}

#[test]
fn policies_and_what_configures_the_server() {
    for (group, resource, expected, object) in [
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            "x|1|v1/ConfigMap|10m",
            json!({"spec": {"validations": [{"expression": "true"}],
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}}),
        ),
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings",
            "x|p|*/params|10m",
            json!({"spec": {"policyName": "p", "paramRef": {"name": "params"}, "validationActions": ["Deny"]}}),
        ),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "x|0|10m", json!({})),
        (
            "apiregistration.k8s.io",
            "apiservices",
            "x|kube-system/metrics|False (MissingEndpoints)|10m",
            json!({"spec": {"groupPriorityMinimum": 1, "versionPriority": 1,
                    "service": {"namespace": "kube-system", "name": "metrics"}},
                "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "flowschemas",
            "x|low|9000|ByUser|10m|False",
            json!({"spec": {"priorityLevelConfiguration": {"name": "low"}, "matchingPrecedence": 9000,
                    "distinguisherMethod": {"type": "ByUser"}},
                "status": {"conditions": [{"type": "Dangling", "status": "False"}]}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "prioritylevelconfigurations",
            "x|Limited|20|<none>|<none>|<none>|10m",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 20}}}),
        ),
    ] {
        rows(group, resource, vec![(expected, object)]);
    }
}

#[test]
fn autoscalers() {
    let resource =
        |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
    let cpu = resource("cpu", json!({"type": "Utilization", "averageUtilization": 80}));
    let memory = resource("memory", json!({"type": "AverageValue", "averageValue": "1Gi"}));
    let queue =
        json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "30"}}});
    let spec = |metrics: Value| json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 5, "metrics": metrics});
    rows(
        "autoscaling",
        "horizontalpodautoscalers",
        vec![
            ("x|Deployment/web|<none>|<unset>|5|0|10m", json!({"spec": spec(json!([]))})),
            ("x|Deployment/web|cpu: <unknown>/80%|<unset>|5|0|10m", json!({"spec": spec(json!([cpu]))})),
            (
                "x|Deployment/web|cpu: 12%/80%, memory: 200Mi/1Gi + 1 more...|<unset>|5|2|10m",
                json!({
            "spec": spec(json!([cpu, memory, queue])),
            "status": {"currentReplicas": 2, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}},
                {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "200Mi"}}}]}}),
            ),
            ("x|Deployment/web|<unknown>/30|<unset>|5|0|10m", json!({"spec": spec(json!([queue]))})),
        ],
    );
}

#[test]
fn resources_without_a_table_show_when_they_were_made() {
    for (group, resource) in [
        ("", "limitranges"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("storage.k8s.io", "csistoragecapacities"),
    ] {
        let names: Vec<&str> = columns(group, resource).iter().map(|column| column.name).collect();
        assert_eq!(names, ["Name", "Created At"], "{resource}");
        assert_eq!(wide(group, resource, json!({})), "x|2026-01-01T00:00:00Z");
    }
}

#[test]
fn an_object_that_cannot_be_read_still_shows_its_name() {
    assert_eq!(wide("", "namespaces", json!({"status": 1})), "x|<unknown>|<unknown>");
}

#[test]
fn wide_columns_have_priority_one() {
    let of = |group: &str, resource: &str, priority: i32| -> String {
        let columns = columns(group, resource).iter().filter(|column| column.priority == priority);
        columns.map(|column| column.name.to_uppercase()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of("", "pods", 0), "NAME READY STATUS RESTARTS AGE");
    assert_eq!(of("", "pods", 1), "IP NODE NOMINATED NODE READINESS GATES");
    assert_eq!(of("", "services", 0), "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE");
    assert_eq!(of("", "events", 0), "LAST SEEN TYPE REASON OBJECT MESSAGE");
    assert_eq!(of("", "events", 1), "SUBOBJECT SOURCE FIRST SEEN COUNT NAME");
    assert_eq!(of("batch", "jobs", 0), "NAME STATUS COMPLETIONS DURATION AGE");
}

#[test]
fn pods_that_have_ended_are_marked() {
    let marked = |resource: &str, phase: &str| {
        let conditions = super::row_conditions("", resource, &json!({"status": {"phase": phase}}));
        conditions.map(|c| format!("{} {} {}", c[0]["type"], c[0]["reason"], c[0]["message"]))
    };
    let succeeded = r#""Completed" "Succeeded" "The pod has completed successfully.""#;
    assert_eq!(marked("pods", "Succeeded").as_deref(), Some(succeeded));
    assert_eq!(marked("pods", "Failed").as_deref(), Some(r#""Completed" "Failed" "The pod failed.""#));
    assert_eq!((marked("pods", "Running"), marked("namespaces", "Failed")), (None, None));
}
