//! Conversion between the served versions of a kind.

use serde_json::Value;

/// Rewrites an object of one version as another version of the same kind; `None` where the pair is
/// not known. A kind with one version needs no call.
#[must_use]
pub fn convert(_group: &str, from: &str, to: &str, _kind: &str, obj: Value) -> Option<Value> {
    (from == to).then_some(obj)
}
