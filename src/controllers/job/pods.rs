//! The pods that a Job makes.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::plan::NewPod;
use super::{FINALIZER, indexes, per_index};
use crate::claim;
use crate::generate_name::generate_name;
use crate::pod_control;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// What the API server leaves of a `generateName`.
const MAX_GENERATED: usize = 58;

pub(super) fn new_pod(job: &Job, spec: &JobSpec, new: &NewPod) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let mut pod = pod_control::from_template(&spec.template, namespace, claim::controller_ref::<Job>(&job.metadata));
    let finalizers = pod.metadata.finalizers.get_or_insert_with(Vec::new);
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    if let Some(failures) = new.failures {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(per_index::COUNTED.to_owned(), failures.counted.to_string());
        if failures.ignored > 0 {
            annotations.insert(per_index::IGNORED.to_owned(), failures.ignored.to_string());
        }
    }
    match new.index {
        None => pod.metadata.generate_name = Some(generate_name(name)),
        Some(index) => give_index(&mut pod, name, index),
    }
    pod
}

fn give_index(pod: &mut Pod, job: &str, index: i32) {
    let meta = &mut pod.metadata;
    let suffix = format!("-{index}-");
    // The index must survive the cut.
    let room = MAX_GENERATED - suffix.len();
    meta.generate_name = Some(format!("{}{suffix}", &job[..job.len().min(room)]));
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
