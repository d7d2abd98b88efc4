//! The table as committed, and the decoder against what upstream's decoder answers.

#![expect(clippy::needless_pass_by_value, reason = "tables of json! values read better without references")]

use serde_json::{Value, json};

use super::*;

#[track_caller]
fn ty(kind: &str) -> TypeId {
    ["", "apps"].iter().find_map(|group| type_of(group, "v1", kind)).unwrap()
}

#[test]
fn the_table_knows_kinds_fields_and_merge_keys() {
    let container = built_in().get(built_in().type_named("io.k8s.api.core.v1.Container").unwrap());
    let ports = container.field("ports").unwrap();
    assert_eq!(ports.list_type(), ListType::Map);
    assert_eq!(ports.list_map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key(), Some("containerPort"));
    assert_eq!(ports.numbers(), [6, 0, 0]);
    assert!(container.field("name").unwrap().required());
    assert_eq!(type_of("apps", "v1", "Deployment").map(|t| describe(t).name()), Some("io.k8s.api.apps.v1.Deployment"));
    assert_eq!(type_of("apps", "v1", "DeleteOptions"), type_of("", "v1", "DeleteOptions"));
    assert_eq!(type_of("", "v1", "Deployment"), None);
}

#[test]
fn types_and_fields_stand_sorted_so_that_they_can_be_searched() {
    let table = built_in();
    for (index, entry) in table.types.iter().enumerate() {
        let id = table.type_named(table.str(entry.name)).unwrap();
        assert_eq!(usize::from(id.0), index);
        let ty = table.get(id);
        for field in ty.fields() {
            assert_eq!(ty.field(field.name()).map(FieldRef::name), Some(field.name()), "{}", ty.name());
        }
    }
}

#[track_caller]
fn decoded(kind: &str, body: &str) -> Decoded {
    decode_json(body.as_bytes(), ty(kind)).unwrap()
}

#[track_caller]
fn check_issues(kind: &str, body: &str, expected: &[&str]) {
    let issues: Vec<String> = decoded(kind, body).issues.iter().map(ToString::to_string).collect();
    assert_eq!(issues, expected);
}

#[test]
fn unknown_and_duplicate_fields_are_named_by_their_path() {
    check_issues(
        "Pod",
        r#"{"spec":{"containers":[{"name":"a","imagee":"x"}],"foo":{"a":1}},"bar":1}"#,
        &["unknown field \"spec.containers[0].imagee\"", "unknown field \"spec.foo\"", "unknown field \"bar\""],
    );
    check_issues(
        "Pod",
        r#"{"metadata":{"name":"a","labels":{"x":"1","x":"2"},"name":"b"}}"#,
        &["duplicate field \"metadata.labels.x\"", "duplicate field \"metadata.name\""],
    );
    check_issues(
        "Deployment",
        r#"{"spec":{"x":1,"x":2}}"#,
        &["unknown field \"spec.x\"", "duplicate field \"spec.x\""],
    );
    check_issues("Pod", r#"{"Spec":{}}"#, &["unknown field \"Spec\""]);
}

#[test]
fn unknown_fields_are_pruned_and_the_last_duplicate_wins() {
    let answer = decoded("Pod", r#"{"metadata":{"name":"a","name":"b","x":[{}]}}"#);
    assert_eq!(answer.value, json!({"metadata": {"name": "b"}}));
}

#[track_caller]
fn check_error(kind: &str, body: &str, expected: &str) {
    assert_eq!(decode_json(body.as_bytes(), ty(kind)).unwrap_err().to_string(), expected);
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let into = |found: &str, field: &str, of: &str| {
        format!("json: cannot unmarshal {found} into Go struct field {field} of type {of}")
    };
    check_error("Deployment", r#"{"spec":{"replicas":"3"}}"#, &into("string", "DeploymentSpec.spec.replicas", "int32"));
    check_error(
        "Deployment",
        r#"{"spec":{"replicas":1.5}}"#,
        &into("number 1.5", "DeploymentSpec.spec.replicas", "int32"),
    );
    check_error(
        "Deployment",
        r#"{"spec":{"replicas":3000000000}}"#,
        &into("number 3000000000", "DeploymentSpec.spec.replicas", "int32"),
    );
    check_error(
        "Pod",
        r#"{"spec":{"containers":{"name":"a"}}}"#,
        &into("object", "PodSpec.spec.containers", "[]v1.Container"),
    );
    check_error(
        "Pod",
        r#"{"spec":{"containers":[{"env":[{"value":1}],"command":"x"}]}}"#,
        &into("number", "EnvVar.spec.containers.env.value", "string"),
    );
    check_error("Pod", r#"{"metadata":{"labels":{"a":true}}}"#, &into("bool", "ObjectMeta.metadata.labels", "string"));
    check_error(
        "Pod",
        r#"{"spec":{"restartPolicy":1}}"#,
        &into("number", "PodSpec.spec.restartPolicy", "v1.RestartPolicy"),
    );
    check_error("Pod", r#"{"spec":[]}"#, &into("array", "Pod.spec", "v1.PodSpec"));
    check_error("Pod", "[1]", "json: cannot unmarshal array into Go value of type v1.Pod");
}

#[test]
fn base64_is_read_as_leniently_as_go_reads_it() {
    let ty = type_of("", "v1", "Secret").unwrap();
    let decoded = decode_json(br#"{"data":{"a":"dGhp\ncx==","b":"dGhpcw=="}}"#, ty).unwrap();
    assert_eq!(decoded.value["data"], serde_json::json!({"a": "dGhpcw==", "b": "dGhpcw=="}));
}

#[test]
fn values_with_a_syntax_of_their_own_are_checked() {
    check_error(
        "Pod",
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"one"}}}]}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check_error("Secret", r#"{"data":{"a":"%%"}}"#, "illegal base64 data at input byte 0");
    check_error(
        "Pod",
        r#"{"metadata":{"creationTimestamp":5}}"#,
        "json: cannot unmarshal number into Go value of type string",
    );
    check_error(
        "Service",
        r#"{"spec":{"ports":[{"targetPort":true}]}}"#,
        "json: cannot unmarshal bool into Go value of type int32",
    );
}

#[test]
fn broken_json_is_told_as_go_tells_it() {
    check_error("Pod", "", "unexpected end of JSON input");
    check_error("Pod", r#"{"a":"#, "unexpected end of JSON input");
    check_error("Pod", "nope", "invalid character 'o' in literal null (expecting 'u')");
    check_error("Pod", r#"{"a" 1}"#, "invalid character '1' after object key");
    check_error("Pod", r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair");
    check_error("Pod", r"{a:1}", "invalid character 'a' looking for beginning of object key string");
    check_error("Pod", r#"{"spec":[1,]}"#, "invalid character ']' looking for beginning of value");
    check_error("Pod", "{} x", "invalid character 'x' after top-level value");
}

#[track_caller]
fn check_value_of(kind: &str, body: Value, expected: Value) {
    assert_eq!(decoded(kind, &body.to_string()).value, expected);
}

#[test]
fn null_and_what_go_omits_when_empty_are_absent() {
    check_value_of(
        "Pod",
        json!({"spec": {"nodeName": "", "hostNetwork": false, "containers": [], "volumes": [], "priority": 0, "tolerations": null}}),
        json!({"spec": {"containers": [], "priority": 0}}),
    );
    check_value_of("Pod", json!(null), json!({}));
    check_value_of("Deployment", json!({"spec": {"replicas": 0, "paused": false}}), json!({"spec": {"replicas": 0}}));
    check_value_of(
        "Pod",
        json!({"metadata": {"labels": {"a": null}, "annotations": {}}}),
        json!({"metadata": {"labels": {"a": ""}}}),
    );
}

#[test]
fn quantities_and_times_become_canonical() {
    check_value_of(
        "Pod",
        json!({"metadata": {"creationTimestamp": "2024-01-01T02:00:00+02:00"}, "spec": {"overhead": {"cpu": 0.5, "memory": "1024Mi"}}}),
        json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"overhead": {"cpu": "500m", "memory": "1Gi"}}}),
    );
}

#[test]
fn a_condition_without_its_time_has_gos_zero_time() {
    for time in [json!(null), json!("0001-01-01T00:00:00Z")] {
        let condition =
            json!({"type": "a", "status": "True", "lastTransitionTime": time, "reason": "r", "message": ""});
        let body = json!({"status": {"conditions": [condition]}}).to_string();
        let service = decoded("Service", &body).value;
        assert_eq!(service["status"]["conditions"][0]["lastTransitionTime"], json!("0001-01-01T00:00:00Z"));
        let typed: k8s_openapi::api::core::v1::Service = serde_json::from_value(service).unwrap();
        assert_eq!(typed.status.unwrap().conditions.unwrap()[0].last_transition_time.0.as_second(), -62_135_596_800);
    }
}

#[test]
fn canonical_objects_have_what_go_always_writes() {
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": ""}]}});
    canonicalize(&mut pod, ty("Pod"));
    assert_eq!(
        pod,
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}})
    );
    let mut service = json!({});
    canonicalize(&mut service, ty("Service"));
    assert_eq!(service, json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}));
}

#[test]
fn yaml_is_decoded_as_its_json_form() {
    let body =
        b"metadata:\n  name: a\n  labels: {1: '2', 1: '3'}\nspec:\n  replicas: 2.0\n  template: &t {}\n  nope: *t\n";
    let answer = decode_yaml(body, ty("Deployment")).unwrap();
    assert_eq!(answer.value["spec"]["replicas"], json!(2));
    assert_eq!(answer.value["metadata"]["labels"], json!({"1": "3"}));
    let issues: Vec<String> = answer.issues.iter().map(ToString::to_string).collect();
    assert_eq!(issues, ["duplicate field \"metadata.labels.1\"", "unknown field \"spec.nope\""]);
}

#[test]
fn schemas_of_schemas_are_decoded() {
    let crd = type_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let schema = json!({"type": "object", "additionalProperties": {"type": "string"}, "default": {"a": null},
        "properties": {"a": {"items": {"type": "integer", "oops": 1}, "additionalProperties": false}}});
    let body = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    let answer = decode_json(body.to_string().as_bytes(), crd).unwrap();
    assert_eq!(
        answer.issues,
        [FieldIssue::Unknown { path: "spec.versions[0].schema.openAPIV3Schema.properties.a.items.oops".into() }]
    );
    let schema = &answer.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(schema["default"], json!({"a": null}));
    assert_eq!(schema["properties"]["a"]["additionalProperties"], json!(false));
}

#[test]
fn a_dense_schema_of_the_stores_limit_fits_and_what_is_made_to_cost_does_not() {
    const STORED: usize = 1536 * 1024;
    let crd = type_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let body = |schema: &str| {
        format!("{{\"spec\":{{\"versions\":[{{\"name\":\"v1\",\"schema\":{{\"openAPIV3Schema\":{{{schema}}}}}}}]}}}}")
    };
    let filled = |one: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for i in 0.. {
            let next = one(i);
            if text.len() + next.len() > STORED - 1_000 {
                break;
            }
            text.push_str(if i == 0 { "" } else { "," });
            text.push_str(&next);
        }
        text
    };
    let properties = filled(&|i| format!("\"p{i}\":{{\"type\":\"string\"}}"));
    let answer = decode_json(body(&format!("\"properties\":{{{properties}}}")).as_bytes(), crd).unwrap();
    let schema = &answer.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(schema["properties"]["p50000"], json!({"type": "string"}));
    let hostile = filled(&|_| "{\"not\":{}}".to_owned());
    let refused = decode_json(body(&format!("\"allOf\":[{hostile}]")).as_bytes(), crd).unwrap_err();
    assert!(matches!(refused, DecodeError::TooLarge { limit, .. } if limit == 64 << 20), "{refused}");
}

#[test]
fn nesting_is_bounded() {
    let mut deep = json!({});
    for _ in 0..400 {
        deep = json!({"not": deep});
    }
    let props =
        built_in().type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    assert_eq!(check_value(deep.clone(), props), Err(DecodeError::Depth));
    assert_eq!(decode_json(deep.to_string().as_bytes(), props), Err(DecodeError::Depth));
}

/// Controllers decode what was stored: the nulls and empty structs that Go writes must not stop them.
#[test]
fn typed_structs_read_canonical_objects() {
    fn check<K: k8s_openapi::Resource + serde::de::DeserializeOwned>(sparse: &Value) {
        let mut object = sparse.clone();
        canonicalize(&mut object, type_of(K::GROUP, K::VERSION, K::KIND).unwrap());
        object["apiVersion"] = K::API_VERSION.into();
        object["kind"] = K::KIND.into();
        let read: Result<K, _> = serde_json::from_value(object.clone());
        assert!(read.is_ok(), "{}: {:?} in {object}", K::KIND, read.err());
    }
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, rbac::v1 as rbac};
    let empty = json!({});
    check::<core::Node>(&json!({"status": {"conditions": [{"type": "Ready"}]}}));
    check::<core::Pod>(&json!({"status": {"conditions": [{"type": "Ready"}], "containerStatuses": [{}]}}));
    check::<core::Service>(&empty);
    check::<core::Event>(&empty);
    check::<core::Endpoints>(&json!({"subsets": [{"addresses": [{}]}]}));
    check::<core::PersistentVolume>(&empty);
    check::<core::PersistentVolumeClaim>(&empty);
    check::<core::ReplicationController>(&json!({"spec": {"template": {}}}));
    check::<apps::Deployment>(&empty);
    check::<apps::StatefulSet>(&empty);
    check::<apps::DaemonSet>(&empty);
    check::<apps::ReplicaSet>(&empty);
    check::<apps::ControllerRevision>(&empty);
    check::<batch::Job>(&json!({"status": {"conditions": [{}]}}));
    check::<batch::CronJob>(&empty);
    check::<rbac::ClusterRole>(&empty);
    check::<rbac::RoleBinding>(&empty);
    check::<k8s_openapi::api::discovery::v1::EndpointSlice>(&json!({"endpoints": [{}], "ports": null}));
    check::<k8s_openapi::api::networking::v1::Ingress>(&json!({"spec": {"rules": [{"http": {}}]}}));
    check::<k8s_openapi::api::networking::v1::NetworkPolicy>(&empty);
    check::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(&empty);
    check::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(&empty);
    check::<k8s_openapi::api::storage::v1::StorageClass>(&empty);
    check::<k8s_openapi::api::storage::v1::CSINode>(&json!({"spec": {"drivers": [{}]}}));
    check::<k8s_openapi::api::coordination::v1::Lease>(&empty);
    check::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>(&empty);
    check::<k8s_openapi::api::events::v1::Event>(&empty);
    check::<k8s_openapi::api::authorization::v1::SelfSubjectRulesReview>(&json!({"status": {}}));
}

/// Each takes some 270 bytes in the tree and in the struct, and a request holds both twice.
#[test]
fn a_map_of_tiny_keys_is_read_as_far_as_it_fits_into_the_memory_of_a_request() {
    let body = |count: usize| {
        let members: Vec<String> = (0..count).map(|i| format!(r#""k{i}":"""#)).collect();
        format!(r#"{{"data":{{{}}}}}"#, members.join(","))
    };
    assert!(decode_json(body(80_000).as_bytes(), ty("ConfigMap")).is_ok());
    let refused = decode_json(body(170_000).as_bytes(), ty("ConfigMap")).unwrap_err();
    assert!(matches!(refused, DecodeError::TooLarge { .. }), "{refused:?}");
}

#[test]
fn a_body_that_decodes_to_too_much_is_refused_where_it_passes_the_limit() {
    let body = |list: &str| format!(r#"{{"spec":{{"containers":[{list}]}}}}"#);
    let refused = |body: &str| decode_json(body.as_bytes(), ty("Pod")).unwrap_err();
    let many = body(&vec!["{}"; 30_000].join(","));
    let DecodeError::TooLarge { limit, place } = refused(&many) else { panic!("not refused by its size") };
    assert_eq!(limit, 16 << 20);
    assert!(place.starts_with("spec.containers["), "{place}");
    let nulls = body(&vec!["null"; 30_000].join(","));
    assert!(matches!(refused(&nulls), DecodeError::TooLarge { .. }));
    let key = "k".repeat(2 << 20);
    let many =
        format!(r#"{{"metadata":{{"labels":{{"{key}":{{"a":1}},"a":"{key}","b":"{key}","c":"{key}","d":"{key}"}}}}}}"#);
    let DecodeError::TooLarge { place, .. } = refused(&many) else { panic!("not refused by its size") };
    assert_eq!(place, "metadata.labels.c");
    let pods =
        vec![r#"{"name":"a","image":"b","env":[{"name":"c","value":"d"}],"ports":[{"containerPort":1}]}"#; 1_000];
    assert!(decode_json(body(&pods.join(",")).as_bytes(), ty("Pod")).is_ok());
}
