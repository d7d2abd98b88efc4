//! Deployments, replica sets, stateful sets, daemon sets and controller revisions.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::Column;
use super::column::{AGE, CONTAINERS, IMAGES, NAME, SELECTOR};
use super::kind::{Printed, row};
use super::text::{self, NONE, qualified};
use crate::selector::{LabelSelector, format_label_selector};

const READY: Column = Column::text("Ready", "How many of the pods that should be are ready.");

fn containers(template: Option<&PodTemplateSpec>) -> (String, String) {
    text::containers(template.and_then(|template| template.spec.as_ref()).map(|spec| spec.containers.as_slice()))
}

impl Printed for Deployment {
    const COLUMNS: &'static [Column] = &[
        NAME,
        READY,
        Column::text("Up-to-date", "How many pods are made from the newest template."),
        Column::text("Available", "How many pods have been ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
        let (containers, images) = containers(spec.map(|spec| &spec.template));
        let selector = LabelSelector::from_meta(spec.map(|spec| &spec.selector));
        row![
            self.name(),
            format!("{ready}/{desired}"),
            status.and_then(|status| status.updated_replicas).unwrap_or_default(),
            status.and_then(|status| status.available_replicas).unwrap_or_default(),
            self.age(now),
            containers,
            images,
            selector.map_or_else(|_| "<invalid>".to_owned(), |selector| selector.to_string()),
        ]
    }
}

impl Printed for ReplicaSet {
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
        let (containers, images) = containers(spec.and_then(|spec| spec.template.as_ref()));
        row![
            self.name(),
            spec.and_then(|spec| spec.replicas).unwrap_or_default(),
            status.map_or(0, |status| status.replicas),
            status.and_then(|status| status.ready_replicas).unwrap_or_default(),
            self.age(now),
            containers,
            images,
            format_label_selector(spec.map(|spec| &spec.selector)),
        ]
    }
}

impl Printed for StatefulSet {
    const COLUMNS: &'static [Column] = &[NAME, READY, AGE, CONTAINERS, IMAGES];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let ready = self.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        let (containers, images) = containers(spec.map(|spec| &spec.template));
        row![self.name(), format!("{ready}/{desired}"), self.age(now), containers, images]
    }
}

impl Printed for DaemonSet {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Desired", "How many nodes should run a pod."),
        Column::integer("Current", "How many of those nodes run a pod."),
        Column::integer("Ready", "How many of the pods are ready."),
        Column::integer("Up-to-date", "How many nodes run a pod of the newest template."),
        Column::integer("Available", "How many of the pods have been ready for long enough."),
        Column::text("Node Selector", "Labels of the nodes that should run a pod."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let (containers, images) = containers(spec.map(|spec| &spec.template));
        row![
            self.name(),
            status.map_or(0, |status| status.desired_number_scheduled),
            status.map_or(0, |status| status.current_number_scheduled),
            status.map_or(0, |status| status.number_ready),
            status.and_then(|status| status.updated_number_scheduled).unwrap_or_default(),
            status.and_then(|status| status.number_available).unwrap_or_default(),
            text::labels(pod.and_then(|pod| pod.node_selector.as_ref())),
            self.age(now),
            containers,
            images,
            format_label_selector(spec.map(|spec| &spec.selector)),
        ]
    }
}

impl Printed for ControllerRevision {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Controller", "What the revision is of."),
        Column::text("Revision", "The number of the revision; the highest is the newest."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let owner = self.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let controller = owner.map(|owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            format!("{}/{}", qualified(&owner.kind, group).to_lowercase(), owner.name)
        });
        row![self.name(), controller.as_deref().unwrap_or(NONE), self.revision, self.age(now)]
    }
}
