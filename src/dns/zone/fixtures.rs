//! A zone for tests, made from objects as the API server stores them.

use api::object::{ObjectIndex, ObjectKey};
use hickory_proto::rr::Name;
use serde_json::{Value, json};

use super::{Origin, ServiceRecord, Slice, Zone};

/// An empty zone `cluster.local`.
pub(crate) fn zone() -> Zone {
    Zone::new(Origin {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        servers: vec!["10.96.0.10".parse().unwrap()],
        ranges: vec!["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()],
    })
}

impl Zone {
    /// With a namespace.
    pub(crate) fn namespace(mut self, name: &str) -> Self {
        self.set_namespace(name, true);
        self
    }

    /// With a Service that has this spec.
    pub(crate) fn with_service(mut self, namespace: &str, name: &str, spec: &Value) -> Self {
        let service = serde_json::from_value(json!({ "spec": spec })).unwrap();
        self.set_service(&ObjectKey::new(namespace, name), ServiceRecord::of(service));
        self
    }

    /// With a slice of a Service, named like it.
    pub(crate) fn with_slice(mut self, namespace: &str, service: &str, ports: &Value, endpoints: &Value) -> Self {
        let key = ObjectKey::new(namespace, service);
        let labels = [("kubernetes.io/service-name".into(), service.into())];
        let index = ObjectIndex { key: key.clone(), labels: labels.into(), ..ObjectIndex::default() };
        let slice = json!({"addressType": "IPv4", "metadata": {}, "ports": ports, "endpoints": endpoints});
        self.set_slice(&key, Slice::of(&index, serde_json::from_value(slice).unwrap()));
        self
    }
}
