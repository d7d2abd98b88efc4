//! Between a decoded object and its stored form: version, metadata, rules and admission.

use api::field;
use serde_json::Value;

use super::context::Context;
use super::event_form;
use crate::admission::{Chain, Operation, Review};
use crate::allocate::Reservation;
use crate::error::ApiError;
use crate::registry::{Draft, Resource, Served, text};

const SERVICES: &str = "core/services";

/// Converts an object of the requested version to the stored one.
pub(super) fn to_stored(cx: &Context<'_>, object: Value) -> Result<Value, ApiError> {
    convert(cx.resource, object, cx.served, &cx.resource.stored, event_form::to_core)
}

/// Converts a stored object to the requested version.
pub(crate) fn to_served(cx: &Context<'_>, object: Value) -> Result<Value, ApiError> {
    convert(cx.resource, object, &cx.resource.stored, cx.served, event_form::to_events)
}

fn convert(
    resource: &Resource,
    object: Value,
    from: &Served,
    to: &Served,
    between_groups: fn(Value) -> Value,
) -> Result<Value, ApiError> {
    if from.api_version == to.api_version {
        return Ok(object);
    }
    let kind = resource.row.kind;
    let mut converted = if resource.row.stored_in.is_some() {
        between_groups(object)
    } else {
        api::convert::convert(resource.row.group, from.version, to.version, kind, object).ok_or_else(|| {
            ApiError::internal(format!("{kind} cannot be converted from {} to {}", from.version, to.version))
        })?
    };
    converted["apiVersion"] = to.api_version.as_str().into();
    Ok(converted)
}

/// Makes the object's namespace the request's, or says that they differ.
pub(super) fn match_namespace(cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
    let given = text(object, "namespace");
    let expected = cx.namespace();
    if given == expected {
        return Ok(());
    }
    if !given.is_empty() && !expected.is_empty() {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ));
    }
    if expected.is_empty() {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
    } else {
        object["metadata"]["namespace"] = expected.into();
    }
    Ok(())
}

/// Who manages which field is not kept.
pub(super) fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

pub(super) fn invalid(cx: &Context<'_>, object: &Value, errors: &[field::Error]) -> ApiError {
    ApiError::invalid(cx.resource.stored_group, cx.kind(), text(object, "name"), errors)
}

/// A failure of the typed rules to read an object that fits the schema.
pub(super) fn unreadable(cx: &Context<'_>, error: &serde_json::Error) -> ApiError {
    let (kind, version) = (cx.kind(), cx.served.version);
    ApiError::BadRequest(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

/// The part of a review that is the same for both phases of admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission<'a> {
    pub(super) operation: Operation,
    pub(super) name: &'a str,
    pub(super) old: Option<&'a Value>,
    pub(super) dry_run: bool,
    pub(super) options: &'a Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Mutate,
    Validate,
}

/// Fills in the defaults that are looked at before the object's own rules, which fill them in themselves: by the
/// plugins that edit new objects, by the allocator, and by the rules of a subresource. What plugins edit in a
/// changed object has no defaults.
pub(super) fn default_early(cx: &Context<'_>, operation: Operation, object: &mut Value) -> Result<(), ApiError> {
    let is_allocated = &*cx.resource.collection == SERVICES;
    let is_edited = operation == Operation::Create && Chain::edits(&cx.resource.name);
    if cx.info.subresource.is_empty() && !is_allocated && !is_edited {
        return Ok(());
    }
    cx.resource.rules.default(object).map_err(|error| unreadable(cx, &error))
}

/// Runs one phase of admission over an object.
pub(super) async fn admit(
    cx: &Context<'_>,
    admission: Admission<'_>,
    phase: Phase,
    object: &mut Option<Value>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut review = Review {
        operation: admission.operation,
        resource: &cx.resource.name,
        kind: cx.kind(),
        subresource: &cx.info.subresource,
        namespace: cx.namespace(),
        name: admission.name,
        user: cx.user,
        object,
        old: admission.old,
        dry_run: admission.dry_run,
        options: admission.options,
        warnings: Vec::new(),
    };
    match phase {
        Phase::Mutate => cx.server.admission.mutate(cx.registry(), &mut review).await?,
        Phase::Validate => cx.server.admission.validate(&cx.server.auth, cx.registry(), &mut review).await?,
    }
    warnings.append(&mut review.warnings);
    Ok(())
}

/// Gives a service its addresses and ports, as upstream before its rules see it. They are held until
/// the answer is dropped, which must be after the write.
pub(super) fn reserve<'a>(
    cx: &Context<'a>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Reservation<'a>>, ApiError> {
    if &*cx.resource.collection != SERVICES || !cx.info.subresource.is_empty() {
        return Ok(None);
    }
    cx.server.allocator.allocate(cx.registry(), object, old).map(Some)
}

/// Brings an object into the form that is stored and served.
pub(super) fn canonicalize(cx: &Context<'_>, object: &mut Value) {
    if let Some(ty) = cx.resource.stored.ty {
        api::schema::canonicalize(object, ty);
    }
}

/// The answer to a dry run: the object as it would have been stored.
pub(super) fn unstored(
    resource: &Resource,
    object: &Value,
    revision: Option<u64>,
) -> Result<api::object::Object, ApiError> {
    let content = Draft::new(resource, object).map_err(ApiError::internal)?.at(revision);
    Ok(api::object::Object { json: content.bytes, index: content.index })
}
