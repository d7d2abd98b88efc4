use super::*;
use crate::registry::Resources;

fn now() -> Timestamp {
    "2024-01-01T00:00:00Z".parse().unwrap()
}

fn planned(resource: &str, group: &str, old: &Value, query: &str) -> Plan {
    let resources = Resources::built_in();
    plan(resources.get(group, resource).unwrap(), old, &DeleteOptions::of_query(query).unwrap(), now())
}

fn marked(plan: Plan) -> (Value, Value, Value) {
    let Plan::Mark(object) = plan else { panic!("{plan:?}") };
    let metadata = &object["metadata"];
    (
        metadata["deletionTimestamp"].clone(),
        metadata["deletionGracePeriodSeconds"].clone(),
        metadata["finalizers"].clone(),
    )
}

#[test]
fn a_running_pod_gets_its_grace_period() {
    let pod = json!({"metadata": {}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}});
    assert_eq!(marked(planned("pods", "", &pod, "")), (json!("2024-01-01T00:00:10Z"), json!(10), Value::Null));
    let marked = marked(planned("pods", "", &pod, "gracePeriodSeconds=3"));
    assert_eq!((marked.0, marked.1), (json!("2024-01-01T00:00:03Z"), json!(3)));
}

#[test]
fn a_pod_that_nobody_runs_goes_at_once() {
    for pod in [
        json!({"metadata": {}, "spec": {}}),
        json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}}),
    ] {
        assert_eq!(planned("pods", "", &pod, ""), Plan::Delete);
    }
    let running = json!({"metadata": {}, "spec": {"nodeName": "n"}});
    assert_eq!(planned("pods", "", &running, "gracePeriodSeconds=0"), Plan::Delete);
}

#[test]
fn a_second_delete_only_shortens_the_period() {
    let pod = json!({
        "metadata": {"deletionTimestamp": "2024-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30},
        "spec": {"nodeName": "n"},
    });
    assert_eq!(planned("pods", "", &pod, ""), Plan::Wait);
    assert_eq!(planned("pods", "", &pod, "gracePeriodSeconds=40"), Plan::Wait);
    let shorter = marked(planned("pods", "", &pod, "gracePeriodSeconds=5"));
    assert_eq!((shorter.0, shorter.1), (json!("2024-01-01T00:00:05Z"), json!(5)));
    assert_eq!(planned("pods", "", &pod, "gracePeriodSeconds=0"), Plan::Delete);
}

#[test]
fn finalizers_hold_an_object_and_propagation_adds_its_own() {
    let plain = json!({"metadata": {"name": "a"}});
    assert_eq!(planned("configmaps", "", &plain, ""), Plan::Delete);
    let foreground = planned("replicasets", "apps", &plain, "propagationPolicy=Foreground");
    assert_eq!(marked(foreground).2, json!(["foregroundDeletion"]));
    let orphan = planned("replicasets", "apps", &plain, "propagationPolicy=Orphan");
    assert_eq!(marked(orphan).2, json!(["orphan"]));
    assert_eq!(planned("replicasets", "apps", &plain, "propagationPolicy=Background"), Plan::Delete);
    assert_eq!(marked(planned("jobs", "batch", &plain, "")).2, json!(["orphan"]));

    let held = json!({"metadata": {"finalizers": ["x"], "generation": 2}});
    let Plan::Mark(object) = planned("configmaps", "", &held, "") else { panic!() };
    assert_eq!(object["metadata"]["generation"], json!(3));
    assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], json!(0));
    assert_eq!(planned("configmaps", "", &object, ""), Plan::Wait);
}

#[test]
fn a_namespace_terminates_in_two_steps() {
    let namespace =
        json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let Plan::Mark(object) = planned("namespaces", "", &namespace, "") else { panic!() };
    assert_eq!(object["status"]["phase"], json!("Terminating"));
    assert_eq!(planned("namespaces", "", &object, ""), Plan::Wait);
    let emptied = json!({"metadata": {"name": "a"}, "spec": {}});
    assert_eq!(planned("namespaces", "", &emptied, ""), Plan::Delete);
}
