//! Which container of a pod a request means.

use serde::Deserialize;

use crate::error::ApiError;

/// What of a pod decides where a request goes; the rest of it, which may be large, is skipped.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Named,
    #[serde(default)]
    pub(super) spec: PodSpec,
}

api::decode!(Pod);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) node_name: String,
    init_containers: Vec<Named>,
    containers: Vec<Named>,
    ephemeral_containers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// The container that was named, or the only one.
pub(super) fn choose(pod: &Pod, named: &str) -> Result<String, ApiError> {
    let (name, spec) = (&pod.metadata.name, &pod.spec);
    let all = spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
    let mut all = all.map(|container| container.name.as_str());
    if !named.is_empty() {
        let known = all.any(|c| c == named);
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
