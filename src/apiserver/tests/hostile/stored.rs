//! Inputs that are small and work on much: on large objects that are stored, and on many of them.

use crate::inputs::{CONFIG_MAPS, CROWD, Input, JSON, LABELLED, PODS, input, many};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn heavy(name: &str, method: &'static str, path: &str, codes: &'static [u16], body: &'static str) -> Input {
    let content_type = if body.is_empty() { "" } else { JSON };
    Input { is_heavy: true, ..input(name, (method, path, content_type), codes, move || body.to_owned()) }
}

fn reads(name: &str, path: &str, accept: &'static str) -> Input {
    Input { accept, ..heavy(name, "GET", path, &[200], "") }
}

pub(crate) fn inputs() -> Vec<Input> {
    let (pod, map) = (format!("{PODS}/large"), format!("{CONFIG_MAPS}/large"));
    let crowd = format!("/api/v1/namespaces/{CROWD}/pods");
    let watch = |path: &str| format!("{path}?watch=1&timeoutSeconds=1");
    let levels = r#"{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}"#;
    let merge = Input {
        content_type: "application/merge-patch+json",
        ..heavy("stored: a level for 400 pods", "PATCH", &format!("/api/v1/namespaces/{CROWD}"), &[200], levels)
    };
    // Each object is asked for all of its labels, and none is selected.
    let selector = format!("{},zz", many(990, |i| format!("k{i}!=a")));
    let labelled = format!("/api/v1/namespaces/{LABELLED}/configmaps?labelSelector={selector}");
    vec![
        reads("stored: a list with a costly selector", &labelled, JSON),
        reads("stored: a watch with a costly selector", &format!("{labelled}&watch=1&timeoutSeconds=1"), JSON),
        heavy("stored: a large pod, deleted dry", "DELETE", &format!("{pod}?dryRun=All"), &[200], ""),
        heavy("stored: large maps, deleted dry", "DELETE", &format!("{CONFIG_MAPS}?dryRun=All"), &[200], ""),
        // One by one, so that others have their turn between them.
        input("stored: a crowd, deleted dry", ("DELETE", &format!("{crowd}?dryRun=All"), ""), &[200], String::new),
        heavy(
            "stored: a large pod, evicted dry",
            "POST",
            &format!("{pod}/eviction?dryRun=All"),
            &[201],
            r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"large"}}"#,
        ),
        heavy(
            "stored: a large pod, bound dry",
            "POST",
            "/api/v1/namespaces/default/bindings?dryRun=All",
            &[201],
            r#"{"metadata":{"name":"large"},"target":{"kind":"Node","name":"n"}}"#,
        ),
        merge,
        reads("stored: a watch of large maps as tables", &watch(CONFIG_MAPS), TABLE),
        reads("stored: a watch of large maps as metadata", &watch(CONFIG_MAPS), METADATA),
        reads("stored: a watch of large maps in protobuf", &watch(CONFIG_MAPS), PROTOBUF),
        reads("stored: a watch of a crowd as tables", &watch(&crowd), TABLE),
        reads("stored: a watch of a crowd in protobuf", &watch(&crowd), PROTOBUF),
        reads("stored: a crowd as a table", &crowd, TABLE),
        reads("stored: a crowd in protobuf", &crowd, PROTOBUF),
        reads("stored: a large map in protobuf", &map, PROTOBUF),
    ]
}
