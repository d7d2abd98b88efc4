//! Subresources that change one part of an object and nothing else: `pods/ephemeralcontainers`,
//! `pods/resize` and `certificatesigningrequests/approval`; and who a certificate signing request is from.
//!
//! The generic update takes what is returned here in the place of the kind's own rules.

use api::core::pod::validate_resize;
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

/// Limits `new` to what the subresource may change, and judges that.
pub(crate) fn update(subresource: &str, new: &mut Value, old: &Value) -> ErrorList {
    match subresource {
        "approval" => approval(new, old, &timestamp(Timestamp::now())),
        "resize" => resize(new, old),
        _ => ephemeral_containers(new, old),
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
        for container in &mut wanted {
            let Some(known) = own.iter().find(|o| o["name"] == container["name"]) else { continue };
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
    match (Pod::deserialize(&*new), Pod::deserialize(old)) {
        (Ok(new), Ok(old)) => validate_resize(&new, &old),
        (Err(e), _) | (_, Err(e)) => vec![field::internal(&Path::new("spec"), e.to_string())],
    }
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

/// Containers may be added to a running pod, never changed or taken away.
fn ephemeral_containers(new: &mut Value, old: &Value) -> ErrorList {
    let wanted = list(&new["spec"]["ephemeralContainers"]);
    let own = list(&old["spec"]["ephemeralContainers"]);
    let version = new["metadata"]["resourceVersion"].clone();
    *new = old.clone();
    new["metadata"]["resourceVersion"] = version;
    if !wanted.is_empty() {
        new["spec"]["ephemeralContainers"] = Value::Array(wanted.clone());
    }
    count_generation(new, old);
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let mut errors = ErrorList::new();
    for existing in &own {
        let name = existing["name"].as_str().unwrap_or_default();
        match wanted.iter().find(|c| c["name"] == existing["name"]) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(field::forbidden(&path, detail));
            }
            Some(kept) if kept != existing => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(field::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
    judge_containers(&wanted, old, &path, &mut errors);
    errors
}

fn judge_containers(wanted: &[Value], old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let plain: Vec<Value> = ["containers", "initContainers"].iter().flat_map(|k| list(&old["spec"][*k])).collect();
    for (i, container) in wanted.iter().enumerate() {
        let entry = path.index(i);
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(field::required(&entry.child("name"), ""));
        } else if plain.iter().chain(&wanted[..i]).any(|c| c["name"] == name) {
            errors.push(field::duplicate(&entry.child("name"), name));
        }
        if container["image"].as_str().is_none_or(str::is_empty) {
            errors.push(field::required(&entry.child("image"), ""));
        }
        let target = container["targetContainerName"].as_str().unwrap_or_default();
        if !target.is_empty() && !plain.iter().any(|c| c["name"] == target) {
            errors.push(field::not_found(&entry.child("targetContainerName"), target));
        }
        for forbidden in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
            let set = match &container[forbidden] {
                Value::Null => false,
                Value::Object(map) => !map.is_empty(),
                _ => true,
            };
            if set {
                errors.push(field::forbidden(&entry.child(forbidden), "cannot be set for an Ephemeral Container"));
            }
        }
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
    for condition in &mut conditions {
        let before = own.iter().find(|c| c["type"] == condition["type"]);
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

    fn pod(ephemeral: &Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n", "containers": [{"name": "c"}],
            "ephemeralContainers": ephemeral}})
    }

    #[track_caller]
    fn check(old: &Value, new: &Value, expected: &[&str]) {
        let mut changed = pod(new);
        changed["spec"]["nodeName"] = json!("stolen");
        let errors = update("ephemeralcontainers", &mut changed, &pod(old));
        assert_eq!(changed["spec"]["nodeName"], "n", "nothing else changes");
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let debug = json!({"name": "d", "image": "busybox"});
        check(&json!([]), &json!([debug]), &[]);
        check(&json!([debug]), &json!([debug, {"name": "e", "image": "x", "targetContainerName": "c"}]), &[]);
        check(
            &json!([debug]),
            &json!([]),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"],
        );
        check(
            &json!([debug]),
            &json!([{"name": "d", "image": "other"}]),
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n"],
        );
        check(
            &json!([]),
            &json!([{"name": "c", "image": "x", "targetContainerName": "no", "ports": []}]),
            &[
                "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"no\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ],
        );
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
        let errors = update("resize", &mut new, &old);
        assert!(errors.is_empty(), "{errors:?}");
        let mut expected = pod("2", "mine");
        expected["metadata"]["generation"] = json!(5);
        expected["metadata"]["resourceVersion"] = Value::Null;
        assert_eq!(new, expected);
        let mut other = pod("1", "mine");
        other["spec"]["containers"][0]["name"] = json!("d");
        let renamed = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
        let got: Vec<String> = update("resize", &mut other, &old).iter().map(ToString::to_string).collect();
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
