//! Conversion between the served versions of a kind.
//!
//! Of the built-in kinds only the autoscaler has two stable versions in one group. The two forms of
//! events stand in different groups and are the API server's, which stores both as one.

mod horizontal_pod_autoscaler;
mod metrics;

use serde_json::Value;

/// Rewrites an object of one version as another version of the same kind; `None` where the pair is
/// not known. A kind with one version needs no call.
#[must_use]
pub fn convert(group: &str, from: &str, to: &str, kind: &str, obj: Value) -> Option<Value> {
    match (group, kind, from, to) {
        (_, _, from, to) if from == to => Some(obj),
        ("autoscaling", "HorizontalPodAutoscaler", "v1", "v2") => horizontal_pod_autoscaler::to_v2(obj),
        ("autoscaling", "HorizontalPodAutoscaler", "v2", "v1") => horizontal_pod_autoscaler::to_v1(obj),
        _ => None,
    }
}
