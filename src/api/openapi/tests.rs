//! What kubectl reads of the documents, and that they are whole.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn rows() -> Vec<ResourceDoc<'static>> {
    let part =
        |group, name, version, kind, verbs, connect| SubresourceDoc { name, group, version, kind, verbs, connect };
    let edit: &[&str] = &["get", "patch", "update"];
    let resource = |group, kind, plural, namespaced, verbs, subresources| ResourceDoc {
        group,
        version: "v1",
        kind,
        plural,
        namespaced,
        verbs,
        subresources,
    };
    vec![
        resource(
            "",
            "Pod",
            "pods",
            true,
            ALL,
            vec![
                part("", "exec", "v1", "PodExecOptions", &["create", "get"][..], true),
                part("", "proxy", "v1", "PodProxyOptions", &["get"], true),
                part("", "log", "v1", "Pod", &["get"], false),
                part("policy", "eviction", "v1", "Eviction", &["create"], false),
            ],
        ),
        resource("", "Node", "nodes", false, ALL, vec![part("", "status", "v1", "Node", edit, false)]),
        resource(
            "apps",
            "Deployment",
            "deployments",
            true,
            ALL,
            vec![part("autoscaling", "scale", "v1", "Scale", edit, false)],
        ),
        resource("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", false, ALL, vec![]),
        resource("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", false, &["create"], vec![]),
    ]
}

fn v3(group: &str) -> Value {
    let rows: Vec<_> = rows().into_iter().filter(|row| row.group == group).collect();
    serde_json::from_slice(&v3_document(group, "v1", "v1.36.0", &rows)).unwrap()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_of_a_document_is_in_it() {
    for row in rows() {
        let document = v3(row.group);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
    let document: Value = serde_json::from_slice(&v2_document("v1.36.0", &rows())).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        assert!(document["definitions"][reference.strip_prefix("#/definitions/").unwrap()].is_object(), "{reference}");
    }
}

#[test]
fn schemas_have_what_kubectl_reads() {
    let document = v3("apps");
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(deployment["description"], "Deployment enables declarative updates for Pods and ReplicaSets.");
    let reference = json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}]);
    assert_eq!(deployment["properties"]["spec"]["allOf"], reference);
    assert_eq!(deployment["properties"]["spec"]["default"], json!({}));
    assert!(deployment["properties"]["spec"]["description"].is_string());
    let mut containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"].clone();
    assert!(containers["description"].take().is_string());
    assert_eq!(
        containers,
        json!({
            "description": null,
            "type": "array",
            "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}], "default": {}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
        })
    );
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"], "TCP");
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"].is_object());
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.Patch"]["type"], "object");
}

#[test]
fn paths_carry_kinds_actions_and_the_parameters_that_kubectl_looks_for() {
    let document = v3("apps");
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(item["patch"]["x-kubernetes-action"], "patch");
    let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(item["patch"]["x-kubernetes-group-version-kind"], gvk);
    let names: Vec<&str> =
        item["patch"]["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/apis/apps/v1/",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/namespaces/{namespace}/deployments",
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
            "/apis/apps/v1/watch/deployments",
            "/apis/apps/v1/watch/namespaces/{namespace}/deployments",
            "/apis/apps/v1/watch/namespaces/{namespace}/deployments/{name}",
        ]
    );
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["operationId"], "readAppsV1NamespacedDeploymentScale");
    assert_eq!(scale["x-kubernetes-group-version-kind"]["group"], "autoscaling");
}

#[test]
fn subresources_that_connect_have_their_methods_and_paths() {
    let core = v3("");
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    assert_eq!(core["paths"][format!("{pod}/exec")]["post"]["operationId"], "connectCoreV1PostNamespacedPodExec");
    let with_path = &core["paths"][format!("{pod}/proxy/{{path}}")]["get"]["operationId"];
    assert_eq!(with_path, "connectCoreV1GetNamespacedPodProxyWithPath");
    assert_eq!(core["paths"][format!("{pod}/eviction")]["post"]["x-kubernetes-group-version-kind"]["group"], "policy");
    assert_eq!(core["paths"]["/api/v1/nodes"]["get"]["operationId"], "listCoreV1Node");
}

#[test]
fn options_stand_for_the_group_versions_of_the_document() {
    let document = v3("apps");
    let options = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    assert_eq!(
        options["x-kubernetes-group-version-kind"],
        json!([
            {"group": "", "version": "v1", "kind": "DeleteOptions"},
            {"group": "apps", "version": "v1", "kind": "DeleteOptions"},
        ])
    );
}

#[test]
fn the_index_names_each_document_and_hashes_follow_the_rows() {
    let rows = rows();
    let index: Value = serde_json::from_slice(&v3_index("v1", &rows)).unwrap();
    let names: Vec<&String> = index["paths"].as_object().unwrap().keys().collect();
    let expected = [
        ".well-known/openid-configuration",
        "api",
        "api/v1",
        "apis",
        "apis/apiextensions.k8s.io",
        "apis/apiextensions.k8s.io/v1",
        "apis/apps",
        "apis/apps/v1",
        "apis/authorization.k8s.io",
        "apis/authorization.k8s.io/v1",
        "openid/v1/jwks",
        "version",
    ];
    assert_eq!(names, expected);
    let apps: Vec<_> = rows.iter().filter(|row| row.group == "apps").cloned().collect();
    let url = format!("/openapi/v3/apis/apps/v1?hash={}", v3_hash("v1", &apps));
    assert_eq!(index["paths"]["apis/apps/v1"], json!({"serverRelativeURL": url}));
    assert_eq!(v3_hash("v1", &rows), v3_hash("v1", &rows));
    assert_ne!(v3_hash("v1", &rows), v3_hash("v1", &rows[1..]));
    assert_ne!(v3_hash("v1", &rows), v3_hash("v2", &rows));
}

#[test]
fn paths_of_no_group_version_have_documents_of_their_own() {
    for (name, path) in [("apis", "/apis/"), ("apis/apps", "/apis/apps/"), ("version", "/version/")] {
        let document: Value = serde_json::from_slice(&v3_root(name, "v1.36.0", &["", "apps"]).unwrap()).unwrap();
        assert_eq!(document["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), [path]);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty(), "{name}");
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
    assert!(v3_root("apis/batch", "v1.36.0", &["", "apps"]).is_none());
}

#[test]
fn v2_writes_quantities_and_references_its_own_way() {
    let document: Value = serde_json::from_slice(&v2_document("v1.36.0", &rows())).unwrap();
    assert_eq!(document["info"]["version"], "v1.36.0");
    assert_eq!(document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let spec = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    assert!(spec["default"].is_null());
    let body = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"]["parameters"][3];
    assert_eq!(body["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
}

/// Walks a message and answers the content of a field, by number.
fn dig<'m>(message: &'m [u8], path: &[u64]) -> Vec<&'m [u8]> {
    let [number, rest @ ..] = path else { return vec![message] };
    let mut reader = crate::protobuf::wire::Reader::new(message);
    let mut found = Vec::new();
    while let Some((n, payload)) = reader.field().unwrap() {
        if let (true, crate::protobuf::wire::Payload::Bytes(inner)) = (n == *number, payload) {
            found.extend(dig(inner, rest));
        }
    }
    found
}

#[test]
fn the_protobuf_document_holds_the_same_definitions_and_paths() {
    let json: Value = serde_json::from_slice(&v2_document("v1.36.0", &rows())).unwrap();
    let message = v2_protobuf("v1.36.0", &rows());
    let names = |path: &[u64]| -> BTreeSet<String> {
        dig(&message, path).iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(names(&[9, 1, 1]), keys(&json["definitions"]));
    assert_eq!(names(&[8, 2, 1]), keys(&json["paths"]));
    let kinds = names(&[9, 1, 2, 31, 2, 2]);
    assert!(kinds.contains(r#"[{"group":"","kind":"Pod","version":"v1"}]"#));
}

#[test]
#[ignore = "writes the documents for a look from outside: cargo test -p api -- --ignored documents_for"]
fn documents_for_other_tools() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/openapi"));
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("v2.json"), v2_document("v1.36.0", &rows())).unwrap();
    std::fs::write(folder.join("v2.pb"), v2_protobuf("v1.36.0", &rows())).unwrap();
    std::fs::write(folder.join("v3.json"), v3("").to_string()).unwrap();
}

#[test]
fn the_second_version_has_the_paths_of_the_server_itself() {
    let document: Value = serde_json::from_slice(&v2_document("v1.36.0", &rows())).unwrap();
    #[track_caller]
    fn check(document: &Value, path: &str, id: &str, tag: &str) {
        let operation = &document["paths"][path]["get"];
        assert_eq!((&operation["operationId"], &operation["tags"]), (&json!(id), &json!([tag])), "{path}");
    }
    check(&document, "/api/", "getCoreAPIVersions", "core");
    check(&document, "/apis/", "getAPIVersions", "apis");
    check(&document, "/apis/apps/", "getAppsAPIGroup", "apps");
    check(&document, "/apis/authorization.k8s.io/", "getAuthorizationAPIGroup", "authorization");
    check(&document, "/version/", "getCodeVersion", "version");
    check(&document, "/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", "openid");
    let well_known = "/.well-known/openid-configuration/";
    check(&document, well_known, "getServiceAccountIssuerOpenIDConfiguration", "WellKnown");
    let reference = &document["paths"]["/version/"]["get"]["responses"]["200"]["schema"]["$ref"];
    assert_eq!(reference, "#/definitions/io.k8s.apimachinery.pkg.version.Info");
}
