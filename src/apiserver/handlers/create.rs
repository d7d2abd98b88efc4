//! POST to a collection.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::body::{Target, decode};
use super::context::Context;
use super::options::WriteOptions;
use super::respond;
use super::rules::{self, Admission, Phase};
use crate::admission::{Operation, random_suffix};
use crate::auth::user;
use crate::error::ApiError;
use crate::registry::{Refusal, text, timestamp};
use crate::rest::prepare;

/// Names that are generated before a collision is given up, as upstream.
const NAME_ATTEMPTS: usize = 8;
/// The longest prefix that still leaves room for the suffix in a name of 63 letters.
const LONGEST_PREFIX: usize = 58;

pub(super) async fn create(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = WriteOptions::parse(cx.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let target = Target::object(cx);
    let object = decode(cx.headers, body, target, options.field_validation, &mut warnings)?;
    cx.pause()?;
    let created = create_object(cx, object, "", &options, &mut warnings).await?;
    respond::object(cx, StatusCode::CREATED, &created, &warnings)
}

/// Creates an object of the requested version. `url_name` is the name in the path, if there is one.
pub(super) async fn create_object(
    cx: &Context<'_>,
    object: Value,
    url_name: &str,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<api::object::Object, ApiError> {
    let mut object = rules::to_stored(cx, object)?;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    rules::match_namespace(cx, &mut object)?;
    rules::drop_managed_fields(&mut object);
    rules::default_early(cx, Operation::Create, &mut object)?;
    if !matches!(text(&object, "resourceVersion"), "" | "0") {
        return Err(ApiError::Unknown("resourceVersion should not be set on objects to be created".into()));
    }
    set_system_fields(&mut object);
    cx.pause()?;
    // The mutating plugins see and name what the request had; later refusals know the generated name.
    let generates = needs_name(&object);
    let Some(object) = admitted(cx, object, url_name, options, Phase::Mutate, warnings).await? else {
        return Err(ApiError::internal("admission removed the object"));
    };
    if !generates {
        return create_once(cx, object, url_name, options, warnings).await;
    }
    let prefix = text(&object, "generateName").to_owned();
    let said = warnings.len();
    let mut name = String::new();
    for _ in 0..NAME_ATTEMPTS {
        let mut attempt = object.clone();
        name = generated_name(&prefix);
        attempt["metadata"]["name"] = json!(name);
        match create_once(cx, attempt, url_name, options, warnings).await {
            Err(ApiError::AlreadyExists { .. }) => warnings.truncate(said),
            other => return other,
        }
    }
    Err(ApiError::GenerateNameConflict { resource: cx.resource.name.clone(), name })
}

fn needs_name(object: &Value) -> bool {
    text(object, "name").is_empty() && !text(object, "generateName").is_empty()
}

fn generated_name(prefix: &str) -> String {
    let end = (0..=LONGEST_PREFIX.min(prefix.len())).rev().find(|i| prefix.is_char_boundary(*i)).unwrap_or(0);
    format!("{}{}", &prefix[..end], random_suffix())
}

/// The object as one phase of admission leaves it.
async fn admitted(
    cx: &Context<'_>,
    object: Value,
    url_name: &str,
    options: &WriteOptions,
    phase: Phase,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, ApiError> {
    let name = text(&object, "name").to_owned();
    let admission = Admission {
        operation: Operation::Create,
        name: if name.is_empty() { url_name } else { &name },
        old: None,
        dry_run: options.dry_run,
        options: &options.object,
    };
    let mut object = Some(object);
    rules::admit(cx, admission, phase, &mut object, warnings).await?;
    Ok(object)
}

/// Creates an object whose name is known and that the mutating plugins have seen.
async fn create_once(
    cx: &Context<'_>,
    mut object: Value,
    url_name: &str,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<api::object::Object, ApiError> {
    let name = text(&object, "name").to_owned();
    if cx.resource.row.kind == "CertificateSigningRequest" {
        prepare::set_requester(&mut object, cx.user);
    }
    cx.pause()?;
    let _reservation = rules::reserve(cx, &mut object, None)?;
    let judged = cx.resource.rules.admit_create(&mut object).map_err(|e| rules::unreadable(cx, &e))?;
    warnings.extend(judged.warnings);
    if !judged.errors.is_empty() {
        return Err(rules::invalid(cx, &object, &judged.errors));
    }
    let Some(mut object) = admitted(cx, object, url_name, options, Phase::Validate, warnings).await? else {
        return Err(ApiError::internal("admission removed the object"));
    };
    if replaces_what_is_damaged(cx, &object, &name) {
        return Err(cx.damaged(&name));
    }
    rules::canonicalize(cx, &mut object);
    cx.pause()?;
    if options.dry_run {
        return dry_run(cx, &object);
    }
    let write = cx.registry().put(cx.resource, &object, None);
    // Others of the room have their turn now.
    drop(object);
    write.await.map_err(|refusal| match refusal {
        Refusal::Raced => ApiError::AlreadyExists { resource: cx.resource.name.clone(), name },
        Refusal::Failed(error) => error,
    })
}

/// A controller would put something empty in the place of what is damaged; a person may. A name that was
/// just made, and an event, take no other's place.
fn replaces_what_is_damaged(cx: &Context<'_>, object: &Value, name: &str) -> bool {
    let storage = cx.registry().storage();
    let item = cx.resource.item(text(object, "namespace"), name);
    if !cx.user.is_in(user::SERVICE_ACCOUNTS) || !storage.is_set_aside(&cx.resource.collection, &item) {
        return false;
    }
    let is_new = !text(object, "generateName").is_empty() || cx.resource.row.kind == "Event";
    !(is_new && storage.may_be_lost(&cx.resource.collection, &item))
}

fn dry_run(cx: &Context<'_>, object: &Value) -> Result<api::object::Object, ApiError> {
    let name = text(object, "name");
    if cx.registry().entry(cx.resource, text(object, "namespace"), name).is_some() {
        return Err(ApiError::AlreadyExists { resource: cx.resource.name.clone(), name: name.to_owned() });
    }
    rules::unstored(cx.resource, object, None)
}

/// What only the server may say about a new object.
fn set_system_fields(object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".into(), json!(timestamp(jiff::Timestamp::now())));
}
