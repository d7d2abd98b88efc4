//! Namespaces: born active with the finalizer whose removal ends them, labelled with their own name.

use k8s_openapi::api::core::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) struct Namespace;

impl Kind for Namespace {
    type Object = api::Namespace;

    fn default(&self, obj: &mut api::Namespace) {
        if let Some(name) = obj.metadata.name.clone().filter(|n| !n.is_empty()) {
            obj.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        let phase = &mut obj.status.get_or_insert_default().phase;
        if phase.as_deref().unwrap_or("").is_empty() {
            *phase = Some("Active".to_owned());
        }
    }

    fn prepare_create(&self, obj: &mut api::Namespace) {
        obj.status = Some(api::NamespaceStatus { phase: Some("Active".to_owned()), ..Default::default() });
        let finalizers = obj.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    /// Finalizers change through their own subresource only.
    fn prepare_update(&self, new: &mut api::Namespace, old: &api::Namespace) {
        let finalizers = old.spec.as_ref().and_then(|s| s.finalizers.clone());
        new.spec.get_or_insert_default().finalizers = finalizers;
        new.status.clone_from(&old.status);
    }

    fn validate(&self, obj: &api::Namespace, errs: &mut ErrorList) {
        let path = Path::new("spec.finalizers");
        for name in obj.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
            if errs.is_full() {
                break;
            }
            field::invalid_each(&path, name, format::qualified_name(name), errs);
            if !name.contains('/') && ![FINALIZER, "orphan", "foregroundDeletion"].contains(&name.as_str()) {
                let why = "name is neither a standard finalizer name nor is it fully qualified";
                errs.push(field::invalid(&path, name, why));
            }
        }
    }

    fn validate_update(&self, _new: &api::Namespace, _old: &api::Namespace, _errs: &mut ErrorList) {}

    fn validate_status_update(&self, new: &api::Namespace, _old: &api::Namespace, errs: &mut ErrorList) {
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
        let (wanted, why) = match new.metadata.deletion_timestamp {
            None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase != wanted {
            errs.push(field::invalid(&Path::new("status.Phase"), phase, why));
        }
    }
}
