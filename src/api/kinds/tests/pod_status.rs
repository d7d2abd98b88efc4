//! The fields of a pod's status that the API server itself computes, and when.

use super::*;

fn pod(spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": "web", "namespace": "default", "generation": 7}, "spec": spec,
        "status": {"phase": "Running", "qosClass": "Guaranteed", "podIP": "10.0.0.1"}});
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "a", "image": "i"}]);
    }
    pod
}

#[test]
fn a_new_pods_status_is_the_servers() {
    let gated = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "observedGeneration": 1,
        "message": "Scheduling is blocked due to non-empty scheduling gates"});
    let rows = [
        (json!({}), json!({"phase": "Pending", "qosClass": "BestEffort"})),
        (
            json!({"schedulingGates": [{"name": "g"}]}),
            json!({"phase": "Pending", "qosClass": "BestEffort", "conditions": [gated]}),
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(create("", "Pod", pod(&spec)).0["status"], expected, "{spec}");
    }
}

/// One container's resources as `requests/limits`, each as `cpu,memory`; `-` leaves one out.
fn resources(text: &str) -> Value {
    let list = |text: &str| {
        let amounts = ["cpu", "memory"].into_iter().zip(text.split(',')).filter(|(_, amount)| *amount != "-");
        amounts.map(|(name, amount)| (name.to_owned(), json!(amount))).collect::<serde_json::Map<_, _>>()
    };
    let (requests, limits) = text.split_once('/').unwrap();
    json!({"requests": list(requests), "limits": list(limits)})
}

#[test]
fn quality_of_service_follows_the_sums_of_requests_and_limits() {
    let rows: [(&[&str], Option<&str>, &str); 22] = [
        (&["-,-/-,-"], None, "BestEffort"),
        (&["0,0/0,0"], None, "BestEffort"),
        (&["1,-/-,-"], None, "Burstable"),
        (&["-,-/1,-"], None, "Burstable"),
        (&["-,1Gi/-,-"], None, "Burstable"),
        // Requests follow limits when they are left out.
        (&["-,-/1,1Gi"], None, "Guaranteed"),
        (&["1,1Gi/1,1024Mi"], None, "Guaranteed"),
        (&["500m,-/1,1Gi"], None, "Burstable"),
        // A request of zero is none.
        (&["0,1Gi/1,1Gi"], None, "Burstable"),
        (&["0,0/1,1Gi"], None, "Burstable"),
        (&["1,1Gi/0,1Gi"], None, "Burstable"),
        (&["1,1Gi/1,1Gi", "-,-/-,-"], None, "Burstable"),
        (&["1,1Gi/1,1Gi", "2,2Gi/2,2Gi"], None, "Guaranteed"),
        (&["1,1Gi/1,1Gi", "2,2Gi/2,-"], None, "Burstable"),
        // The sums count, not each container by itself.
        (&["1,1Gi/2,1Gi", "2,1Gi/1,1Gi"], None, "Guaranteed"),
        (&["1,1Gi/2,1Gi", "1,1Gi/1,1Gi"], None, "Burstable"),
        (&["0,1Gi/1,1Gi", "2,1Gi/1,1Gi"], None, "Guaranteed"),
        // Resources of the whole pod go before its containers'.
        (&["1,-/-,-"], Some("1,1Gi/1,1Gi"), "Guaranteed"),
        (&["-,-/-,-"], Some("1,-/1,-"), "Burstable"),
        (&["-,-/-,-"], Some("1,1Gi/-,-"), "Burstable"),
        (&["-,-/-,-"], Some("500m,1Gi/1,1Gi"), "Burstable"),
        (&["1,1Gi/1,1Gi"], Some("-,-/-,-"), "Guaranteed"),
    ];
    for (containers, whole, expected) in rows {
        let named = containers.iter().enumerate();
        let containers: Vec<Value> = named
            .map(|(i, text)| json!({"name": format!("c{i}"), "image": "i", "resources": resources(text)}))
            .collect();
        let mut spec = json!({"containers": containers});
        if let Some(whole) = whole {
            spec["resources"] = resources(whole);
        }
        let (created, _) = create("", "Pod", pod(&spec));
        assert_eq!(created["status"]["qosClass"], expected, "{spec}");
    }
    let init = json!({"initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "c", "image": "i", "resources": resources("1,1Gi/1,1Gi")}]});
    assert_eq!(create("", "Pod", pod(&init)).0["status"]["qosClass"], "Burstable");
    let disk =
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}]});
    assert_eq!(create("", "Pod", pod(&disk)).0["status"]["qosClass"], "BestEffort");
}

#[test]
fn an_update_of_the_pod_leaves_its_status() {
    let old = stored("", "Pod", pod(&json!({})));
    let mut new = old.clone();
    new["status"] = json!({"phase": "Failed"});
    rules("", "Pod").admit_update(&mut new, &old).unwrap();
    assert_eq!(new["status"], old["status"]);
}

#[test]
fn an_update_of_the_status_keeps_what_a_writer_leaves_out() {
    let condition =
        |kind: &str, observed: Value| json!({"type": kind, "status": "True", "observedGeneration": observed});
    let old = json!({"metadata": {"name": "a"}, "spec": {}, "status": {
        "qosClass": "Burstable", "observedGeneration": 4,
        "conditions": [condition("Ready", json!(3)), condition("X", json!(1)), condition("X", json!(2))]}});
    let rows = [
        (json!({"phase": "Running"}), json!({"phase": "Running", "qosClass": "Burstable", "observedGeneration": 4})),
        (
            json!({"observedGeneration": 5, "qosClass": "Guaranteed"}),
            json!({"observedGeneration": 5, "qosClass": "Guaranteed"}),
        ),
        (
            json!({"conditions": [
                {"type": "X"}, condition("Ready", json!(5)), {"type": "X"}, {"type": "X"}, {"type": "New"}]}),
            json!({"qosClass": "Burstable", "observedGeneration": 4, "conditions": [
                {"type": "X", "observedGeneration": 1}, condition("Ready", json!(5)),
                {"type": "X", "observedGeneration": 2}, {"type": "X"}, {"type": "New"}]}),
        ),
    ];
    for (status, expected) in rows {
        let mut new = json!({"metadata": {"name": "a"}, "status": status});
        rules("", "Pod").prepare_status_update(&mut new, &old);
        assert_eq!(new["status"], expected);
    }
    // The class never changes, whoever says so.
    let mut old = old;
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    new["status"] = json!({"qosClass": "Guaranteed"});
    let errors = texts(&rules("", "Pod").validate_status_update(&new, &old));
    assert_eq!(errors, ["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"]);
}
