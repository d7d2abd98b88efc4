//! Fields of the pod and resources of its containers as text: what `fieldRef` and
//! `resourceFieldRef` give to variables and to downward API volumes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use thiserror::Error;

use crate::pod::PodExt;
use crate::resources;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
    #[error("container {0} not found")]
    NoContainer(String),
}

/// What the node adds to the pod's own fields.
#[derive(Clone, Debug)]
pub(crate) struct FieldContext<'a> {
    pub(crate) host_ips: &'a [IpAddr],
    pub(crate) pod_ips: &'a [IpAddr],
    /// Stands in for limits that a container does not have.
    pub(crate) allocatable: resources::Allocatable,
}

impl FieldContext<'_> {
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            host_ips: &[],
            pod_ips: &[],
            allocatable: resources::Allocatable {
                cpu_milli: 4000,
                memory: 8 << 30,
                ..resources::Allocatable::default()
            },
        }
    }
}

/// A field as an environment variable may name it.
pub(crate) fn env_field(pod: &Pod, path: &str, cx: &FieldContext<'_>) -> Result<String, FieldError> {
    let joined = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    match path {
        "spec.nodeName" => Ok(pod.spec().node_name.clone().unwrap_or_default()),
        "spec.serviceAccountName" => Ok(pod.spec().service_account_name.clone().unwrap_or_default()),
        "status.hostIP" => Ok(first(cx.host_ips)),
        "status.hostIPs" => Ok(joined(cx.host_ips)),
        "status.podIP" => Ok(first(cx.pod_ips)),
        "status.podIPs" => Ok(joined(cx.pod_ips)),
        _ => metadata_field(pod, path),
    }
}

/// A metadata field, as a downward API volume may name it.
pub(crate) fn metadata_field(pod: &Pod, path: &str) -> Result<String, FieldError> {
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.annotations" => &pod.metadata.annotations,
            "metadata.labels" => &pod.metadata.labels,
            _ => return Err(FieldError::UnsupportedField(path.to_owned())),
        };
        return Ok(entries.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Ok(pod.name().to_owned()),
        "metadata.namespace" => Ok(pod.namespace().to_owned()),
        "metadata.uid" => Ok(pod.uid().to_owned()),
        "metadata.labels" => Ok(format_map(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Ok(format_map(pod.metadata.annotations.as_ref())),
        _ => Err(FieldError::UnsupportedField(path.to_owned())),
    }
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, values quoted as Go's `%q` does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v))).collect::<Vec<_>>().join("\n")
}

/// Go's `%q` of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A container's request or limit divided by the selector's divisor, rounded up; a limit that is
/// not set is the node's allocatable, and a request that is not set is zero.
pub(crate) fn resource_field(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    cx: &FieldContext<'_>,
) -> Result<String, FieldError> {
    let named;
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => {
            named = pod.container(name).ok_or_else(|| FieldError::NoContainer(name.to_owned()))?.1;
            &*named
        }
        None => own.ok_or_else(|| FieldError::NoContainer(String::new()))?,
    };
    let (kind, resource) =
        selector.resource.split_once('.').ok_or_else(|| FieldError::UnsupportedResource(selector.resource.clone()))?;
    let requirements = container.resources.as_ref();
    let list = match kind {
        "limits" => requirements.and_then(|r| r.limits.as_ref()),
        "requests" => requirements.and_then(|r| r.requests.as_ref()),
        _ => return Err(FieldError::UnsupportedResource(selector.resource.clone())),
    };
    let set = list.and_then(|l| l.get(resource)).map(resources::milli).filter(|&m| m != 0);
    let default = if kind == "limits" { cx.allocatable.milli(resource) } else { Some(0) };
    let supported = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    let milli = set.or(default).filter(|_| supported);
    let Some(milli) = milli else { return Err(FieldError::UnsupportedResource(selector.resource.clone())) };
    let divisor = selector.divisor.as_ref().map(resources::milli).filter(|&d| d > 0).unwrap_or(1000);
    Ok((milli.div_euclid(divisor) + i128::from(milli.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1",
                "labels": {"b": "2", "a": "say \"hi\""}, "annotations": {"k/x": "line\nbreak"}},
            "spec": {"containers": [
                {"name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn metadata_fields() {
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"say \\\"hi\\\"\"\nb=\"2\"")),
            ("metadata.annotations", Ok("k/x=\"line\\nbreak\"")),
            ("metadata.annotations['k/x']", Ok("line\nbreak")),
            ("metadata.labels['none']", Ok("")),
            ("spec.x", Err(FieldError::UnsupportedField("spec.x".to_owned()))),
        ] {
            assert_eq!(metadata_field(&pod(), path), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resource_fields_divide_and_default_to_the_node() {
        for (resource, divisor, expected) in [
            ("limits.memory", Some("1Mi"), "64"),
            ("limits.memory", None, "67108864"),
            ("requests.cpu", None, "1"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.cpu", None, "4"),
            ("limits.cpu", Some("1m"), "4000"),
            ("requests.memory", None, "0"),
        ] {
            let mut selector = json!({"resource": resource, "containerName": "c"});
            if let Some(d) = divisor {
                selector["divisor"] = json!(d);
            }
            let selector = serde_json::from_value(selector).unwrap();
            let got = resource_field(&pod(), None, &selector, &FieldContext::for_tests());
            assert_eq!(got, Ok(expected.to_owned()), "{resource} {divisor:?}");
        }
    }
}
