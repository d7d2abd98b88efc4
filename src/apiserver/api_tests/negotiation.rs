//! The forms of an answer.

use serde_json::{Value, json};

use super::fixtures::{CONFIG_MAPS, Client};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

#[tokio::test]
async fn tables_have_rows_with_metadata() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let table = client.get_as(CONFIG_MAPS, TABLE).await.expect(200);
    assert_eq!((table["kind"].as_str(), table["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], json!("Name"));
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0], json!("a"));
    assert_eq!(row["object"]["kind"], json!("PartialObjectMetadata"));
    assert_eq!(row["object"].get("data"), None);
    let whole = client.get_as(&format!("{CONFIG_MAPS}/a?includeObject=Object"), TABLE).await.expect(200);
    assert_eq!(whole["rows"][0]["object"]["data"], json!({"k": "1"}));
    let none = client.get_as(&format!("{CONFIG_MAPS}?includeObject=None"), TABLE).await.expect(200);
    assert_eq!(none["rows"][0].get("object"), None);
}

#[tokio::test]
async fn metadata_alone_can_be_had() {
    let client = Client::new().await;
    client.config_map("a", "1").await;
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = client.get_as(CONFIG_MAPS, accept).await.expect(200);
    assert_eq!(list["kind"], json!("PartialObjectMetadataList"));
    assert_eq!(list["items"][0]["metadata"]["name"], json!("a"));
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test]
async fn yaml_goes_in_and_out() {
    let client = Client::new().await;
    let yaml = b"kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: a\ndata:\n  k: v\n".to_vec();
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = client.send(http::Method::POST, CONFIG_MAPS, &headers, yaml).await;
    assert_eq!(answer.code.as_u16(), 201);
    let value: Value = serde_yaml_ng::from_slice(&answer.body).unwrap();
    assert_eq!(value["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn protobuf_goes_in_and_out() {
    let client = Client::new().await;
    let ty = api::schema::type_of("", "v1", "ConfigMap").unwrap();
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let body = api::protobuf::encode(&object, ty, "v1", "ConfigMap").unwrap();
    let answer =
        client.send(http::Method::POST, CONFIG_MAPS, &[("content-type", PROTOBUF), ("accept", PROTOBUF)], body).await;
    assert_eq!((answer.code.as_u16(), &answer.headers["content-type"]), (201, &PROTOBUF.parse().unwrap()));
    let (_, value) = api::protobuf::decode(&answer.body).unwrap();
    assert_eq!(value["data"], json!({"k": "v"}));
    let list = client.get_as(CONFIG_MAPS, PROTOBUF).await;
    let (meta, value) = api::protobuf::decode(&list.body).unwrap();
    assert_eq!((meta.kind.as_str(), value["items"].as_array().map(Vec::len)), ("ConfigMapList", Some(1)));
}

#[tokio::test]
async fn discovery_comes_in_the_accepted_form() {
    let client = Client::new().await;
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "APIResourceList"),
        ("/api/v1", "APIResourceList"),
    ] {
        let json = client.get(path).await.expect(200);
        let yaml = client.get_as(path, "application/yaml").await;
        assert_eq!(yaml.headers["content-type"], "application/yaml", "{path}");
        assert_eq!(serde_yaml_ng::from_slice::<Value>(&yaml.body).unwrap(), json, "{path}");
        let answer = client.get_as(path, PROTOBUF).await;
        let (meta, value) = api::protobuf::decode(&answer.body).unwrap();
        assert_eq!((meta.kind.as_str(), &value["resources"]), (kind, &json["resources"]), "{path}");
        assert_eq!((&value["groups"], &value["versions"]), (&json["groups"], &json["versions"]), "{path}");
        assert_eq!(client.get_as(path, "text/html").await.code.as_u16(), 406, "{path}");
    }
    assert_eq!(client.get_as("/version", "application/yaml").await.expect(200)["major"], json!("1"));
}

#[tokio::test]
async fn what_cannot_be_made_is_not_acceptable() {
    let client = Client::new().await;
    let words = "only the following media types are accepted: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf";
    let answer = client.get_as(CONFIG_MAPS, "text/html").await;
    assert_eq!(answer.failure(), (406, "NotAcceptable".into(), words.into()));
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_can_read_them() {
    let client = Client::new().await;
    for i in 0..3 {
        let object = json!({"metadata": {"name": format!("big{i}")}, "data": {"k": "x".repeat(60_000)}});
        client.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let headers = [("accept-encoding", "gzip")];
    let packed = client.send(http::Method::GET, CONFIG_MAPS, &headers, Vec::new()).await;
    assert_eq!(packed.headers.get("content-encoding").map(|v| v.as_bytes()), Some(&b"gzip"[..]));
    let mut plain = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*packed.body), &mut plain).unwrap();
    assert_eq!(plain.as_bytes(), client.get(CONFIG_MAPS).await.body);
}

#[tokio::test]
async fn a_review_is_never_a_table() {
    let client = Client::new().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}, "unknown": 1}});
    let post = async |accept: &str| {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        client.send(http::Method::POST, REVIEWS, &headers, review.to_string().into()).await
    };
    assert_eq!(post(TABLE).await.code.as_u16(), 406);
    let json = post(&format!("{TABLE},application/json")).await;
    assert_eq!(json.warnings(), ["299 - \"unknown field \\\"spec.unknown\\\"\""]);
    assert_eq!(json.expect(201)["status"]["allowed"], json!(true));
    let binary = post(PROTOBUF).await;
    assert_eq!((binary.code.as_u16(), &binary.headers["content-type"]), (201, &PROTOBUF.parse().unwrap()));
}
