//! Priority: a pod's priority is its PriorityClass's, never its own word; at most one class is the
//! default.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

const PREEMPT: &str = "PreemptLowerPriority";

/// Resolves the pod's class among `classes`.
///
/// # Errors
/// Why the pod is refused.
pub(super) fn admit(pod: &mut Pod, classes: &[PriorityClass]) -> Result<(), String> {
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let class = match spec.priority_class_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => Some(
            classes
                .iter()
                .find(|c| c.metadata.name.as_deref() == Some(name))
                .ok_or_else(|| format!("no PriorityClass with name {name} was found"))?,
        ),
        None => default_class(classes),
    };
    let priority = class.map_or(0, |c| c.value.unwrap_or(0));
    if let Some(own) = spec.priority
        && own != priority
    {
        return Err(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        ));
    }
    let policy = class.and_then(|c| c.preemption_policy.as_deref()).unwrap_or(PREEMPT);
    if let Some(own) = spec.preemption_policy.as_deref()
        && own != policy
    {
        return Err(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    if let Some(class) = class {
        spec.priority_class_name.clone_from(&class.metadata.name);
    }
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy.to_owned());
    Ok(())
}

/// An update that leaves priority and policy out means those that the pod was created with.
pub(super) fn keep(pod: &mut Pod, old: &Pod) {
    if let (Some(spec), Some(old)) = (pod.spec.as_mut(), old.spec.as_ref()) {
        spec.priority = spec.priority.or(old.priority);
        let policy = spec.preemption_policy.take();
        spec.preemption_policy = policy.or_else(|| old.preemption_policy.clone());
    }
}

/// Should there be several defaults after all, the lowest wins, as upstream has it.
fn default_class(classes: &[PriorityClass]) -> Option<&PriorityClass> {
    classes.iter().filter(|c| c.global_default == Some(true)).min_by_key(|c| c.value.unwrap_or(0))
}

/// Judges a PriorityClass that is created or updated.
///
/// # Errors
/// When it would be a second default.
pub(super) fn judge_class(class: &PriorityClass, classes: &[PriorityClass]) -> Result<(), String> {
    let other = classes.iter().find(|c| c.global_default == Some(true) && c.metadata.name != class.metadata.name);
    match other.filter(|_| class.global_default == Some(true)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.metadata.name.as_deref().unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, value: i32, default: bool, policy: &str) -> PriorityClass {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": policy}))
        .unwrap()
    }

    #[track_caller]
    fn check(spec: Value, default: bool, expected: Result<(&str, i32, &str), &str>) {
        let classes = [class("high", 100, false, "Never"), class("low", 5, default, PREEMPT)];
        let mut spec = spec;
        spec["containers"] = json!([]);
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let got = admit(&mut pod, &classes).map(|()| {
            let s = pod.spec.unwrap();
            (s.priority_class_name.unwrap_or_default(), s.priority.unwrap(), s.preemption_policy.unwrap())
        });
        let expected = expected.map(|(n, v, p)| (n.to_owned(), v, p.to_owned())).map_err(str::to_owned);
        assert_eq!(got, expected, "{spec}");
    }

    #[test]
    fn the_class_gives_the_number() {
        check(json!({"priorityClassName": "high"}), false, Ok(("high", 100, "Never")));
        check(json!({}), false, Ok(("", 0, PREEMPT)));
        check(json!({}), true, Ok(("low", 5, PREEMPT)));
        check(json!({"priorityClassName": "high", "priority": 100}), false, Ok(("high", 100, "Never")));
        check(json!({"priorityClassName": "none"}), false, Err("no PriorityClass with name none was found"));
        check(
            json!({"priority": 7}),
            false,
            Err("the integer value of priority (7) must not be provided in pod spec; priority admission controller \
                 computed 0 from the given PriorityClass name"),
        );
        check(
            json!({"priorityClassName": "high", "preemptionPolicy": PREEMPT}),
            false,
            Err("the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; \
                 priority admission controller computed Never from the given PriorityClass name"),
        );
    }

    #[test]
    fn there_is_one_default() {
        let classes = [class("a", 1, true, PREEMPT)];
        assert_eq!(judge_class(&class("a", 2, true, PREEMPT), &classes), Ok(()));
        assert_eq!(judge_class(&class("b", 2, false, PREEMPT), &classes), Ok(()));
        let message = "PriorityClass a is already marked as default. Only one default can exist";
        assert_eq!(judge_class(&class("b", 2, true, PREEMPT), &classes), Err(message.into()));
    }
}
