//! Which handlers of RuntimeClasses this node has: one runtime, under its own name and under `runc`,
//! which classes for plain containers commonly name.

use api::k8s_openapi::api::core::v1::Pod;
use api::k8s_openapi::api::node::v1::RuntimeClass;
use client::Cluster;

use crate::pod::PodExt as _;

pub(crate) const HANDLERS: [&str; 2] = ["coracle", "runc"];

/// The handler that the pod's class asks for.
pub(crate) fn handler(cluster: &Cluster, pod: &Pod) -> Option<String> {
    let name = pod.spec().runtime_class_name.as_deref().filter(|n| !n.is_empty())?;
    cluster.get::<RuntimeClass>("", name).ok().flatten().map(|class| class.handler)
}

/// Refuses a pod whose class is not there or asks for another runtime.
pub(crate) fn check(cluster: &Cluster, pod: &Pod) -> Result<(), String> {
    let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|n| !n.is_empty()) else { return Ok(()) };
    let class: RuntimeClass = cluster
        .get("", name)
        .map_err(|e| format!("failed to get sandbox runtime: {e}"))?
        .ok_or_else(|| format!("failed to get sandbox runtime: RuntimeClass {name:?} not found"))?;
    judge(&class.handler)
}

fn judge(handler: &str) -> Result<(), String> {
    if handler.is_empty() || HANDLERS.contains(&handler) {
        return Ok(());
    }
    Err(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_nodes_own_runtime_is_there() {
        for handler in ["", "runc", "coracle"] {
            assert_eq!(judge(handler), Ok(()));
        }
        let refused = "failed to get sandbox runtime: no runtime for \"kata\" is configured";
        assert_eq!(judge("kata"), Err(refused.to_owned()));
    }
}
