mod pod_status;
mod rbac;
mod stateful_set;

use serde_json::json;

use super::*;

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn create(group: &str, kind: &str, mut obj: Value) -> (Value, Vec<String>) {
    let admitted = rules(group, kind).admit_create(&mut obj).unwrap();
    (obj, texts(&admitted.errors))
}

/// An object as it would be stored.
fn stored(group: &str, kind: &str, obj: Value) -> Value {
    let (mut obj, errors) = create(group, kind, obj);
    assert!(errors.is_empty(), "{errors:?}");
    obj["metadata"]["resourceVersion"] = json!("1");
    obj
}

#[track_caller]
fn check(group: &str, kind: &str, obj: Value, expected: &[&str]) {
    assert_eq!(create(group, kind, obj).1, expected);
}

#[track_caller]
fn check_update(group: &str, kind: &str, old: &Value, pointer: &str, value: Value, expected: &[&str]) {
    let mut new = old.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    new.pointer_mut(parent).unwrap()[key] = value;
    let admitted = rules(group, kind).admit_update(&mut new, old).unwrap();
    assert_eq!(texts(&admitted.errors), expected);
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}})
}

fn workload(extra: &Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

#[test]
fn an_unknown_kind_has_its_metadata_checked() {
    let errs = rules("example.com", "Widget").validate(&json!({"metadata": {"namespace": "default"}}));
    assert_eq!(errs[0].to_string(), "metadata.name: Required value: name or generateName is required");
}

#[test]
fn of_an_object_with_more_errors_than_are_told_only_the_metadata_is_written_back() {
    let map = |count: usize| {
        let data: serde_json::Map<String, Value> = (0..count).map(|i| (format!("/{i}"), json!(""))).collect();
        json!({"metadata": {"name": "a", "namespace": "b"}, "data": data})
    };
    let keys = |obj: &Value| obj["data"].as_object().map(serde_json::Map::len);
    let metadata = json!({"metadata": {"name": "a", "namespace": "b"}});
    let (obj, errors) = create("", "ConfigMap", map(1_000));
    assert_eq!((errors.len(), keys(&obj)), (1_000, Some(1_000)));
    let (obj, errors) = create("", "ConfigMap", map(2_000));
    assert_eq!((errors.len(), obj), (1_001, metadata.clone()));
    let old = stored("", "ConfigMap", metadata);
    let mut new = map(2_000);
    new["metadata"] = old["metadata"].clone();
    assert_eq!(rules("", "ConfigMap").admit_update(&mut new, &old).unwrap().errors.len(), 1_001);
    assert_eq!(new, json!({"metadata": old["metadata"]}));
}

#[test]
fn deployments_are_defaulted_and_checked() {
    let obj = stored("apps", "Deployment", workload(&json!({})));
    assert_eq!(obj["spec"]["replicas"], 1);
    assert_eq!(
        obj["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(
        (&obj["spec"]["revisionHistoryLimit"], &obj["spec"]["progressDeadlineSeconds"]),
        (&json!(10), &json!(600))
    );
    assert_eq!(obj["metadata"]["generation"], 1);
    check(
        "apps",
        "Deployment",
        workload(&json!({"selector": {"matchLabels": {"app": "db"}}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "apps",
        "Deployment",
        workload(&json!({"replicas": -1})),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "apps",
        "Deployment",
        workload(
            &json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
        ),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    );
    let mut never = workload(&json!({}));
    never["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    check(
        "apps",
        "Deployment",
        never,
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    let mut changed = obj.clone();
    changed["spec"]["template"]["metadata"]["labels"]["app"] = json!("db");
    check_update(
        "apps",
        "Deployment",
        &obj,
        "/spec",
        {
            let mut spec = changed["spec"].clone();
            spec["selector"]["matchLabels"]["app"] = json!("db");
            spec
        },
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"],
    );
}

#[test]
fn a_spec_change_is_a_new_generation_and_a_status_change_is_none() {
    let old = stored("apps", "Deployment", workload(&json!({})));
    let rules = rules("apps", "Deployment");
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    rules.admit_update(&mut new, &old).unwrap();
    assert_eq!(new["metadata"]["generation"], 1);
    new["spec"]["replicas"] = json!(3);
    rules.admit_update(&mut new, &old).unwrap();
    assert_eq!(new["metadata"]["generation"], 2);
    let mut status = old.clone();
    status["spec"]["replicas"] = json!(9);
    status["status"] = json!({"replicas": 1});
    rules.prepare_status_update(&mut status, &old);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(status["metadata"]["generation"], 1);
}

#[test]
fn the_status_of_a_deployment_leaves_its_labels_alone_and_others_do_not() {
    for (kind, expected) in [("Deployment", json!({"a": "old"})), ("ReplicaSet", json!({"a": "new"}))] {
        let mut old = stored("apps", kind, workload(&json!({})));
        old["metadata"]["labels"] = json!({"a": "old"});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "new"});
        new["metadata"]["annotations"] = json!({"b": "new"});
        rules("apps", kind).prepare_status_update(&mut new, &old);
        assert_eq!((&new["metadata"]["labels"], &new["metadata"]["annotations"]), (&expected, &json!({"b": "new"})));
    }
}

#[test]
fn daemon_sets_count_the_changes_of_their_template() {
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    let count = |set: &Value| set["metadata"]["annotations"][GENERATION].clone();
    let old = stored("apps", "DaemonSet", workload(&json!({})));
    assert_eq!(count(&old), "1");
    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({GENERATION: "7", "a": "b"});
    new["spec"]["minReadySeconds"] = json!(3);
    rules("apps", "DaemonSet").admit_update(&mut new, &old).unwrap();
    assert_eq!((count(&new), &new["metadata"]["annotations"]["a"]), (json!("1"), &json!("b")));
    new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
    rules("apps", "DaemonSet").admit_update(&mut new, &old).unwrap();
    assert_eq!(count(&new), "2");
    let mut given = workload(&json!({}));
    given["metadata"]["annotations"] = json!({GENERATION: "999"});
    assert_eq!(count(&stored("apps", "DaemonSet", given)), "999");
}

#[test]
fn stateful_sets_keep_most_of_their_spec() {
    let old = stored("apps", "StatefulSet", workload(&json!({"serviceName": "web"})));
    check_update("apps", "StatefulSet", &old, "/spec/replicas", json!(3), &[]);
    check_update(
        "apps",
        "StatefulSet",
        &old,
        "/spec/serviceName",
        json!("other"),
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
}

#[test]
fn jobs_select_the_pods_of_their_own_uid() {
    let job = |policy: &str| {
        let mut template = template();
        template["spec"]["restartPolicy"] = json!(policy);
        json!({"metadata": {"name": "pi", "namespace": "default", "uid": "u1"}, "spec": {"template": template}})
    };
    let obj = stored("batch", "Job", job("Never"));
    assert_eq!(obj["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
    let labels = &obj["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["job-name"], &labels["batch.kubernetes.io/controller-uid"]), (&json!("pi"), &json!("u1")));
    assert_eq!((&obj["spec"]["backoffLimit"], &obj["spec"]["completions"]), (&json!(6), &json!(1)));
    check(
        "batch",
        "Job",
        job("Always"),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check_update(
        "batch",
        "Job",
        &obj,
        "/spec/completions",
        json!(5),
        &["spec.completions: Invalid value: 5: field is immutable"],
    );
}

#[test]
fn cron_jobs_need_a_schedule() {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let cron = |schedule: &str| {
        json!({"metadata": {"name": "tick", "namespace": "default"},
               "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": template}}}})
    };
    let obj = stored("batch", "CronJob", cron("*/5 * * * *"));
    assert_eq!(obj["spec"]["concurrencyPolicy"], "Allow");
    check(
        "batch",
        "CronJob",
        cron("* * *"),
        &["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
    );
}

#[test]
fn a_cron_jobs_time_zone_is_one_of_the_database() {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let cron = |zone: &str| {
        json!({"metadata": {"name": "tick", "namespace": "default"},
               "spec": {"schedule": "0 0 * * *", "timeZone": zone, "jobTemplate": {"spec": {"template": template}}}})
    };
    let explicit = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
    let rows: [(&str, &[&str]); 10] = [
        ("Europe/Berlin", &[]),
        ("Etc/GMT+12", &[]),
        ("", &["timeZone must be nil or non-empty string"]),
        ("Local", &[explicit]),
        ("local", &[explicit, "unknown time zone local"]),
        ("Mars/Olympus", &["unknown time zone Mars/Olympus"]),
        ("AMERICA/new_york", &["unknown time zone AMERICA/new_york"]),
        (" Continent/Zone", &["unknown time zone  Continent/Zone"]),
        ("Europe//Berlin", &["unknown time zone Europe//Berlin"]),
        ("Continent/Zone..x", &["time: invalid location name"]),
    ];
    for (zone, expected) in rows {
        let expected: Vec<String> =
            expected.iter().map(|why| format!("spec.timeZone: Invalid value: \"{zone}\": {why}")).collect();
        assert_eq!(create("batch", "CronJob", cron(zone)).1, expected, "{zone}");
    }
    // A zone that the database has lost stays until it is changed.
    let mut old = stored("batch", "CronJob", cron("UTC"));
    old["spec"]["timeZone"] = json!("Old/Zone");
    check_update("batch", "CronJob", &old, "/spec/suspend", json!(true), &[]);
    let unknown = "spec.timeZone: Invalid value: \"New/Zone\": unknown time zone New/Zone";
    check_update("batch", "CronJob", &old, "/spec/timeZone", json!("New/Zone"), &[unknown]);
}

#[test]
fn services_are_defaulted_and_checked() {
    let service = |spec: Value| json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let obj = stored("", "Service", service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}})));
    assert_eq!(
        obj["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
               "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    assert_eq!(obj["status"], json!({"loadBalancer": {}}));
    check("", "Service", service(json!({"selector": {"app": "web"}})), &["spec.ports: Required value"]);
    check(
        "",
        "Service",
        service(json!({"ports": [{"port": 80}, {"port": 81, "name": "x"}]})),
        &["spec.ports[0].name: Required value"],
    );
    check(
        "",
        "Service",
        service(json!({"ports": [{"port": 80, "nodePort": 30080}]})),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "",
        "Service",
        service(json!({"type": "X", "ports": [{"port": 80}]})),
        &[
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    let mut given = obj.clone();
    given["spec"]["clusterIP"] = json!("10.96.0.7");
    given["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    let mut moved = given.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.8");
    moved["spec"]["clusterIPs"] = json!(["10.96.0.8"]);
    let admitted = rules("", "Service").admit_update(&mut moved, &given).unwrap();
    let fixed = "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set";
    assert_eq!(texts(&admitted.errors), [fixed]);
}

#[test]
fn a_service_that_stops_being_exposed_gives_its_node_ports_back() {
    let old = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "1"},
        "spec": {"type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                 "externalTrafficPolicy": "Cluster", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                 "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}]},
        "status": {"loadBalancer": {}},
    });
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    let admitted = rules("", "Service").admit_update(&mut new, &old).unwrap();
    assert!(admitted.errors.is_empty(), "{:?}", admitted.errors);
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    assert!(new["spec"].get("externalTrafficPolicy").is_none());
}

#[test]
fn config_maps_and_secrets_hold_at_most_a_mebibyte_and_can_be_frozen() {
    let map = |extra: Value| {
        let mut obj = json!({"metadata": {"name": "m", "namespace": "default"}});
        for (key, value) in extra.as_object().unwrap() {
            obj[key] = value.clone();
        }
        obj
    };
    check(
        "",
        "ConfigMap",
        map(json!({"data": {"a": "x".repeat(1_048_577)}})),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    let frozen = stored("", "ConfigMap", map(json!({"data": {"a": "1"}, "immutable": true})));
    check_update(
        "",
        "ConfigMap",
        &frozen,
        "/data/a",
        json!("2"),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    let secret = stored("", "Secret", map(json!({"stringData": {"k": "v"}, "data": {"k": "eA==", "l": "eQ=="}})));
    assert_eq!((&secret["type"], &secret["data"]), (&json!("Opaque"), &json!({"k": "dg==", "l": "eQ=="})));
    assert!(secret.get("stringData").is_none());
    check(
        "",
        "Secret",
        map(json!({"type": "kubernetes.io/tls"})),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
}

#[test]
fn a_namespace_starts_active_with_its_finalizer() {
    let obj = stored("", "Namespace", json!({"metadata": {"name": "dev"}}));
    assert_eq!(obj["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(obj["status"], json!({"phase": "Active"}));
    assert_eq!(obj["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "dev"}));
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "a.b"}}),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
}

#[test]
fn a_node_registers_with_its_status() {
    let obj = stored(
        "",
        "Node",
        json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "4", "memory": "1048576Ki"}}}),
    );
    assert_eq!(obj["status"]["allocatable"], json!({"cpu": "4", "memory": "1Gi"}));
}

#[test]
fn bindings_name_their_role_for_life() {
    let binding = json!({
        "metadata": {"name": "system:x", "namespace": "default"},
        "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jane"}],
    });
    let obj = stored("rbac.authorization.k8s.io", "RoleBinding", binding);
    assert_eq!(obj["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(obj["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    check_update(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        &obj,
        "/roleRef/name",
        json!("other"),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"other\"}: cannot change roleRef",
        ],
    );
}

#[test]
fn claims_are_defaulted_and_checked() {
    let claim = |spec: Value| json!({"metadata": {"name": "c", "namespace": "default"}, "spec": spec});
    let good = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}});
    let obj = stored("", "PersistentVolumeClaim", claim(good));
    assert_eq!(obj["spec"]["volumeMode"], "Filesystem");
    assert_eq!(obj["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(obj["status"], json!({"phase": "Pending"}));
    check(
        "",
        "PersistentVolumeClaim",
        claim(json!({})),
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
}

#[test]
fn every_kind_selects_by_its_fields() {
    let pod = json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
    let fields = rules("", "Pod").selectable_fields(&pod);
    assert!(fields.contains(&("spec.nodeName", "n1".into())));
    assert!(fields.contains(&("spec.hostNetwork", "false".into())));
    assert!(fields.contains(&("status.phase", "Running".into())));
    for (event, source) in [
        (json!({"source": {"component": "a"}, "reportingComponent": "b"}), "a"),
        (json!({"source": {}, "reportingComponent": "b"}), "b"),
        (json!({}), ""),
    ] {
        assert!(rules("", "Event").selectable_fields(&event).contains(&("source", source.into())), "{event}");
    }
}

#[test]
fn authors_are_warned_in_upstreams_words() {
    #[track_caller]
    fn check(group: &str, kind: &str, mut obj: Value, expected: &[&str]) {
        let rules = rules(group, kind);
        let defaulted = rules.default(&mut obj);
        assert!(defaulted.is_ok(), "{defaulted:?}");
        assert_eq!(rules.admit_create(&mut obj).unwrap().warnings, expected, "{kind}");
    }
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        })
    };
    check("apps", "Deployment", deployment("a"), &[]);
    let dotted = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a \
                  DNS label is recommended: [must not contain dots]";
    check("apps", "Deployment", deployment("a.b"), &[dotted]);
    let service = |spec: Value| json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
    check(
        "",
        "Service",
        service(json!({"ports": [{"port": 1}], "externalIPs": ["192.0.2.1"], "externalName": "x.example",
            "trafficDistribution": "PreferClose", "loadBalancerSourceRanges": ["10.0.0.1/8"]})),
        &[
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \
             \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ],
    );
    check(
        "",
        "PersistentVolume",
        json!({
            "metadata": {"name": "v", "annotations": {"volume.beta.kubernetes.io/storage-class": "x"}},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/x"}},
        }),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
             \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning.",
        ],
    );
}
