//! Pods and nodes for tests.

use std::sync::Arc;

use api::k8s_openapi::api::core::v1::{Node, Pod};
use api::object::{Object, ObjectIndex, ObjectKey};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::node_info::NodeView;
use crate::pod_info::PodInfo;

fn object(namespace: &str, name: &str, labels: &[(&str, &str)], json: &Value) -> Object {
    let index = ObjectIndex {
        key: ObjectKey::new(namespace, name),
        uid: name.into(),
        labels: labels.iter().map(|&(k, v)| (k.into(), v.into())).collect(),
        ..ObjectIndex::default()
    };
    Object { json: serde_json::to_vec(json).unwrap().into(), index: Arc::new(index) }
}

/// A pod built from a specification; its UID is its name.
pub(crate) struct PodFixture {
    pub pod: Pod,
    pub info: PodInfo,
}

pub(crate) fn pod(name: &str, labels: &[(&str, &str)], spec: &Value) -> PodFixture {
    let object = object("default", name, labels, &json!({ "metadata": { "name": name }, "spec": spec }));
    let pod: Pod = object.decode().unwrap();
    let info = PodInfo::new(&object, &pod);
    PodFixture { pod, info }
}

/// One container that asks for so much CPU.
pub(crate) fn cpu(amount: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": amount } } }] })
}

pub(crate) fn with_priority(priority: i32, mut spec: Value) -> Value {
    spec["priority"] = priority.into();
    spec
}

pub(crate) fn node(name: &str, labels: &[(&str, &str)], cpu: &str, spec: &Value) -> NodeView {
    let json = json!({
        "metadata": { "name": name },
        "spec": spec,
        "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } },
    });
    let object = object("", name, labels, &json);
    let node: Node = object.decode().unwrap();
    NodeView::new(object.index, &node)
}

/// Nodes of four CPUs.
pub(crate) fn nodes(names: &[&str]) -> Cache {
    let mut cache = Cache::default();
    for name in names {
        cache.set_node(node(name, &[("kubernetes.io/hostname", name)], "4", &json!({})));
    }
    cache
}
