//! The workloads of the core group: pod templates and replication controllers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodTemplate, ReplicationController};
use serde_json::Value;

use super::Column;
use super::column::{AGE, CONTAINERS, IMAGES, NAME, SELECTOR};
use super::kind::{Printed, row};
use super::text;

impl Printed for PodTemplate {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column { priority: 0, ..CONTAINERS },
        Column { priority: 0, ..IMAGES },
        Column::text("Pod Labels", "Labels of the pods made from the template."),
    ];

    fn row(&self, _: Timestamp) -> Vec<Value> {
        let template = self.template.as_ref();
        let spec = template.and_then(|template| template.spec.as_ref());
        let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
        let (containers, images) = text::containers(spec.map(|spec| spec.containers.as_slice()));
        row![self.name(), containers, images, text::labels(labels)]
    }
}

impl Printed for ReplicationController {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Desired", "How many pods there should be."),
        Column::integer("Current", "How many pods there are."),
        Column::integer("Ready", "How many of the pods are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let template = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref());
        let (containers, images) = text::containers(template.map(|template| template.containers.as_slice()));
        row![
            self.name(),
            spec.and_then(|spec| spec.replicas).unwrap_or_default(),
            status.map_or(0, |status| status.replicas),
            status.and_then(|status| status.ready_replicas).unwrap_or_default(),
            self.age(now),
            containers,
            images,
            text::labels(spec.and_then(|spec| spec.selector.as_ref())),
        ]
    }
}
