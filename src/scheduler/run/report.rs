//! What the scheduler tells the API: bindings, conditions, nominations, preemptions, events.

use api::k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use api::object::ObjectKey;
use client::{EventType, Recorder, status};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use serde_json::json;
use tracing::debug;

use super::SCHEDULER_NAME;
use crate::preemption::Preemption;

/// The writing half. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Reporter {
    pub client: kube::Client,
    pub recorder: Recorder,
}

/// A pod that fits nowhere for now.
pub(super) struct Refusal {
    message: String,
    nominate: Option<String>,
    /// Of the pod that was refused.
    generation: Option<i64>,
    /// The condition says so already, so only the event is repeated.
    known: bool,
}

impl Refusal {
    pub(super) fn new(pod: &Pod, message: String, nominate: Option<String>) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let generation = pod.metadata.generation;
        let same = |c: &&PodCondition| {
            c.type_ == "PodScheduled"
                && c.status == "False"
                && c.message.as_deref() == Some(&message)
                && c.observed_generation == generation
        };
        let known = nominate.is_none() && conditions.filter(same).count() == 1;
        Self { message, nominate, generation, known }
    }
}

impl Reporter {
    pub(super) async fn bind(&self, key: &ObjectKey, binding: &Binding) -> kube::Result<()> {
        let body = serde_json::to_vec(binding).map_err(kube::Error::SerdeError)?;
        let request = Request::new(format!("/api/v1/namespaces/{}/pods", key.namespace));
        let request = request.create_subresource("binding", &key.name, &PostParams::default(), body);
        self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
    }

    pub(super) fn scheduled(&self, key: &ObjectKey, uid: &str, node: &str) {
        let message = format!("Successfully assigned {key} to {node}");
        self.recorder.event(&reference(key, uid), EventType::Normal, "Scheduled", &message);
    }

    pub(super) async fn refused(&self, key: &ObjectKey, uid: &str, refusal: Refusal) {
        let Refusal { message, nominate, generation, known } = refusal;
        self.recorder.event(&reference(key, uid), EventType::Warning, "FailedScheduling", &message);
        if known {
            return;
        }
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "observedGeneration": generation,
            "lastProbeTime": null,
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let mut status = json!({ "conditions": [condition] });
        if let Some(node) = nominate {
            status["nominatedNodeName"] = node.into();
        }
        let patch = json!({ "metadata": { "uid": uid }, "status": status });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if let Err(e) = pods.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            debug!(pod = %key, "the refusal could not be reported: {}", status::message(&e));
        }
    }

    /// Marks each victim with why it goes, then deletes it.
    pub(super) async fn preempt(&self, preemptor: &str, preemption: &Preemption) {
        for victim in &preemption.victims {
            let key = &victim.index.key;
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let patch = json!({
                "metadata": { "uid": victim.uid() },
                "status": { "conditions": [{
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": format!("{SCHEDULER_NAME}: preempting to accommodate a higher priority pod"),
                    "lastTransitionTime": Time(Timestamp::now()),
                }] },
            });
            let marked = pods.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
            if let Err(e) = marked {
                debug!(pod = %key, "the victim could not be marked: {}", status::message(&e));
                continue;
            }
            let preconditions = Preconditions { uid: Some(victim.uid().to_owned()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match pods.delete(&key.name, &params).await {
                Ok(_) => {
                    let message = format!("Preempted by pod {preemptor} on node {}", preemption.node);
                    self.recorder.event(&reference(key, victim.uid()), EventType::Normal, "Preempted", &message);
                }
                Err(e) => debug!(pod = %key, "the victim could not be deleted: {}", status::message(&e)),
            }
        }
    }
}

fn reference(key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
