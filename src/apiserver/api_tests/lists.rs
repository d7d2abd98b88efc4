//! Lists: selectors, pages and revisions.

use serde_json::Value;

use super::fixtures::{CONFIG_MAPS, Client};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn three() -> Client {
    let client = Client::new().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        client.config_map(name, label).await;
    }
    client
}

#[tokio::test]
async fn selectors_choose() {
    let client = three().await;
    for (query, expected) in [
        ("", &["a", "b", "c"][..]),
        ("?labelSelector=n%3D1", &["a", "c"]),
        ("?labelSelector=n%20in%20(2)", &["b"]),
        ("?labelSelector=!n", &[]),
        ("?fieldSelector=metadata.name%3Db", &["b"]),
        ("?fieldSelector=metadata.name!%3Db", &["a", "c"]),
    ] {
        let list = client.get(&format!("{CONFIG_MAPS}{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    let everywhere = client.get("/api/v1/configmaps?fieldSelector=metadata.name%3Db").await.expect(200);
    assert_eq!(names(&everywhere), ["b"]);
    assert_eq!(names(&client.get("/api/v1/namespaces/other/configmaps").await.expect(200)), Vec::<String>::new());
    let bad = client.get(&format!("{CONFIG_MAPS}?labelSelector=%3D%3D")).await;
    assert_eq!(bad.failure().1, "BadRequest");
}

#[tokio::test]
async fn items_do_not_repeat_the_kind_of_the_list() {
    let list = three().await.get(CONFIG_MAPS).await.expect(200);
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));
    assert_eq!(list["items"][0].get("kind"), None);
    assert!(list["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn pages_show_the_state_of_the_first() {
    let client = three().await;
    let first = client.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    assert_eq!(names(&first), ["a"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    client.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.expect(200);
    client.config_map("d", "1").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["b", "c"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"].get("continue"), None);
    let bad = client.get(&format!("{CONFIG_MAPS}?limit=1&continue=nonsense!")).await.failure();
    assert!(bad.2.starts_with("invalid continue token: continue key is not valid: "), "{bad:?}");
    let both = client.get(&format!("{CONFIG_MAPS}?continue={token}&resourceVersion=abc")).await.failure();
    assert_eq!(both.2, "specifying resource version is not allowed when using continue");
}

#[tokio::test]
async fn a_list_is_of_the_revision_that_was_asked_for() {
    let client = three().await;
    let then = client.get(CONFIG_MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    client.config_map("d", "1").await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&client.get(&exact).await.expect(200)), ["a", "b", "c"]);
    let newer = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&client.get(&newer).await.expect(200)), ["a", "b", "c", "d"]);
    let future = client.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.failure();
    assert_eq!((future.0, future.1.as_str()), (504, "Timeout"));
    assert!(future.2.starts_with("Timeout: Too large resource version: 999999, current: "), "{}", future.2);
    let past = client.get(&format!("{CONFIG_MAPS}?resourceVersion=0&limit=1")).await.expect(200);
    assert_eq!(names(&past).len(), 4);
}

/// Upstream parses a revision in three places, and each tells its failure in its own way.
#[tokio::test]
async fn a_revision_that_is_no_number_is_refused_as_each_verb_refuses_it() {
    let client = three().await;
    let why = "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax";
    for (path, code, reason, message) in [
        ("?resourceVersion=abc", 400, "BadRequest", format!("invalid resource version: {why}")),
        ("?watch=1&resourceVersion=abc", 500, "", why.to_owned()),
        ("/a?resourceVersion=abc", 500, "", why.to_owned()),
    ] {
        let failure = client.get(&format!("{CONFIG_MAPS}{path}")).await.failure();
        assert_eq!(failure, (code, reason.to_owned(), message), "{path}");
    }
    client.get(&format!("{CONFIG_MAPS}/a?limit=abc&labelSelector=!!")).await.expect(200);
}
