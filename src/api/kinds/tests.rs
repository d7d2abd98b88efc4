use serde_json::json;

use super::*;

#[test]
fn an_unknown_kind_has_its_metadata_checked() {
    let errs = rules("example.com", "Widget").validate(&json!({"metadata": {"namespace": "default"}}));
    assert_eq!(errs[0].to_string(), "metadata.name: Required value: name or generateName is required");
}
