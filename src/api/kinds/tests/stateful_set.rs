//! StatefulSets and the templates of pods.

use super::*;

/// A StatefulSet whose container mounts `mount`, with a claim template `data`.
fn database(mount: &str) -> Value {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let mut set = workload(&json!({"serviceName": "web", "volumeClaimTemplates": [claim]}));
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": mount, "mountPath": "/data"}]);
    set
}

#[test]
fn a_stateful_sets_template_is_validated_as_its_pods_will_be() {
    check("apps", "StatefulSet", database("data"), &[]);
    let unknown = "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\"";
    check("apps", "StatefulSet", database("other"), &[unknown]);
    // Host name and subdomain come from pod and set, and a claim from its template.
    let mut set = database("data");
    set["spec"]["template"]["spec"]["hostname"] = json!("Not A Label");
    set["spec"]["template"]["spec"]["subdomain"] = json!("Not A Label");
    set["spec"]["template"]["spec"]["volumes"] = json!([{"name": "data", "hostPath": {"path": ""}, "emptyDir": {}}]);
    check("apps", "StatefulSet", set.clone(), &[]);
    set["spec"]["template"]["spec"]["volumes"] = json!([{"name": "x", "hostPath": {"path": ""}}]);
    let path = "spec.template.spec.volumes[1].hostPath.path: Required value";
    check("apps", "StatefulSet", set, &[path]);
    // A block device is a claim, too.
    let mut set = database("data");
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["volumeMounts"] = json!([]);
    container["volumeDevices"] = json!([{"name": "data", "devicePath": "/dev/xvda"}]);
    check("apps", "StatefulSet", set, &[]);
}

#[test]
fn claim_templates_are_validated_when_they_are_made() {
    let mut set = database("data");
    set["spec"]["volumeClaimTemplates"][0]["spec"] = json!({"resources": {"requests": {"storage": "1500m"}}});
    let modes = "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required";
    let (mut old, errors) = create("apps", "StatefulSet", set.clone());
    assert_eq!(errors, [modes]);
    let warned = rules("apps", "StatefulSet").warnings(&old);
    let fraction = "fractional byte value \"1500m\" is invalid, must be an integer";
    assert_eq!(warned, [format!("spec.volumeClaimTemplates[0].resources.requests[storage]: {fraction}")]);
    // An object that was stored with them can still be changed.
    old["spec"]["serviceName"] = json!("Not_A_Label");
    old["metadata"]["resourceVersion"] = json!("1");
    check_update("apps", "StatefulSet", &old, "/spec/replicas", json!(3), &[]);
    old["spec"]["template"]["spec"]["containers"] = json!([]);
    check_update("apps", "StatefulSet", &old, "/spec/replicas", json!(3), &[]);
    let negative = "spec.replicas: Invalid value: -3: must be greater than or equal to 0";
    check_update("apps", "StatefulSet", &old, "/spec/replicas", json!(-3), &[negative]);
}

#[test]
fn a_stateful_sets_status_adds_up() {
    let old = stored("apps", "StatefulSet", workload(&json!({})));
    let check = |status: Value, expected: &[&str]| {
        let mut new = old.clone();
        new["status"] = status;
        assert_eq!(texts(&rules("apps", "StatefulSet").validate_status_update(&new, &old)), expected);
    };
    check(json!({"replicas": 2, "readyReplicas": 2, "currentReplicas": 1, "availableReplicas": 1}), &[]);
    check(
        json!({"replicas": 1, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 2}),
        &[
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
        ],
    );
}

#[test]
fn the_annotations_of_a_template_are_those_of_its_pods() {
    let mut obj = workload(&json!({}));
    obj["spec"]["template"]["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "+1"});
    let why = "spec.template.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer";
    check("apps", "Deployment", obj, &[why]);
}
