//! Which container of a pod a request means.

use k8s_openapi::api::core::v1::Pod;

use crate::error::ApiError;

/// The container that was named, or the only one.
pub(super) fn choose(pod: &Pod, named: &str) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = pod.spec.as_ref() else {
        return Err(ApiError::BadRequest(format!("a container name must be specified for pod {name}")));
    };
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| c.name.as_str())
        .chain(spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()));
    if !named.is_empty() {
        let known = all.into_iter().any(|c| c == named);
        return known
            .then(|| named.to_owned())
            .ok_or_else(|| ApiError::BadRequest(format!("container {named} is not valid for pod {name}")));
    }
    match spec.containers.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(ApiError::BadRequest(format!("a container name must be specified for pod {name}"))),
        [_, _, ..] => {
            let names: Vec<&str> = all.collect();
            Err(ApiError::BadRequest(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: &Value, named: &str, expected: Result<&str, &str>) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        let got = choose(&pod, named).map_err(|e| e.to_string());
        assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{spec} {named}");
    }

    #[test]
    fn a_container_is_named_or_the_only_one() {
        let one = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        check(&one, "", Ok("a"));
        check(&one, "i", Ok("i"));
        check(&one, "x", Err("container x is not valid for pod web"));
        check(&two, "", Err("a container name must be specified for pod web, choose one of: [i a b]"));
    }
}
