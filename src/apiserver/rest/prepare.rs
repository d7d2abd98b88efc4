//! Subresources that change one part of an object and nothing else: `pods/ephemeralcontainers`,
//! `pods/resize` and `certificatesigningrequests/approval`; and who a certificate signing request is from.
//!
//! Each takes from the new object the part that it may change and nothing else; the rules for that part
//! are the kind's own, in `api`.

use std::collections::HashMap;

use api::core::pod::{validate_ephemeral_containers_update, validate_resize};
use api::field::{self, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::auth::User;
use crate::registry::timestamp;

/// A certificate is requested in the name of who sends the request, whatever the request says.
pub(crate) fn set_requester(request: &mut Value, user: &User) {
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".into(), json!(user.name));
    if !user.uid.is_empty() {
        spec.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
}

/// A subresource that changes one part of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Approval,
    EphemeralContainers,
    Resize,
}

impl Part {
    pub(crate) fn of(subresource: &str) -> Option<Self> {
        match subresource {
            "approval" => Some(Self::Approval),
            "ephemeralcontainers" => Some(Self::EphemeralContainers),
            "resize" => Some(Self::Resize),
            _ => None,
        }
    }
}

/// Limits `new` to what the subresource may change, and validates that.
pub(crate) fn update(part: Part, new: &mut Value, old: &Value, now: Timestamp) -> ErrorList {
    match part {
        Part::Approval => approval(new, old, &timestamp(now)),
        Part::EphemeralContainers => ephemeral_containers(new, old),
        Part::Resize => resize(new, old),
    }
}

/// A pod of another spec is of another generation, whichever way it was changed.
fn count_generation(new: &mut Value, old: &Value) {
    if new["spec"] != old["spec"] {
        let before = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(before + 1);
    }
}

/// The old pod with the new one's resources; what is wrong with the containers stays to be seen.
fn resize(new: &mut Value, old: &Value) -> ErrorList {
    let mut resized = old.clone();
    resized["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
    for key in ["containers", "initContainers"] {
        let own = list(&old["spec"][key]);
        let mut wanted = list(&new["spec"][key]);
        let by_name: HashMap<&Value, &Value> = own.iter().rev().map(|o| (&o["name"], o)).collect();
        for container in &mut wanted {
            let Some(known) = by_name.get(&container["name"]).copied() else { continue };
            let resources = container["resources"].take();
            container.clone_from(known);
            set(container, "resources", resources);
        }
        if !wanted.is_empty() || !own.is_empty() {
            resized["spec"][key] = Value::Array(wanted);
        }
    }
    let whole = new["spec"]["resources"].take();
    set(&mut resized["spec"], "resources", whole);
    count_generation(&mut resized, old);
    *new = resized;
    validate_pods(new, old, validate_resize)
}

fn set(object: &mut Value, key: &str, value: Value) {
    let Some(map) = object.as_object_mut() else { return };
    if value.is_null() {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value);
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The old pod with the new one's ephemeral containers.
fn ephemeral_containers(new: &mut Value, old: &Value) -> ErrorList {
    let wanted = new["spec"]["ephemeralContainers"].take();
    let version = new["metadata"]["resourceVersion"].clone();
    *new = old.clone();
    new["metadata"]["resourceVersion"] = version;
    let none = wanted.as_array().is_some_and(Vec::is_empty);
    set(&mut new["spec"], "ephemeralContainers", if none { Value::Null } else { wanted });
    count_generation(new, old);
    validate_pods(new, old, validate_ephemeral_containers_update)
}

fn validate_pods(new: &Value, old: &Value, validate: fn(&Pod, &Pod) -> ErrorList) -> ErrorList {
    match (Pod::deserialize(new), Pod::deserialize(old)) {
        (Ok(new), Ok(old)) => validate(&new, &old),
        (Err(e), _) | (_, Err(e)) => field::internal(&Path::new("spec"), e.to_string()).into(),
    }
}

/// Of the status only conditions may be added: the certificate is the signer's. Labels and annotations
/// may come with them.
fn approval(new: &mut Value, old: &Value, now: &str) -> ErrorList {
    let mut conditions = list(&new["status"]["conditions"]);
    let own = list(&old["status"]["conditions"]);
    let rules = api::kinds::rules("certificates.k8s.io", "CertificateSigningRequest");
    set(new, "status", old["status"].clone());
    rules.prepare_status_update(new, old);
    let mut errors = rules.validate_status_update(new, old);
    let by_type: HashMap<&Value, &Value> = own.iter().rev().map(|c| (&c["type"], c)).collect();
    for condition in &mut conditions {
        let before = by_type.get(&condition["type"]).copied();
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[field].is_null() {
                let kept = before.map(|b| b[field].clone()).filter(|t| !t.is_null());
                condition[field] = kept.unwrap_or_else(|| json!(now));
            }
        }
    }
    let status = Path::new("status");
    let path = status.child("conditions");
    errors.extend(judge_conditions(&conditions, &own, &path));
    new["status"]["conditions"] = Value::Array(conditions);
    errors
}

fn judge_conditions(conditions: &[Value], own: &[Value], path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let of = |list: &[Value], kind: &str| list.iter().any(|c| c["type"] == kind);
    if of(conditions, "Approved") && of(conditions, "Denied") {
        errors.push(field::invalid(path, "Denied", "Approved and Denied conditions are mutually exclusive"));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if of(own, kind) && !of(conditions, kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(field::forbidden(path, detail));
        }
    }
    for (i, condition) in conditions.iter().enumerate() {
        let entry = path.index(i);
        if condition["type"].as_str().is_none_or(str::is_empty) {
            errors.push(field::required(&entry.child("type"), ""));
        }
        if condition["status"].as_str().is_none_or(str::is_empty) {
            errors.push(field::required(&entry.child("status"), ""));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A stored pod with one container and one volume.
    fn pod(ephemeral: &Value) -> Value {
        let mut pod = json!({"metadata": {"name": "web", "namespace": "prod"}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "data", "emptyDir": {}}]}});
        api::kinds::rules("", "Pod").admit_create(&mut pod).unwrap();
        if ephemeral.as_array().is_some_and(|list| !list.is_empty()) {
            pod["spec"]["ephemeralContainers"] = ephemeral.clone();
            api::kinds::rules("", "Pod").default(&mut pod).unwrap();
        }
        pod
    }

    /// A debug container with further fields.
    fn debug(extra: &Value) -> Value {
        let mut container = json!({"name": "d", "image": "busybox"});
        for (key, value) in extra.as_object().unwrap() {
            container[key] = value.clone();
        }
        container
    }

    #[track_caller]
    fn check(old: &Value, new: &Value, expected: &[&str]) {
        let (old, mut changed) = (pod(old), pod(new));
        changed["spec"]["nodeName"] = json!("stolen");
        let errors = update(Part::EphemeralContainers, &mut changed, &old, NOW);
        assert_eq!(changed["spec"]["nodeName"], "n", "nothing else changes");
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let plain = debug(&json!({}));
        check(&json!([]), &json!([plain]), &[]);
        check(&json!([plain]), &json!([plain, {"name": "e", "image": "x", "targetContainerName": "c"}]), &[]);
        check(
            &json!([plain]),
            &json!([]),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"],
        );
        let (old, mut new) = (pod(&json!([plain])), pod(&json!([debug(&json!({"image": "other"}))])));
        let errors = update(Part::EphemeralContainers, &mut new, &old, NOW);
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert!(error.detail.starts_with("existing ephemeral containers \"d\" may not be changed\n"), "{error}");
    }

    #[test]
    fn an_ephemeral_container_is_validated_like_any_other() {
        let at = "spec.ephemeralContainers[0]";
        let forbidden = "cannot be set for an Ephemeral Container";
        let rows = [
            (json!({"volumeMounts": [{"name": "data", "mountPath": "/d"}]}), None),
            (
                json!({"volumeMounts": [{"name": "other", "mountPath": "/d"}]}),
                Some(format!("{at}.volumeMounts[0].name: Not found: \"other\"")),
            ),
            (
                json!({"volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": "x"}]}),
                Some(format!("{at}.volumeMounts[0].subPath: Forbidden: {forbidden}")),
            ),
            (json!({"env": [{"name": ""}]}), Some(format!("{at}.env[0].name: Required value"))),
            (
                json!({"imagePullPolicy": "Sometimes"}),
                Some(format!(
                    "{at}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
                )),
            ),
            (json!({"name": "c"}), Some(format!("{at}.name: Duplicate value: \"c\""))),
            (json!({"targetContainerName": "no"}), Some(format!("{at}.targetContainerName: Not found: \"no\""))),
            (json!({"ports": [{"containerPort": 80}]}), Some(format!("{at}.ports: Forbidden: {forbidden}"))),
            (json!({"restartPolicy": "Always"}), Some(format!("{at}.restartPolicy: Forbidden: {forbidden}"))),
        ];
        for (extra, expected) in rows {
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check(&json!([]), &json!([debug(&extra)]), &expected);
        }
    }

    #[test]
    fn a_static_pod_gets_no_ephemeral_containers() {
        let mut old = pod(&json!([]));
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let mut new = pod(&json!([debug(&json!({}))]));
        let errors = update(Part::EphemeralContainers, &mut new, &old, NOW);
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(got, ["[]: Forbidden: static pods do not support ephemeral containers"]);
    }

    #[test]
    fn a_resize_changes_resources_only_and_is_a_new_generation() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = |cpu: &str, image: &str| {
            json!({"metadata": {"name": "p", "namespace": "n", "generation": 4}, "status": {"qosClass": "Burstable"},
                "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "c", "image": image, "imagePullPolicy": "Always", "resources": resources(cpu),
                "terminationMessagePolicy": "File"}]}})
        };
        let (old, mut new) = (pod("1", "mine"), pod("2", "stolen"));
        let errors = update(Part::Resize, &mut new, &old, NOW);
        assert!(errors.is_empty(), "{errors:?}");
        let mut expected = pod("2", "mine");
        expected["metadata"]["generation"] = json!(5);
        expected["metadata"]["resourceVersion"] = Value::Null;
        assert_eq!(new, expected);
        let mut other = pod("1", "mine");
        other["spec"]["containers"][0]["name"] = json!("d");
        let renamed = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
        let got: Vec<String> = update(Part::Resize, &mut other, &old, NOW).iter().map(ToString::to_string).collect();
        assert_eq!(got, [renamed]);
    }

    #[test]
    fn an_approval_changes_conditions_only_and_stamps_them() {
        const NOW: &str = "2026-01-01T00:00:00Z";
        let spec = |signer: &str| json!({"signerName": signer, "request": "eA=="});
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": spec("s"), "status": {}});
        let metadata = json!({"name": "a", "resourceVersion": "1", "annotations": {"by": "me"}});
        let mut new = json!({"metadata": metadata, "spec": spec("other"), "status": {"certificate": "x",
            "conditions": [{"type": "Approved", "status": "True"}]}});
        assert!(approval(&mut new, &old, NOW).is_empty());
        let condition = json!({"type": "Approved", "status": "True", "lastUpdateTime": NOW,
            "lastTransitionTime": NOW});
        assert_eq!((&new["spec"]["signerName"], &new["status"]), (&json!("s"), &json!({"conditions": [condition]})));
        assert_eq!(new["metadata"], metadata);
        let mut both = new.clone();
        both["status"]["conditions"] = json!([condition, {"type": "Denied", "status": "True"}]);
        assert_eq!(approval(&mut both, &new, NOW).len(), 1);
        let mut none = new.clone();
        none["status"]["conditions"] = json!([]);
        assert_eq!(approval(&mut none, &new, NOW).len(), 1);
    }
}
