//! The pods that a Job makes.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::{FINALIZER, indexes};
use crate::claim;
use crate::pod_control;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(super) fn new_pod(job: &Job, spec: &JobSpec, index: Option<i32>) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let mut pod = pod_control::from_template(&spec.template, namespace, claim::controller_ref::<Job>(&job.metadata));
    let finalizers = pod.metadata.finalizers.get_or_insert_with(Vec::new);
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    match index {
        None => pod.metadata.generate_name = Some(pod_control::generate_name(name)),
        Some(index) => give_index(&mut pod, name, index),
    }
    pod
}

fn give_index(pod: &mut Pod, job: &str, index: i32) {
    let meta = &mut pod.metadata;
    meta.generate_name = Some(format!("{job}-{index}-"));
    for map in [&mut meta.annotations, &mut meta.labels] {
        map.get_or_insert_with(Default::default).insert(indexes::ANNOTATION.to_owned(), index.to_string());
    }
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(give_index_variable);
}

fn give_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_with(Vec::new);
    if variables.iter().any(|v| v.name == INDEX_VARIABLE) {
        return;
    }
    let field =
        ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{}']", indexes::ANNOTATION) };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    });
}
