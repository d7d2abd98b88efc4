//! Claims on persistent volumes: fixed after creation, but for growth.

use k8s_openapi::api::core::v1 as api;

use super::persistent_volume::{VOLUME_MODES, storage_class_warnings, validate_access_modes};
use super::pod::default_amounts;
use crate::difference::difference;
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;
use crate::meta::{validate_annotations, validate_label_selector, validate_labels};
use crate::quantity::Quantity;

pub(crate) struct PersistentVolumeClaim;

impl Kind for PersistentVolumeClaim {
    type Object = api::PersistentVolumeClaim;

    fn default(&self, obj: &mut api::PersistentVolumeClaim) {
        default_claim(obj);
    }

    fn prepare_create(&self, obj: &mut api::PersistentVolumeClaim) {
        obj.status = Some(api::PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    }

    fn warnings(&self, obj: &api::PersistentVolumeClaim) -> Vec<String> {
        let mut out = storage_class_warnings(&obj.metadata);
        out.extend(obj.spec.iter().flat_map(|spec| claim_warnings(spec, &Path::new("spec"))));
        out
    }

    fn validate(&self, obj: &api::PersistentVolumeClaim, errs: &mut ErrorList) {
        let empty = api::PersistentVolumeClaimSpec::default();
        validate_claim_spec(obj.spec.as_ref().unwrap_or(&empty), &Path::new("spec"), errs);
    }

    fn validate_update(
        &self,
        new: &api::PersistentVolumeClaim,
        old: &api::PersistentVolumeClaim,
        errs: &mut ErrorList,
    ) {
        self.validate(new, errs);
        validate_claim_update(new, old, errs);
    }
}

/// Defaults of a claim, also of the claim templates of a StatefulSet.
pub(crate) fn default_claim(obj: &mut api::PersistentVolumeClaim) {
    let phase = &mut obj.status.get_or_insert_default().phase;
    phase.get_or_insert_with(|| "Pending".to_owned());
    let spec = obj.spec.get_or_insert_default();
    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    if let Some(resources) = spec.resources.as_mut() {
        default_amounts(resources.requests.as_mut());
        default_amounts(resources.limits.as_mut());
    }
}

/// Warnings about the spec of a claim, also in a template.
pub(crate) fn claim_warnings(spec: &api::PersistentVolumeClaimSpec, path: &Path<'_>) -> Vec<String> {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let storage = requests.and_then(|r| r.get("storage")).map(Quantity::of).filter(|q| !q.is_whole());
    let fractional = |amount: Quantity| {
        let at = path.child("resources.requests");
        let at = at.key("storage");
        format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer")
    };
    storage.map(fractional).into_iter().collect()
}

/// The claim that a generic ephemeral volume brings along.
pub(crate) fn validate_claim_template(
    template: &api::PersistentVolumeClaimTemplate,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let meta = template.metadata.as_ref();
    let at = path.child("metadata");
    validate_annotations(meta.and_then(|m| m.annotations.as_ref()), &at.child("annotations"), errs);
    validate_labels(meta.and_then(|m| m.labels.as_ref()), &at.child("labels"), errs);
    if meta.is_some_and(|m| m.name.as_deref().is_some_and(|n| !n.is_empty())) {
        errs.push(field::forbidden(&at.child("name"), "cannot be set"));
    }
    validate_claim_spec(&template.spec, &path.child("spec"), errs);
}

pub(crate) fn validate_claim_spec(spec: &api::PersistentVolumeClaimSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    validate_access_modes(modes, "at least 1 access mode is required", path, errs);
    validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errs);
    let resources_at = path.child("resources");
    let at = resources_at.key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|r| r.get("storage")).map(Quantity::of) {
        None => errs.push(field::required(&at, "")),
        Some(amount) if amount.sign() <= 0 => {
            errs.push(field::invalid(&at, &amount.to_string(), "must be greater than zero"));
        }
        Some(_) => {}
    }
    for (name, class) in [
        ("storageClassName", spec.storage_class_name.as_deref()),
        ("volumeAttributesClassName", spec.volume_attributes_class_name.as_deref()),
    ] {
        if let Some(class) = class.filter(|c| !c.is_empty()) {
            field::invalid_each(&path.child(name), class, format::dns1123_subdomain(class), errs);
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
        errs.push(field::not_supported(&path.child("volumeMode"), mode, VOLUME_MODES));
    }
    let source = spec.data_source.as_ref().map(|s| (s.api_group.as_deref(), &s.kind, &s.name));
    let reference = spec.data_source_ref.as_ref().map(|s| (s.api_group.as_deref(), &s.kind, &s.name));
    for (name, source) in [("dataSource", source), ("dataSourceRef", reference)] {
        let Some((group, kind, object)) = source else { continue };
        let at = path.child(name);
        for (name, value) in [("name", object), ("kind", kind)] {
            if value.is_empty() {
                errs.push(field::required(&at.child(name), ""));
            }
        }
        if group.unwrap_or("").is_empty() && kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errs.push(field::invalid(&at, kind, why));
        }
    }
}

fn validate_claim_update(new: &api::PersistentVolumeClaim, old: &api::PersistentVolumeClaim, errs: &mut ErrorList) {
    let (Some(new_spec), Some(old_spec)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
    let (mut munged, mut before) = (new_spec.clone(), old_spec.clone());
    if old_spec.volume_name.as_deref().unwrap_or("").is_empty() {
        before.volume_name.clone_from(&munged.volume_name);
    }
    if old_spec.storage_class_name.is_none() {
        munged.storage_class_name = None;
    }
    let bound = new.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let storage = |spec: &api::PersistentVolumeClaimSpec| {
        spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")).cloned()
    };
    if bound {
        if let (Some(requests), Some(size)) =
            (munged.resources.as_mut().and_then(|r| r.requests.as_mut()), storage(old_spec))
        {
            requests.insert("storage".to_owned(), size);
        }
        munged.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
    }
    if munged != before {
        let diff = difference(&before, &munged);
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"
        );
        errs.push(field::forbidden(&Path::new("spec"), why));
    }
    let size = |wire: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        wire.as_ref().map_or(Quantity::ZERO, Quantity::of)
    };
    let has = old.status.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")).cloned();
    if size(storage(new_spec)) < size(storage(old_spec)) && size(storage(new_spec)) <= size(has) {
        let at = Path::new("spec.resources.requests.storage");
        errs.push(field::forbidden(&at, "field can not be less than status.capacity"));
    }
    field::immutable(&Path::new("volumeMode"), &new_spec.volume_mode, &old_spec.volume_mode, errs);
}
