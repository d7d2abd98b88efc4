//! Messages written by hand, round trips of random objects, and hostile bytes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::generate::object_of;
use crate::schema::{built_in, check_value};

#[track_caller]
fn ty(group: &str, version: &str, kind: &str) -> TypeId {
    type_of(group, version, kind).unwrap()
}

/// An envelope around a message written by hand.
fn wrap(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    wire::put_bytes_field(&mut meta, 1, api_version.as_bytes());
    wire::put_bytes_field(&mut meta, 2, kind.as_bytes());
    let mut bytes = MAGIC.to_vec();
    wire::put_bytes_field(&mut bytes, 1, &meta);
    wire::put_bytes_field(&mut bytes, 2, message);
    bytes
}

#[test]
fn a_message_is_read_by_its_numbers() {
    // Pod { metadata { name: "a", creationTimestamp {} }, spec { volumes { name: "v", source { emptyDir {} } },
    // containers { name: "c", ports { hostPort: 0, containerPort: 80 } }, hostNetwork: false, priority: 0 } }
    let mut volume = Vec::new();
    wire::put_bytes_field(&mut volume, 1, b"v");
    wire::put_bytes_field(&mut volume, 2, &[0x12, 0]);
    let mut container = Vec::new();
    wire::put_bytes_field(&mut container, 1, b"c");
    wire::put_bytes_field(&mut container, 6, &[0x10, 0, 0x18, 80]);
    let mut spec = Vec::new();
    wire::put_bytes_field(&mut spec, 1, &volume);
    wire::put_bytes_field(&mut spec, 2, &container);
    wire::put_varint_field(&mut spec, 11, 0);
    wire::put_varint_field(&mut spec, 25, 0);
    let mut pod = Vec::new();
    wire::put_bytes_field(&mut pod, 1, &[0x0a, 1, b'a', 0x42, 0]);
    wire::put_bytes_field(&mut pod, 2, &spec);
    let (meta, value) = decode(&wrap("v1", "Pod", &pod)).unwrap();
    assert_eq!(meta, TypeMeta { api_version: "v1".into(), kind: "Pod".into() });
    assert_eq!(
        value,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {
                "priority": 0,
                "containers": [{"name": "c", "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        })
    );
}

#[track_caller]
fn round_trip(group: &str, version: &str, kind: &str, value: &Value) -> Vec<u8> {
    let ty = ty(group, version, kind);
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let bytes = encode(value, ty, &api_version, kind).unwrap();
    let (_, mut back) = decode(&bytes).unwrap();
    let mut expected = check_value(value.clone(), ty).unwrap().value;
    for object in [&mut back, &mut expected] {
        object.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    }
    assert_eq!(back, expected, "{kind}");
    bytes
}

#[test]
fn every_special_form_comes_back() {
    round_trip(
        "",
        "v1",
        "Service",
        &json!({"spec": {"ports": [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8080}]}}),
    );
    round_trip("", "v1", "Secret", &json!({"data": {"a": "AAEC", "b": ""}, "type": "Opaque"}));
    round_trip(
        "coordination.k8s.io",
        "v1",
        "Lease",
        &json!({"metadata": {"creationTimestamp": "2024-05-06T07:08:09Z"}, "spec": {"renewTime": "2024-05-06T07:08:09.012345Z"}}),
    );
    round_trip(
        "",
        "v1",
        "ConfigMap",
        &json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:data": {".": {}}}}]}}),
    );
    round_trip("apps", "v1", "ControllerRevision", &json!({"revision": -3, "data": {"spec": {"a": [1, null]}}}));
    round_trip(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        &json!({"spec": {"user": "u", "extra": {"scopes": ["a", "b"], "none": []}}, "status": {"allowed": false}}),
    );
    round_trip(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        &json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "maximum": 1.5, "minimum": 2, "default": {"a": 1}, "additionalProperties": true,
            "properties": {"a": {"items": {"type": "string"}, "enum": ["x", 1, null]}},
        }}}]}}),
    );
    round_trip(
        "meta.k8s.io",
        "v1",
        "DeleteOptions",
        &json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground"}),
    );
}

#[test]
fn nothing_is_lost_of_inlined_structs_of_two_levels() {
    round_trip(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        &json!({"spec": {"matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resourceNames": ["x"], "resources": ["pods"],
        }]}}}),
    );
}

#[test]
fn hostile_input_is_refused() {
    assert_eq!(decode(b"{}"), Err(Error::NoMagic));
    let malformed = |message: &[u8], text: &str| {
        assert_eq!(decode(&wrap("v1", "Pod", message)), Err(Error::Malformed(text.to_owned())));
    };
    malformed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "unexpected EOF");
    malformed(&[0x0a, 5, 0], "unexpected EOF");
    malformed(&[0x0b], "illegal wireType 3");
    malformed(&[0x08, 1], "wrong wireType");
    malformed(&[0x80; 11], "integer overflow");
    malformed(&[0x0a, 3, 0x0a, 1, 0xff], "string field contains invalid UTF-8");
    let unknown = Error::UnknownKind { api_version: "v9".into(), kind: "Pod".into() };
    assert_eq!(decode(&wrap("v9", "Pod", &[])), Err(unknown));
}

#[test]
fn depth_is_bounded_through_lists_in_lists() {
    let mut list = wrap("v1", "List", &[]);
    for _ in 0..=MAX_DEPTH {
        let mut raw = Vec::new();
        wire::put_bytes_field(&mut raw, 1, &list);
        let mut message = Vec::new();
        wire::put_bytes_field(&mut message, 2, &raw);
        list = wrap("v1", "List", &message);
    }
    assert_eq!(decode(&list), Err(Error::Depth));
}

#[test]
fn kinds_without_numbers_are_not_supported() {
    let table = ty("meta.k8s.io", "v1", "Table");
    assert!(!supports(table));
    assert!(matches!(encode(&json!({}), table, "meta.k8s.io/v1", "Table"), Err(Error::Unsupported(_))));
    for (group, version, kind, ty) in built_in().kinds() {
        assert!(supports(ty) || kind == "Table", "{group}/{version} {kind}");
    }
}

#[test]
fn a_watch_frame_has_its_length_first() {
    assert_eq!(
        watch_frame("ADDED", b"xy"),
        [&[0, 0, 0, 13, 0x0a, 5], b"ADDED".as_slice(), &[0x12, 4, 0x0a, 2], b"xy"].concat()
    );
}

#[test]
fn a_list_from_its_items_is_the_list_as_a_whole() {
    let list = ty("", "v1", "ConfigMapList");
    let metadata = json!({"resourceVersion": "7", "continue": "x".repeat(200)});
    for count in [0, 1, 3] {
        let items: Vec<Value> = (0..count)
            .map(|i| json!({"metadata": {"name": format!("c{i}")}, "data": {"k": "v".repeat(i * 9_000)}}))
            .collect();
        let whole = json!({"metadata": metadata, "items": items});
        let piecewise =
            encode_list(list, ("v1", "ConfigMapList"), metadata.clone(), items.into_iter().map(Ok::<_, Error>));
        assert_eq!(piecewise, encode(&whole, list, "v1", "ConfigMapList"));
    }
    let broken = std::iter::once(Err(Error::Depth));
    assert_eq!(encode_list(list, ("v1", "ConfigMapList"), json!({}), broken), Err(Error::Depth));
    let single = ty("", "v1", "ConfigMap");
    let none = std::iter::empty::<Result<Value, Error>>();
    assert!(matches!(encode_list(single, ("v1", "ConfigMap"), json!({}), none), Err(Error::Unsupported(_))));
}

fn kinds() -> impl Strategy<Value = (&'static str, &'static str, &'static str, TypeId)> {
    let all: Vec<_> = built_in().kinds().filter(|(group, _, _, ty)| *group != "*" && supports(*ty)).collect();
    prop::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn objects_of_every_kind_come_back(
        (kind, value) in kinds().prop_flat_map(|kind| (Just(kind), object_of(kind.3))),
    ) {
        round_trip(kind.0, kind.1, kind.2, &value);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in kinds()) {
        let _ = decode_as(&[&MAGIC[..], &bytes].concat(), kind.3);
        let api_version = format!("{}/{}", kind.0, kind.1);
        let _ = decode(&wrap(api_version.trim_start_matches('/'), kind.2, &bytes));
    }

    #[test]
    fn damaged_objects_do_not_make_the_decoder_panic(
        (kind, value) in kinds().prop_flat_map(|kind| (Just(kind), object_of(kind.3))),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&value, kind.3, "v1", kind.2).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len() - 4) + 4;
            bytes[at] = byte;
        }
        let _ = decode_as(&bytes, kind.3);
    }
}
