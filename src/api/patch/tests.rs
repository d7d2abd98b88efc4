//! Vectors for each patch, and properties where a model exists.

#![expect(clippy::needless_pass_by_value, reason = "tables of json! values read better without references")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{TypeId, type_of};

fn json_patch(doc: Value, body: &[u8]) -> Result<Value, PatchError> {
    super::json_patch(doc, Patch::read(body)?)
}

fn merge_patch(doc: Value, body: &[u8]) -> Result<Value, PatchError> {
    super::merge_patch(doc, Patch::read(body)?)
}

fn strategic_merge_patch(doc: Value, body: &[u8], ty: TypeId) -> Result<Value, PatchError> {
    super::strategic_merge_patch(doc, Patch::read(body)?, ty)
}

#[track_caller]
fn check(kind: &str, doc: Value, patch: Value, expected: Value) {
    let group = if kind == "Deployment" { "apps" } else { "" };
    let ty = type_of(group, "v1", kind).unwrap();
    assert_eq!(strategic_merge_patch(doc.clone(), patch.to_string().as_bytes(), ty), Ok(expected));
}

#[track_caller]
fn pod(doc: Value, patch: Value, expected: Value) {
    check("Pod", json!({"spec": doc}), json!({"spec": patch}), json!({"spec": expected}));
}

#[track_caller]
fn refused(doc: Value, patch: Value) -> String {
    let ty = type_of("", "v1", "Pod").unwrap();
    strategic_merge_patch(json!({"spec": doc}), json!({"spec": patch}).to_string().as_bytes(), ty)
        .unwrap_err()
        .to_string()
}

#[test]
fn containers_merge_by_name_and_keep_what_the_patch_does_not_name() {
    pod(
        json!({"containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}]}),
        json!({"containers": [{"name": "b", "image": "b:2"}]}),
        json!({"containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:2"}]}),
    );
    pod(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Z", "value": "3"}, {"name": "X", "value": null}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Z", "value": "3"}, {"name": "X"}, {"name": "Y", "value": "2"}]}]}),
    );
}

#[test]
fn list_elements_are_deleted_and_lists_replaced_by_directive() {
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    pod(
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
        json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
        json!({"nodeSelector": {"c": "3"}}),
    );
    pod(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
        json!({"securityContext": {}}),
    );
}

#[test]
fn lists_without_a_merge_strategy_are_replaced() {
    pod(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
    pod(
        json!({"containers": [{"name": "a", "args": ["1", "2"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
    );
}

#[test]
fn volumes_and_strategies_retain_only_the_keys_they_name() {
    pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
    check(
        "Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    assert_eq!(
        refused(json!({}), json!({"securityContext": {"a": 1}, "$retainKeys": ["volumes"]})),
        "invalid patch format of retainKeys"
    );
}

#[test]
fn sets_of_primitives_are_joined_and_values_deleted() {
    let meta = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    check("Pod", meta(json!(["a", "b"])), meta(json!(["c", "a"])), meta(json!(["c", "a", "b"])));
    check(
        "Pod",
        meta(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["a", "c"]}}),
        meta(json!(["a", "c"])),
    );
    check(
        "Pod",
        json!({"metadata": {}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
        json!({"metadata": {}}),
    );
}

#[test]
fn the_order_that_the_patch_sets_is_kept_and_others_stay_in_place() {
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}, {"name": "c"}]}),
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "x"}]}),
        json!({"containers": [{"name": "server"}, {"name": "c"}, {"name": "b", "image": "x"}, {"name": "a"}]}),
    );
    let text = refused(
        json!({"containers": [{"name": "a"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
    );
    assert_eq!(text, "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n");
}

#[test]
fn elements_without_their_merge_key_are_refused() {
    assert_eq!(
        refused(json!({"containers": [{"name": "a"}]}), json!({"containers": [{"image": "x", "tty": true}]})),
        "map: map[image:x tty:true] does not contain declared merge key: name"
    );
    assert_eq!(
        refused(json!({"nodeSelector": {}}), json!({"nodeSelector": {"$patch": "oops"}})),
        "unknown patch type: oops in map: map[$patch:oops]"
    );
}

#[test]
fn nulls_remove_and_new_parts_come_without_directives() {
    pod(
        json!({"nodeName": "n", "nodeSelector": {"a": "1"}}),
        json!({"nodeName": null, "hostname": null, "nodeSelector": {"a": null, "b": "2"}, "volumes": [{"name": "v", "emptyDir": {"medium": null}}, {"name": "w", "$patch": "delete"}]}),
        json!({"nodeSelector": {"b": "2"}, "volumes": [{"name": "v", "emptyDir": {}}]}),
    );
}

#[test]
fn ports_merge_by_number() {
    check(
        "Service",
        json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "web"}], "selector": {"app": "x"}}}),
        json!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "name": "web"}, {"port": 443}], "selector": {"app": "x"}}}),
    );
}

#[track_caller]
fn check_json(doc: Value, patch: Value, expected: Result<Value, &str>) {
    let answer = json_patch(doc.clone(), patch.to_string().as_bytes()).map_err(|error| error.to_string());
    assert_eq!(answer, expected.map_err(str::to_owned));
}

#[test]
fn json_patches_apply() {
    check_json(
        json!({"a": {"b/c": 1}, "list": [1, 2]}),
        json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "replace", "path": "/a/b~1c", "value": 2},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "add", "path": "/list/0", "value": 0},
            {"op": "remove", "path": "/list/-1"},
            {"op": "move", "from": "/a", "path": "/z"},
            {"op": "copy", "from": "/z", "path": "/y"},
        ]),
        Ok(json!({"z": {"b/c": 2}, "y": {"b/c": 2}, "list": [0, 1, 2]})),
    );
}

#[test]
fn json_patches_that_do_not_apply_say_why() {
    let one = |op: Value| json!([op]);
    check_json(
        json!({}),
        one(json!({"op": "replace", "path": "/a", "value": 1})),
        Err("replace operation does not apply: doc is missing key: /a: missing value"),
    );
    check_json(
        json!({}),
        one(json!({"op": "remove", "path": "/a"})),
        Err("error in remove for path: '/a': Unable to remove nonexistent key: a: missing value"),
    );
    check_json(
        json!({}),
        one(json!({"op": "add", "path": "/a/b", "value": 1})),
        Err("add operation does not apply: doc is missing path: \"/a/b\": missing value"),
    );
    check_json(
        json!({"a": 1}),
        one(json!({"op": "test", "path": "/a", "value": 2})),
        Err("testing value /a failed: test failed"),
    );
    check_json(
        json!({"a": []}),
        one(json!({"op": "add", "path": "/a/2", "value": 2})),
        Err("error in add for path: '/a/2': Unable to access invalid index: 2: invalid index referenced"),
    );
    check_json(json!({}), one(json!({"op": "nope", "path": "/a"})), Err("Unexpected kind: nope"));
    check_json(json!({}), json!({}), Err("json: cannot unmarshal object into Go value of type jsonpatch.Patch"));
}

#[test]
fn json_patches_are_bounded() {
    let copy = json!({"op": "copy", "from": "/a", "path": "/a/x"});
    let text = json_patch(json!({"a": {"s": "x".repeat(1_000)}}), json!(vec![copy; 100]).to_string().as_bytes());
    assert!(text.unwrap_err().to_string().starts_with("Unable to complete the copy, the accumulated size increase"));
    let many = json!(vec![json!({"op": "test", "path": "/a"}); 10_001]);
    assert_eq!(
        json_patch(json!({}), many.to_string().as_bytes()),
        Err(PatchError::TooManyOperations { limit: 10_000, found: 10_001 })
    );
}

#[test]
fn merge_patches_apply_as_the_rfc_shows() {
    for (doc, patch, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": "foo"}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        assert_eq!(merge_patch(doc.clone(), patch.to_string().as_bytes()), Ok(expected));
    }
    assert_eq!(merge_patch(json!({}), b"[1]").unwrap_err().to_string(), "Invalid JSON Patch");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A merge patch that turns one value into another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|k| !to.contains_key(*k)).map(|k| (k.clone(), Value::Null));
    let changed = to
        .iter()
        .filter(|(k, v)| from.get(*k) != Some(*v))
        .map(|(k, v)| (k.clone(), from.get(k).map_or_else(|| v.clone(), |old| difference(old, v))));
    Value::Object(gone.chain(changed).collect())
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-c]", value(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn a_merge_patch_made_from_two_objects_turns_one_into_the_other(from in object(), to in object()) {
        let patch = difference(&from, &to);
        prop_assert_eq!(merge_patch(from.clone(), patch.to_string().as_bytes()), Ok(to));
    }

    /// The model: apply the same edits to a map by name, then compare regardless of order.
    #[test]
    fn container_lists_merge_like_maps_by_name(
        old in prop::collection::btree_map("[a-e]", 0..9_u8, 0..5),
        new in prop::collection::btree_map("[a-e]", prop::option::of(0..9_u8), 0..5),
    ) {
        let containers: Vec<Value> = old.iter().map(|(n, i)| json!({"name": n, "image": i.to_string()})).collect();
        let edits: Vec<Value> = new.iter().map(|(n, i)| match i {
            Some(i) => json!({"name": n, "image": i.to_string()}),
            None => json!({"name": n, "$patch": "delete"}),
        }).collect();
        let doc = json!({"spec": {"containers": containers}});
        let patch = json!({"spec": {"containers": edits}});
        let ty = type_of("", "v1", "Pod").unwrap();
        let answer = strategic_merge_patch(doc.clone(), patch.to_string().as_bytes(), ty).unwrap();
        let mut model: std::collections::BTreeMap<String, String> = old.iter().map(|(n, i)| (n.clone(), i.to_string())).collect();
        for (name, image) in &new {
            match image {
                Some(image) => model.insert(name.clone(), image.to_string()),
                None => model.remove(name),
            };
        }
        let found: std::collections::BTreeMap<String, String> = answer["spec"]["containers"].as_array().unwrap().iter()
            .map(|c| (c["name"].as_str().unwrap().to_owned(), c["image"].as_str().unwrap().to_owned())).collect();
        prop_assert_eq!(answer["spec"]["containers"].as_array().unwrap().len(), found.len());
        prop_assert_eq!(found, model);
    }

    #[test]
    fn no_patch_body_makes_a_patch_panic(doc in object(), patch in value()) {
        let body = patch.to_string();
        let ty = type_of("", "v1", "Pod").unwrap();
        let _ = strategic_merge_patch(doc.clone(), body.as_bytes(), ty);
        let _ = json_patch(doc.clone(), body.as_bytes());
        let _ = merge_patch(doc.clone(), body.as_bytes());
    }
}

#[test]
fn what_json_patches_shift_and_strategic_patches_merge_is_bounded() {
    let doc = json!({"x": vec![0; 20_000]});
    let shifts = |count: usize| json!(vec![json!({"op": "remove", "path": "/x/0"}); count]).to_string();
    assert!(json_patch(doc.clone(), shifts(400).as_bytes()).is_ok());
    let refused = json_patch(doc.clone(), shifts(600).as_bytes()).unwrap_err();
    assert_eq!(refused.to_string(), "the JSON patch moves more than 10000000 elements of lists");
    let last = json!(vec![json!({"op": "remove", "path": "/x/-1"}); 9_000]).to_string();
    assert!(json_patch(doc, last.as_bytes()).is_ok(), "the end of a list shifts nothing");
    let env: Vec<Value> = (0..2_000).map(|i| json!({"name": format!("v{i}")})).collect();
    let doc = json!({"spec": {"containers": [{"name": "c", "env": env}]}});
    let again = |count: usize| {
        let element = json!({"name": "c", "env": [{"name": "v0", "value": "x"}]});
        json!({"spec": {"containers": vec![element; count]}}).to_string()
    };
    let ty = type_of("", "v1", "Pod").unwrap();
    assert!(strategic_merge_patch(doc.clone(), again(100).as_bytes(), ty).is_ok());
    let refused = strategic_merge_patch(doc, again(300).as_bytes(), ty).unwrap_err();
    assert_eq!(refused.to_string(), "the patch merges more than 500000 elements of lists");
}

#[test]
fn of_the_fields_that_a_struct_does_not_have_no_more_are_merged_than_are_told() {
    let ty = type_of("", "v1", "Pod").unwrap();
    let members: serde_json::Map<String, Value> = (0..500).map(|i| (format!("u{i}"), json!(1))).collect();
    let mut patch = json!({"spec": members, "metadata": {"labels": members}});
    patch["spec"]["nodeName"] = json!("n");
    let merged = strategic_merge_patch(json!({"spec": {}}), patch.to_string().as_bytes(), ty).unwrap();
    assert_eq!(merged["spec"].as_object().map(serde_json::Map::len), Some(101));
    assert_eq!(merged["spec"]["nodeName"], "n");
    assert_eq!(merged["metadata"]["labels"].as_object().map(serde_json::Map::len), Some(500));
    let revision = type_of("apps", "v1", "ControllerRevision").unwrap();
    let free = json!({"data": members});
    assert_eq!(strategic_merge_patch(json!({"data": {}}), free.to_string().as_bytes(), revision), Ok(free));
    let told = |value| schema::check_value(value, ty).unwrap().issues;
    let mut whole = patch;
    whole["metadata"] = json!({});
    assert_eq!(told(json!({"metadata": {}, "spec": merged["spec"]})), told(whole));
}

#[test]
fn paths_are_not_copied_unless_they_are_escaped() {
    let find = |path: &'static str| json::unescape(path);
    assert!(matches!(find("a"), std::borrow::Cow::Borrowed("a")));
    assert_eq!(find("a~1b~0c~01"), "a/b~c~1");
}
