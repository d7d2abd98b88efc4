//! Builders for tests: objects as short sentences.

use std::sync::Arc;

use api::object::{Object, ObjectIndex, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::pods::PodView;

/// A moment, in seconds of the epoch.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[derive(Clone)]
pub(crate) struct PodBuilder {
    json: Value,
}

/// A pod that was just created.
pub(crate) fn pod(name: &str) -> PodBuilder {
    let json = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {}, "annotations": {}},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"conditions": []},
    });
    PodBuilder { json }
}

impl PodBuilder {
    pub(crate) fn on(mut self, node: &str) -> Self {
        self.json["spec"]["nodeName"] = json!(node);
        self
    }

    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.json["status"]["phase"] = json!(phase);
        self
    }

    pub(crate) fn running(self) -> Self {
        self.phase("Running")
    }

    pub(crate) fn ready(mut self, since: Timestamp) -> Self {
        let conditions = self.json["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|c| c["type"] != "Ready");
        conditions.push(json!({"type": "Ready", "status": "True", "lastTransitionTime": Time(since)}));
        self
    }

    pub(crate) fn created(mut self, at: Timestamp) -> Self {
        self.json["metadata"]["creationTimestamp"] = json!(Time(at));
        self
    }

    pub(crate) fn deleting(mut self, at: Timestamp) -> Self {
        self.json["metadata"]["deletionTimestamp"] = json!(Time(at));
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.json["metadata"]["annotations"][key] = json!(value);
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.json["metadata"]["labels"][key] = json!(value);
        self
    }

    pub(crate) fn finalizer(mut self, name: &str) -> Self {
        self.json["metadata"]["finalizers"] = json!([name]);
        self
    }

    pub(crate) fn restarts(mut self, count: i32) -> Self {
        self.json["status"]["containerStatuses"] = json!([{"name": "c", "restartCount": count}]);
        self
    }

    pub(crate) fn exited(mut self, code: i32, at: Timestamp) -> Self {
        let terminated = json!({"exitCode": code, "finishedAt": Time(at)});
        self.json["status"]["containerStatuses"] = json!([{"name": "c", "state": {"terminated": terminated}}]);
        self
    }

    pub(crate) fn ip(mut self, ip: &str) -> Self {
        self.json["status"]["podIP"] = json!(ip);
        self.json["status"]["podIPs"] = json!([{"ip": ip}]);
        self
    }

    pub(crate) fn port(mut self, name: &str, port: i32) -> Self {
        self.json["spec"]["containers"][0]["ports"] = json!([{"name": name, "containerPort": port, "protocol": "TCP"}]);
        self
    }

    pub(crate) fn object(self) -> Object {
        let meta = &self.json["metadata"];
        let labels = meta["labels"].as_object().unwrap();
        let index = ObjectIndex {
            key: ObjectKey::new("default", meta["name"].as_str().unwrap()),
            uid: meta["uid"].as_str().unwrap().into(),
            labels: labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap().into())).collect(),
            finalizers: meta["finalizers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|f| f.as_str().unwrap().into())
                .collect(),
            deleting: !meta["deletionTimestamp"].is_null(),
            ..ObjectIndex::default()
        };
        Object { json: self.json.to_string().into(), index: Arc::new(index) }
    }

    pub(crate) fn view(self) -> PodView {
        PodView::of(&self.object()).unwrap()
    }
}
