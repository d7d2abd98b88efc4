//! RuntimeClass: a pod that names one gets its overhead and its scheduling constraints.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;

/// Applies the class that the pod names.
///
/// # Errors
/// Why the pod is refused.
pub(super) fn admit(pod: &mut Pod, class: Option<RuntimeClass>) -> Result<(), String> {
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let Some(name) = spec.runtime_class_name.clone() else {
        let own = spec.overhead.as_ref().is_some_and(|o| !o.is_empty());
        return if own { Err(OVERHEAD_ALONE.to_owned()) } else { Ok(()) };
    };
    let class = class.ok_or_else(|| format!("pod rejected: RuntimeClass {name:?} not found"))?;
    match class.overhead.and_then(|o| o.pod_fixed) {
        Some(fixed) => {
            if spec.overhead.as_ref().is_some_and(|own| *own != fixed) {
                return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
            }
            spec.overhead = Some(fixed);
        }
        None if spec.overhead.as_ref().is_some_and(|o| !o.is_empty()) => return Err(OVERHEAD_ALONE.to_owned()),
        None => {}
    }
    let Some(scheduling) = class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.into_iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(&key).filter(|own| **own != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key, value);
    }
    for toleration in scheduling.tolerations.into_iter().flatten() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(&toleration) {
            own.push(toleration);
        }
    }
    Ok(())
}

const OVERHEAD_ALONE: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn admitted(spec: Value) -> Result<Value, String> {
        let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let mut spec = spec;
        spec["containers"] = json!([]);
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let named = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()) == Some("vm");
        admit(&mut pod, named.then(|| serde_json::from_value(class).unwrap()))?;
        Ok(serde_json::to_value(pod).unwrap()["spec"].take())
    }

    #[test]
    fn the_class_is_applied() {
        assert_eq!(
            admitted(json!({"runtimeClassName": "vm", "nodeSelector": {"disk": "ssd"}})).unwrap(),
            json!({"containers": [], "runtimeClassName": "vm", "overhead": {"cpu": "100m"},
                "nodeSelector": {"disk": "ssd", "vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]})
        );
        assert_eq!(admitted(json!({})), Ok(json!({"containers": []})));
    }

    #[test]
    fn contradictions_are_refused() {
        #[track_caller]
        fn check(spec: Value, expected: &str) {
            assert_eq!(admitted(spec), Err(expected.to_owned()));
        }
        check(json!({"runtimeClassName": "x"}), "pod rejected: RuntimeClass \"x\" not found");
        check(json!({"overhead": {"cpu": "1"}}), OVERHEAD_ALONE);
        check(
            json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
        );
    }
}
