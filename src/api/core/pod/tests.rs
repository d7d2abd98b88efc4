use serde_json::{Value, json};

use crate::kinds::rules;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "nginx"}]},
    })
}

/// A pod with one thing changed: a JSON pointer's parent gets a value.
fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    set(&mut pod, pointer, value);
    pod
}

fn set(obj: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    obj.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[key] = value;
}

fn created(mut obj: Value) -> (Value, Vec<String>, Vec<String>) {
    let admitted = rules("", "Pod").admit_create(&mut obj).unwrap();
    (obj, admitted.errors.iter().map(ToString::to_string).collect(), admitted.warnings)
}

#[track_caller]
fn check(obj: Value, expected: &[&str]) {
    let (_, errors, _) = created(obj);
    assert_eq!(errors, expected);
}

#[test]
fn a_plain_pod_gets_upstreams_defaults() {
    let (pod, errors, warnings) = created(pod());
    assert!(errors.is_empty() && warnings.is_empty(), "{errors:?} {warnings:?}");
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "web", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })
    );
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn defaulting_is_idempotent() {
    let full = json!({
        "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}, {"name": "d", "hostPath": {"path": "/x"}}],
        "hostNetwork": true,
        "containers": [{
            "name": "web", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }],
    });
    let mut once = pod();
    once["spec"] = full;
    rules("", "Pod").default(&mut once).unwrap();
    let container = &once["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
    );
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
               "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        once["spec"]["volumes"],
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c", "defaultMode": 420}},
               {"name": "d", "hostPath": {"path": "/x", "type": ""}}])
    );
    let mut twice = once.clone();
    rules("", "Pod").default(&mut twice).unwrap();
    assert_eq!(once, twice);
}

#[test]
fn containers_are_checked() {
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    check(with("/spec/containers", json!([])), &["spec.containers: Required value"]);
    check(with("/spec/containers/0/image", json!("")), &["spec.containers[0].image: Required value"]);
    check(
        with("/spec/containers/0/name", json!("Web")),
        &[&format!("spec.containers[0].name: Invalid value: \"Web\": {label}")],
    );
    check(
        with("/spec/containers", json!([{"name": "a", "image": "i"}, {"name": "a", "image": "i"}])),
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    check(
        with("/spec/containers/0/imagePullPolicy", json!("Sometimes")),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        with("/spec/containers/0/ports", json!([{"containerPort": 70000}])),
        &["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
    check(
        with("/spec/containers/0/image", json!("nginx ")),
        &["spec.containers[0].image: Invalid value: \"nginx \": must not have leading or trailing whitespace"],
    );
    check(
        with(
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]),
        ),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        with("/spec/containers/0/livenessProbe", json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})),
        &["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    );
    check(
        with(
            "/spec/containers/0/env",
            json!([{"name": "a", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        ),
        &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
    );
}

#[test]
fn resources_are_checked() {
    let at = "/spec/containers/0/resources";
    check(
        with(at, json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi",
        ],
    );
    check(
        with(at, json!({"requests": {"cpu": "-1"}})),
        &["spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    check(
        with(at, json!({"limits": {"disk": "1"}, "requests": {"disk": "1"}})),
        &[
            "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
        ],
    );
    check(with(at, json!({"limits": {"example.com/gpu": "1"}})), &[]);
    check(
        with(at, json!({"requests": {"example.com/gpu": "1"}})),
        &["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"],
    );
}

#[test]
fn volumes_and_mounts_are_checked() {
    check(
        with("/spec/containers/0/volumeMounts", json!([{"name": "data", "mountPath": "/d"}])),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
    );
    check(
        with("/spec/volumes", json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}])),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        with("/spec/volumes", json!([{"name": "a", "hostPath": {"path": "/x/../y"}}])),
        &["spec.volumes[0].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'"],
    );
    let mut pod = with("/spec/volumes", json!([{"name": "a", "emptyDir": {}}]));
    set(&mut pod, "/spec/containers/0/volumeMounts", json!([{"name": "a", "mountPath": "/d", "subPath": "/x"}]));
    check(pod, &["spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path"]);
}

#[test]
fn file_keys_are_of_empty_dirs() {
    let of = |volume: &str, path: &str| {
        let key = json!({"volumeName": volume, "path": path, "key": "K"});
        let mut pod =
            with("/spec/volumes", json!([{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}]));
        set(&mut pod, "/spec/containers/0/env", json!([{"name": "X", "valueFrom": {"fileKeyRef": key}}]));
        pod
    };
    let at = "spec.containers[0].env[0].valueFrom.fileKeyRef";
    check(of("e", "env/file"), &[]);
    check(
        of("h", "f"),
        &[&format!("{at}.volumeName: Invalid value: \"h\": referenced volume must be of type emptyDir")],
    );
    check(of("gone", "f"), &[&format!("{at}.volumeName: Not found: \"gone\"")]);
    check(of("e", "/f"), &[&format!("{at}.path: Invalid value: \"/f\": must be a relative path")]);
    check(of("e", "../f"), &[&format!("{at}.path: Invalid value: \"../f\": must not contain '..'")]);
}

#[test]
fn stop_signals_are_those_of_the_pods_system() {
    let of = |system: Option<&str>, signal: &str| {
        let mut pod =
            with("/spec/containers", json!([{"name": "a", "image": "i", "lifecycle": {"stopSignal": signal}}]));
        if let Some(system) = system {
            set(&mut pod, "/spec/os", json!({"name": system}));
        }
        pod
    };
    let at = "spec.containers[0].lifecycle.stopSignal";
    for signal in ["SIGTERM", "SIGRTMIN+15", "SIGRTMAX-14", "SIGIOT"] {
        check(of(Some("linux"), signal), &[]);
    }
    check(of(Some("windows"), "SIGTERM"), &[]);
    let why = format!("{at}: Forbidden: may not be set for containers with empty `spec.os.name`");
    check(of(None, "SIGTERM"), &[&why]);
    let why = format!("{at}: Unsupported value: \"SIGUSR1\": supported values: \"SIGKILL\", \"SIGTERM\"");
    check(of(Some("windows"), "SIGUSR1"), &[&why]);
    for signal in ["SIGFOO", "TERM", "SIGRTMIN+16", "9"] {
        let (_, errors, _) = created(of(Some("linux"), signal));
        let start =
            format!("{at}: Unsupported value: {signal:?}: supported values: \"SIGABRT\", \"SIGALRM\", \"SIGBUS\", ");
        assert!(errors.len() == 1 && errors[0].starts_with(&start), "{errors:?}");
    }
    let (mut old, ..) = created(of(Some("linux"), "SIGTERM"));
    set(&mut old, "/spec/containers/0/lifecycle/stopSignal", json!("SIGFOO"));
    set(&mut old, "/metadata/finalizers", json!(["a/b"]));
    set(&mut old, "/metadata/resourceVersion", json!("7"));
    let mut new = old.clone();
    set(&mut new, "/metadata/finalizers", json!([]));
    assert!(rules("", "Pod").admit_update(&mut new, &old).unwrap().errors.is_empty(), "what it has already stays");
}

#[test]
fn addresses_in_ambiguous_forms_are_refused_unless_they_were_there() {
    let aliased = |ip: &str| with("/spec/hostAliases", json!([{"ip": ip, "hostnames": ["x"]}]));
    let why = "spec.hostAliases[0].ip: Invalid value: \"010.0.0.5\": must not have leading 0s";
    check(aliased("010.0.0.5"), &[why]);
    let (mut old, ..) = created(aliased("10.0.0.5"));
    set(&mut old, "/spec/hostAliases/0/ip", json!("::ffff:10.0.0.5"));
    set(&mut old, "/metadata/resourceVersion", json!("7"));
    let mut new = old.clone();
    set(&mut new, "/metadata/labels", json!({"a": "b"}));
    assert!(rules("", "Pod").admit_update(&mut new, &old).unwrap().errors.is_empty());
    let policy = |cidr: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "7"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}})
    };
    let kind = rules("networking.k8s.io", "NetworkPolicy");
    let mut bad = policy("10.0.0.1/8");
    let errors = kind.admit_create(&mut bad).unwrap().errors;
    assert_eq!(
        errors[0].to_string(),
        "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the \
         prefix length"
    );
    let (old, mut new) = (policy("10.0.0.1/8"), policy("10.0.0.1/8"));
    assert!(kind.admit_update(&mut new, &old).unwrap().errors.is_empty(), "what it has already stays");
    let (mut changed, old) = (policy("10.0.0.2/8"), policy("10.0.0.1/8"));
    assert_eq!(kind.admit_update(&mut changed, &old).unwrap().errors.len(), 1);
}

#[test]
fn the_rest_of_the_spec_is_checked() {
    check(
        with("/spec/restartPolicy", json!("Sometimes")),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        with("/spec/tolerations", json!([{"operator": "Equal", "value": "x"}])),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ],
    );
    check(
        with("/spec/dnsPolicy", json!("None")),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check(
        with("/spec/activeDeadlineSeconds", json!(0)),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        with("/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}])),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check(
        with(
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
}

#[test]
fn a_gated_pod_says_so() {
    let (pod, errors, _) = created(with("/spec/schedulingGates", json!([{"name": "example.com/wait"}])));
    assert!(errors.is_empty());
    assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn only_a_few_fields_of_a_pod_change() {
    let (mut old, ..) = created(pod());
    old["metadata"]["uid"] = json!("u");
    old["metadata"]["resourceVersion"] = json!("7");
    let update = |pointer: &str, value: Value| {
        let mut new = old.clone();
        set(&mut new, pointer, value);
        let admitted = rules("", "Pod").admit_update(&mut new, &old).unwrap();
        (new, admitted.errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (new, errors) = update("/spec/containers/0/image", json!("nginx:2"));
    assert_eq!((errors.as_slice(), new["metadata"]["generation"].as_i64()), (&[][..], Some(2)));
    let (_, errors) = update("/metadata/labels", json!({"a": "b"}));
    assert!(errors.is_empty());
    let (_, errors) = update("/spec/nodeName", json!("n1"));
    assert_eq!(
        errors,
        [
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n+ nodeName: \"n1\"\n"
        ]
    );
    let (_, errors) = update("/spec/containers", json!([]));
    assert!(errors.contains(&"spec.containers: Forbidden: pod updates may not add or remove containers".to_owned()));
    let (new, errors) = update("/status", json!({"phase": "Running"}));
    assert_eq!((errors.len(), &new["status"]["phase"]), (0, &json!("Pending")));
}

#[test]
fn an_end_is_left_only_by_containers_that_may_restart() {
    let fits = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    for (policy, own, code, left) in [
        ("Always", json!({}), 0, true),
        ("OnFailure", json!({}), 0, false),
        ("OnFailure", json!({}), 1, true),
        ("Never", json!({}), 1, false),
        ("Never", json!({"restartPolicy": "Always"}), 1, true),
        ("Always", json!({"restartPolicy": "Never"}), 1, false),
        ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": fits}), 42, true),
        ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": fits}), 1, false),
    ] {
        let (mut old, ..) = created(with("/spec/restartPolicy", json!(policy)));
        for (key, value) in own.as_object().unwrap() {
            old["spec"]["containers"][0][key] = value.clone();
        }
        let name = old["spec"]["containers"][0]["name"].clone();
        let status = |state: Value| json!([{"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        old["status"]["containerStatuses"] = status(json!({"terminated": {"exitCode": code}}));
        let mut new = old.clone();
        new["status"]["containerStatuses"] = status(json!({"running": {}}));
        let errors: Vec<String> =
            rules("", "Pod").validate_status_update(&new, &old).iter().map(ToString::to_string).collect();
        let refused = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
        assert_eq!(errors.iter().any(|e| e == refused), !left, "{policy} {own} {code}: {errors:?}");
    }
}

#[test]
fn questionable_settings_draw_warnings() {
    let (.., warnings) =
        created(with("/spec/containers/0/env", json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])));
    assert_eq!(
        warnings,
        ["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"]
    );
    let (.., warnings) = created(with("/spec/nodeSelector", json!({"beta.kubernetes.io/os": "linux"})));
    assert_eq!(
        warnings,
        ["spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
    );
}
