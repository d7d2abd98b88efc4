//! Validation of `metadata`, when an object is made and when it is changed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use super::format::{self, NameRule};
use crate::field::{self, ErrorList, Path};

/// All annotations of an object together, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What the author of a workload is told whose name does not fit into host names.
pub(crate) fn name_warnings(meta: &ObjectMeta, used_in: &str) -> Vec<String> {
    let wrong = format::dns1123_label(meta.name.as_deref().unwrap_or(""));
    if wrong.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
         recommended: [{}]",
        wrong.join(" ")
    )]
}

/// Checks the metadata of an object that is about to be made; its name was generated before.
#[must_use]
pub fn validate_object_meta(meta: &ObjectMeta, namespaced: bool, names: NameRule) -> ErrorList {
    let mut errs = ErrorList::new();
    validate_metadata(meta, namespaced, names, &Path::new("metadata"), &mut errs);
    errs
}

/// As [`validate_object_meta`], for metadata at any path.
pub fn validate_metadata(meta: &ObjectMeta, namespaced: bool, names: NameRule, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        let at = path.child("generateName");
        field::invalid_each(&at, prefix, names.check(prefix, true), errs);
    }
    let at = path.child("name");
    match meta.name.as_deref() {
        None | Some("") => errs.push(field::required(&at, "name or generateName is required")),
        Some(name) => field::invalid_each(&at, name, names.check(name, false), errs),
    }
    let at = path.child("namespace");
    match (namespaced, meta.namespace.as_deref().unwrap_or("")) {
        (true, "") => errs.push(field::required(&at, "")),
        (true, namespace) => {
            field::invalid_each(&at, namespace, format::dns1123_label(namespace), errs);
        }
        (false, "") => {}
        (false, _) => errs.push(field::forbidden(&at, "not allowed on this type")),
    }
    field::non_negative(&path.child("generation"), meta.generation.unwrap_or(0), errs);
    validate_changeable(meta, path, errs);
}

/// The parts that may differ from one version of an object to the next.
fn validate_changeable(meta: &ObjectMeta, path: &Path<'_>, errs: &mut ErrorList) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errs);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errs);
    validate_owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errs);
    validate_finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errs);
    validate_managers(meta, &path.child("managedFields"), errs);
}

pub(crate) fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &Path<'_>, errs: &mut ErrorList) {
    for (key, value) in labels.into_iter().flatten() {
        if errs.is_full() {
            return;
        }
        field::invalid_each(path, key, format::qualified_name(key), errs);
        field::invalid_each(path, value, format::label_value(value), errs);
    }
}

pub(crate) fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.len();
        if errs.is_full() {
            continue;
        }
        let lower = key.to_ascii_lowercase();
        field::invalid_each(path, key, format::qualified_name(&lower), errs);
    }
    if size > ANNOTATIONS_MAX {
        errs.push(field::too_long(path, ANNOTATIONS_MAX));
    }
}

fn validate_owners(owners: &[OwnerReference], path: &Path<'_>, errs: &mut ErrorList) {
    let mut controller: Option<&str> = None;
    for owner in owners {
        if errs.is_full() {
            return;
        }
        let version = owner.api_version.rsplit('/').next().unwrap_or("");
        if version.is_empty() {
            errs.push(field::invalid(&path.child("apiVersion"), &owner.api_version, "version must not be empty"));
        }
        for (name, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errs.push(field::invalid(&path.child(name), value, "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errs.push(field::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    owner.name
                );
                errs.push(field::invalid(path, owners, why));
            } else {
                controller = Some(&owner.name);
            }
        }
    }
}

fn validate_finalizers(finalizers: &[String], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, name) in finalizers.iter().enumerate() {
        if errs.is_full() {
            return;
        }
        field::invalid_each(path, name, format::qualified_name(name), errs);
        let standard = ["kubernetes", ORPHAN, FOREGROUND].contains(&name.as_str());
        if !name.contains('/') && !standard {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errs.push(field::invalid(&path.index(i), name, why));
        }
    }
    let has = |wanted: &str| finalizers.iter().any(|f| f == wanted);
    if has(ORPHAN) && has(FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errs.push(field::invalid(path, finalizers, why));
    }
}

fn validate_managers(meta: &ObjectMeta, path: &Path<'_>, errs: &mut ErrorList) {
    for (i, entry) in meta.managed_fields.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let operation = entry.operation.as_deref().unwrap_or("");
        if !["Apply", "Update"].contains(&operation) {
            errs.push(field::invalid(&at.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        if let Some(kind) = entry.fields_type.as_deref().filter(|t| !t.is_empty() && *t != "FieldsV1") {
            errs.push(field::invalid(&at.child("fieldsType"), kind, "must be `FieldsV1`"));
        }
        if entry.manager.as_deref().is_some_and(|m| m.len() > 128) {
            errs.push(field::too_long(&at.child("manager"), 128));
        }
    }
}

/// Upstream's complaint about an update without `metadata.resourceVersion` of a kind that needs it.
#[must_use]
pub fn missing_resource_version() -> field::Error {
    field::invalid(&Path::new("metadata.resourceVersion"), &0, "must be specified for an update")
}

/// Checks what changed in the metadata of an object.
#[must_use]
pub fn validate_object_meta_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    let mut errs = ErrorList::new();
    validate_metadata_update(new, old, &Path::new("metadata"), &mut errs);
    errs
}

/// As [`validate_object_meta_update`], for metadata at any path.
pub fn validate_metadata_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path<'_>, errs: &mut ErrorList) {
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let quoted: Vec<String> = added.iter().map(|f| field::quote(f)).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            );
            errs.push(field::forbidden(&path.child("finalizers"), why));
        }
    }
    if new.resource_version.as_deref().unwrap_or("").is_empty() {
        errs.push(field::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        let generation = new.generation.unwrap_or(0);
        errs.push(field::invalid(&path.child("generation"), &generation, "must not be decremented"));
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    field::immutable(&path.child("name"), &text(&new.name), &text(&old.name), errs);
    field::immutable(&path.child("namespace"), &text(&new.namespace), &text(&old.namespace), errs);
    field::immutable(&path.child("uid"), &text(&new.uid), &text(&old.uid), errs);
    field::immutable(&path.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp, errs);
    field::immutable(&path.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp, errs);
    let grace = path.child("deletionGracePeriodSeconds");
    field::immutable(&grace, &new.deletion_grace_period_seconds, &old.deletion_grace_period_seconds, errs);
    validate_changeable(new, path, errs);
}

/// The `metadata` of an untyped object; one without any has none of its fields.
pub(crate) fn meta_of(object: &Value) -> serde_json::Result<ObjectMeta> {
    object.get("metadata").map_or_else(|| Ok(ObjectMeta::default()), serde::Deserialize::deserialize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(meta: &Value, namespaced: bool, expected: &[&str]) {
        let meta: ObjectMeta = serde_json::from_value(meta.clone()).unwrap();
        let errs: Vec<String> =
            validate_object_meta(&meta, namespaced, NameRule::Subdomain).iter().map(ToString::to_string).collect();
        assert_eq!(errs, expected);
    }

    #[test]
    fn metadata_of_a_new_object_is_checked() {
        check(&json!({"name": "a", "namespace": "default", "labels": {"app": "x"}}), true, &[]);
        check(&json!({}), false, &["metadata.name: Required value: name or generateName is required"]);
        check(&json!({"name": "a"}), true, &["metadata.namespace: Required value"]);
        check(
            &json!({"name": "a", "namespace": "b"}),
            false,
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check(
            &json!({"name": "a", "labels": {"app": "a b"}}),
            false,
            &[
                "metadata.labels: Invalid value: \"a b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ],
        );
        check(
            &json!({"name": "a", "finalizers": ["mine"]}),
            false,
            &[
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        );
        check(
            &json!({"name": "a", "annotations": {"k": "v".repeat(300_000)}}),
            false,
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        check(&json!({"name": "a", "ownerReferences": [owner("x")]}), false, &[]);
    }

    #[test]
    fn identity_does_not_change() {
        let old: ObjectMeta =
            serde_json::from_value(json!({"name": "a", "uid": "1", "resourceVersion": "5", "generation": 2})).unwrap();
        let mut new = old.clone();
        assert!(validate_object_meta_update(&new, &old).is_empty());
        new.uid = Some("2".to_owned());
        new.generation = Some(1);
        let errs: Vec<String> = validate_object_meta_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errs,
            [
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }

    #[test]
    fn metadata_that_cannot_be_read_is_not_taken_for_none() {
        assert!(meta_of(&json!({"metadata": {"labels": 1}})).is_err());
        assert_eq!(meta_of(&json!({})).unwrap(), ObjectMeta::default());
    }
}
