//! The table of hostile inputs: what is common to them, and the objects that they meet.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

/// A request and the answers that it may get.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Box<dyn Fn() -> Vec<u8>>,
    pub(crate) codes: &'static [u16],
    /// The form of the answer.
    pub(crate) accept: &'static str,
    /// What it works on is large, whatever its body is.
    pub(crate) is_heavy: bool,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Stored, or refused in whatever way.
pub(crate) const ANY: &[u16] = &[200, 201, 400, 404, 409, 413, 415, 422];
/// As [`ANY`], and what upstream answers too to objects beyond the store's limit and to patches that
/// do not make sense.
pub(crate) const ANY_OR_500: &[u16] = &[200, 201, 400, 404, 409, 413, 415, 422, 500];
pub(crate) const TOO_LARGE: &[u16] = &[413];

/// A request with this body.
pub(crate) fn input(
    name: &str,
    (method, path, content_type): (&'static str, &str, &'static str),
    codes: &'static [u16],
    body: impl Fn() -> String + 'static,
) -> Input {
    let body = Box::new(move || body().into_bytes());
    Input { name: name.into(), method, path: path.into(), content_type, body, codes, accept: JSON, is_heavy: false }
}

pub(crate) fn post(name: &str, path: &str, codes: &'static [u16], body: impl Fn() -> String + 'static) -> Input {
    input(name, ("POST", path, JSON), codes, body)
}

/// `count` texts, joined by commas.
pub(crate) fn many(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect::<Vec<_>>().join(",")
}

/// A name that no other object has.
pub(crate) fn new_name() -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    format!("hostile-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// An object with a name, as `{"metadata":{...},REST}`.
pub(crate) fn named(rest: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{}"}},{rest}}}"#, new_name())
}

/// An object whose metadata has one more member.
pub(crate) fn with_metadata(rest: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{}",{rest}}}}}"#, new_name())
}

fn seed(path: &str, object: Value) -> Input {
    post("seed", path, &[201], move || object.to_string())
}

/// A namespace with many pods, none of which is large.
pub(crate) const CROWD: &str = "crowd";

fn crowd(pod: impl Fn(&str) -> Value) -> Vec<Input> {
    let namespace = json!({"metadata": {"name": CROWD}});
    let mut seeds = vec![
        seed("/api/v1/namespaces", namespace),
        seed(&format!("/api/v1/namespaces/{CROWD}/serviceaccounts"), json!({"metadata": {"name": "default"}})),
    ];
    let pods = format!("/api/v1/namespaces/{CROWD}/pods");
    seeds.extend((0..400).map(|i| seed(&pods, pod(&format!("pod-{i}")))));
    seeds
}

/// A namespace with many objects that have many labels.
pub(crate) const LABELLED: &str = "labelled";

fn labelled() -> Vec<Input> {
    let labels: serde_json::Map<String, Value> = (0..60).map(|i| (format!("k{i}"), json!("v"))).collect();
    let mut seeds = vec![seed("/api/v1/namespaces", json!({"metadata": {"name": LABELLED}}))];
    let maps = format!("/api/v1/namespaces/{LABELLED}/configmaps");
    seeds.extend((0..1_000).map(|i| seed(&maps, json!({"metadata": {"name": format!("m{i}"), "labels": labels}}))));
    seeds
}

/// The objects that patches and updates are tried on.
pub(crate) fn seeds() -> Vec<Input> {
    let env: Vec<Value> = (0..2_000).map(|i| json!({"name": format!("v{i}"), "value": "x"})).collect();
    let data: serde_json::Map<String, Value> = (0..20_000).map(|i| (format!("k{i}"), json!("v"))).collect();
    let account = json!({"metadata": {"name": "default"}});
    let pod = |name: &str, env: &[Value]| {
        let container = json!({"name": "c", "image": "i", "env": env});
        json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    let mut seeds = vec![
        seed("/api/v1/namespaces/default/serviceaccounts", account),
        seed(PODS, pod("small", &[])),
        seed(PODS, pod("large", &env)),
        seed(CONFIG_MAPS, json!({"metadata": {"name": "small"}, "data": {"a": "b"}})),
        seed(CONFIG_MAPS, json!({"metadata": {"name": "large"}, "data": data})),
    ];
    seeds.extend(crowd(|name| pod(name, &env[..100])));
    seeds.extend(labelled());
    seeds
}

/// All inputs.
pub(crate) fn all() -> Vec<Input> {
    let tables = [
        crate::wire::inputs(),
        crate::pods::inputs(),
        crate::lists::inputs(),
        crate::patches::inputs(),
        crate::stored::inputs(),
    ];
    tables.into_iter().flatten().collect()
}
