//! PUT, and the loop that every change of an existing object goes through.

use std::sync::Arc;

use api::field;
use api::object::Object;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::body::{Target, decode};
use super::context::Context;
use super::create::create_object;
use super::options::WriteOptions;
use super::respond;
use super::rules::{self, Admission, Phase};
use crate::admission::Operation;
use crate::error::ApiError;
use crate::registry::{ATTEMPTS, ObjectEntry, Refusal, object_of, text};
use crate::rest::prepare;

pub(super) async fn put(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = WriteOptions::parse(cx.query, "UpdateOptions")?;
    let mut warnings = Vec::new();
    let target = Target::object(cx);
    let object = decode(cx.headers, body, target, options.field_validation, &mut warnings)?;
    let mut object = rules::to_stored(cx, object)?;
    check_name(cx, &object)?;
    rules::match_namespace(cx, &mut object)?;
    if cx.registry().entry(cx.resource, cx.namespace(), &cx.info.name).is_none()
        && cx.resource.row.create_on_update
        && cx.info.subresource.is_empty()
    {
        return create_by_put(cx, object, &options, &mut warnings).await;
    }
    let updated = update(cx, &options, &mut warnings, &mut |_| Ok(object.clone())).await?;
    respond::object(cx, StatusCode::OK, &updated, &warnings)
}

async fn create_by_put(
    cx: &Context<'_>,
    object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Response, ApiError> {
    // Upstream: a revision in the object says that the client believes it to exist.
    if !matches!(text(&object, "resourceVersion"), "" | "0") {
        return Err(cx.not_found());
    }
    let mut create = cx.info.clone();
    create.verb = "create".into();
    let question = crate::auth::Attributes::of(cx.user, &create);
    cx.server.auth.require(&cx.server.registry, &question)?;
    let object = rules::to_served(cx, object)?;
    let created = create_object(cx, object, &cx.info.name, options, warnings).await?;
    respond::object(cx, StatusCode::CREATED, &created, warnings)
}

fn check_name(cx: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    let (given, url) = (text(object, "name"), &cx.info.name);
    if given.is_empty() {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != url {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({url})"
        )));
    }
    let (given, url) = (text(object, "namespace"), cx.namespace());
    if !url.is_empty() && !given.is_empty() && given != url {
        return Err(ApiError::BadRequest(format!(
            "the namespace of the object ({given}) does not match the namespace on the request ({url})"
        )));
    }
    Ok(())
}

/// Makes the new object from the current one, both in the stored version.
pub(super) type Change<'c> = dyn FnMut(&Value) -> Result<Value, ApiError> + Send + 'c;

/// Changes one object: reads it, makes the new one, passes it through admission and rules, and writes
/// it if nobody else did meanwhile; else again from the start.
pub(super) async fn update(
    cx: &Context<'_>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    change: &mut Change<'_>,
) -> Result<Object, ApiError> {
    let said = warnings.len();
    for _ in 0..ATTEMPTS {
        warnings.truncate(said);
        let current = cx.registry().entry(cx.resource, cx.namespace(), &cx.info.name).ok_or_else(|| cx.not_found())?;
        match update_once(cx, options, warnings, change, &current).await {
            Ok(object) => return Ok(object),
            Err(Refusal::Raced) => {}
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::modified(&cx.resource.name, &cx.info.name))
}

async fn update_once(
    cx: &Context<'_>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    change: &mut Change<'_>,
    current: &Arc<ObjectEntry>,
) -> Result<Object, Refusal> {
    let old: Value = serde_json::from_slice(&current.bytes).map_err(ApiError::internal)?;
    let mut new = change(&old)?;
    cx.pause()?;
    check_name(cx, &new)?;
    rules::match_namespace(cx, &mut new)?;
    rules::drop_managed_fields(&mut new);
    check_identity(cx, &new, &old)?;
    // An update that names no revision is one of whatever is there.
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    rules::default_early(cx, Operation::Update, &mut new)?;
    let admission = Admission {
        operation: Operation::Update,
        name: &cx.info.name,
        old: Some(&old),
        dry_run: options.dry_run,
        options: &options.object,
    };
    let mut new = Some(new);
    cx.pause()?;
    rules::admit(cx, admission, Phase::Mutate, &mut new, warnings).await?;
    let lost = || ApiError::internal("admission removed the object");
    let prepared = new.as_mut().ok_or_else(lost)?;
    let _reservation = rules::reserve(cx, prepared, Some(&old))?;
    apply_rules(cx, prepared, &old, warnings)?;
    rules::admit(cx, admission, Phase::Validate, &mut new, warnings).await?;
    let mut new = new.ok_or_else(lost)?;
    cx.pause()?;
    rules::canonicalize(cx, &mut new);
    if new == old {
        return Ok(object_of(current));
    }
    if options.dry_run {
        return Ok(rules::unstored(cx.resource, &new, Some(current.revision))?);
    }
    if is_finished(cx, &new) {
        let (namespace, name) = (cx.namespace(), &cx.info.name);
        cx.registry().delete(cx.resource, namespace, name, Some(current.revision)).await?;
        return Ok(rules::unstored(cx.resource, &new, Some(current.revision))?);
    }
    let write = cx.registry().put(cx.resource, &new, Some((&old, current.revision)));
    // Others of the room have their turn now.
    drop((new, old));
    write.await
}

/// The revision and UID that the new object names must be those of the current one.
fn check_identity(cx: &Context<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let name = &cx.info.name;
    let (uid, current) = (text(new, "uid"), text(old, "uid"));
    if !uid.is_empty() && uid != current {
        return Err(ApiError::conflict(
            &cx.resource.name,
            name,
            format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, \
                 AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {current}",
                cx.resource.row.resource,
                cx.resource.item(cx.namespace(), name)
            ),
        ));
    }
    let revision = text(new, "resourceVersion");
    if matches!(revision, "" | "0") {
        if cx.resource.row.conditional_update {
            let errors = [api::meta::missing_resource_version()];
            return Err(rules::invalid(cx, new, &errors));
        }
        return Ok(());
    }
    if revision != text(old, "resourceVersion") {
        return Err(ApiError::modified(&cx.resource.name, name));
    }
    Ok(())
}

/// Prepares and validates the new object according to the part of it that the request may change.
fn apply_rules(cx: &Context<'_>, new: &mut Value, old: &Value, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    if let Some(part) = prepare::Part::of(&cx.info.subresource) {
        let errors = prepare::update(part, new, old, jiff::Timestamp::now());
        return if errors.is_empty() { Ok(()) } else { Err(rules::invalid(cx, new, &errors)) };
    }
    let rules = cx.resource.rules;
    let errors = match cx.info.subresource.as_str() {
        "status" => {
            rules.prepare_status_update(new, old);
            rules.validate_status_update(new, old)
        }
        "finalize" => {
            let mut finalized = old.clone();
            finalized["spec"]["finalizers"] = new["spec"]["finalizers"].take();
            *new = finalized;
            field::ErrorList::new()
        }
        _ => {
            let admitted = rules.admit_update(new, old).map_err(|e| rules::unreadable(cx, &e))?;
            warnings.extend(admitted.warnings);
            admitted.errors
        }
    };
    if errors.is_empty() { Ok(()) } else { Err(rules::invalid(cx, new, &errors)) }
}

/// An object that was only waiting for its finalizers goes with the last of them.
pub(super) fn is_finished(cx: &Context<'_>, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    !metadata["deletionTimestamp"].is_null()
        && empty(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (&*cx.resource.collection != "core/namespaces" || empty(&object["spec"]["finalizers"]))
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}
