//! DefaultTolerationSeconds: a pod stays on a node that is not ready or unreachable for five minutes,
//! unless it says otherwise.

use k8s_openapi::api::core::v1::{Pod, Toleration};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn admit(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    let tolerations = spec.tolerations.get_or_insert_default();
    let missing: Vec<&str> =
        TAINTS.into_iter().filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).collect();
    tolerations.extend(missing.into_iter().map(|taint| Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(SECONDS),
        value: None,
    }));
}

fn tolerates(toleration: &Toleration, taint: &str) -> bool {
    let empty_or = |value: Option<&str>, wanted: &str| value.is_none_or(|v| v.is_empty() || v == wanted);
    empty_or(toleration.key.as_deref(), taint) && empty_or(toleration.effect.as_deref(), "NoExecute")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(tolerations: &Value, expected: &[&str]) {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}}))
                .unwrap();
        admit(&mut pod);
        let got: Vec<String> = pod
            .spec
            .unwrap()
            .tolerations
            .unwrap()
            .into_iter()
            .map(|t| format!("{} {:?}", t.key.unwrap_or_default(), t.toleration_seconds))
            .collect();
        assert_eq!(got, expected, "{tolerations}");
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let (not_ready, unreachable) =
            ("node.kubernetes.io/not-ready Some(300)", "node.kubernetes.io/unreachable Some(300)");
        check(&json!(null), &[not_ready, unreachable]);
        check(&json!([{"operator": "Exists"}]), &[" None"]);
        check(
            &json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5}]),
            &["node.kubernetes.io/not-ready Some(5)", unreachable],
        );
        check(&json!([{"operator": "Exists", "effect": "NoSchedule"}]), &[" None", not_ready, unreachable]);
    }
}
