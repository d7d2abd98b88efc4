//! DELETE of one object and of collections: grace, finalizers, propagation.

use std::collections::HashSet;
use std::sync::Arc;

use api::object::Object;
use api::schema;
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::body::{media_of, too_large};
use super::context::Context;
use super::options::{DeleteOptions, ListOptions, Propagation};
use super::page::page;
use super::respond;
use super::rules::{self, Admission, Phase};
use crate::admission::Operation;
use crate::error::ApiError;
use crate::negotiate::Media;
use crate::registry::{ATTEMPTS, ObjectEntry, Refusal, Resource, object_of, text, timestamp};
use crate::request::RequestInfo;
use crate::room::{self, Client, Load};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

pub(super) async fn delete(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = read_options(cx, body)?;
    let mut warnings = Vec::new();
    match delete_one(cx, &options, &mut warnings).await? {
        Outcome::Deleted(object) if !cx.resource.row.returns_deleted => {
            respond::plain(cx, StatusCode::OK, &success(cx, &object), &warnings)
        }
        Outcome::Deleted(object) => respond::object(cx, StatusCode::OK, &object, &warnings),
        Outcome::Pending(object) => {
            let accepted = options.orphan_dependents == Some(false);
            let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
            respond::object(cx, code, &object, &warnings)
        }
    }
}

/// Deletes what the selectors choose, and answers with the list as it was.
pub(super) async fn delete_collection(cx: &Context<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let options = Arc::new(read_options(cx, body)?);
    let page = page(cx, &ListOptions::parse(cx.query, false)?).await?;
    for entry in &page.entries {
        match delete_member(cx, entry, &options).await {
            Ok(()) | Err(ApiError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    respond::list(cx, page).await
}

/// Deletes one object of a collection, in the room if it is large.
async fn delete_member(cx: &Context<'_>, entry: &ObjectEntry, options: &Arc<DeleteOptions>) -> Result<(), ApiError> {
    let key = &entry.index.key;
    let info = RequestInfo { namespace: key.namespace.to_string(), name: key.name.to_string(), ..cx.info.clone() };
    let load = Load { object: entry.bytes.len(), ..Load::default() };
    if !load.is_heavy() {
        // Others have their turn: a dry run waits for nothing.
        tokio::task::yield_now().await;
        return delete_one(&Context { info: &info, ..*cx }, options, &mut Vec::new()).await.map(drop);
    }
    let (asked, options) = (cx.asked(info), Arc::clone(options));
    let work = |client: Client| async move {
        delete_one(&asked.context(Some(&client))?, &options, &mut Vec::new()).await.map(drop)
    };
    cx.server.room.run(room::turn(cx.user), load, work).await
}

fn read_options(cx: &Context<'_>, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    if body.is_empty() {
        return DeleteOptions::of_query(cx.query);
    }
    let ty = schema::type_of("meta.k8s.io", "v1", "DeleteOptions").ok_or(ApiError::UnknownPath)?;
    let decoded = match media_of(cx.headers)? {
        Media::Json => schema::decode_json(body, ty),
        Media::Yaml => schema::decode_yaml(body, ty),
        Media::Protobuf => return respond::decode_protobuf(body, ty).and_then(DeleteOptions::of_body),
    };
    let decoded = decoded.map_err(|e| too_large(&e).unwrap_or_else(|| ApiError::BadRequest(e.to_string())))?;
    let says = |member: &str| decoded.value[member].as_str().unwrap_or("");
    if !matches!(says("kind"), "" | "DeleteOptions") {
        let (kind, version) = (says("kind"), says("apiVersion"));
        return Err(ApiError::BadRequest(format!("no kind {kind:?} is registered for version {version:?} in scheme")));
    }
    DeleteOptions::of_body(decoded.value)
}

/// What became of the object.
#[derive(Debug)]
enum Outcome {
    Deleted(Object),
    /// It waits for its grace period or its finalizers.
    Pending(Object),
}

async fn delete_one(
    cx: &Context<'_>,
    options: &DeleteOptions,
    warnings: &mut Vec<String>,
) -> Result<Outcome, ApiError> {
    for _ in 0..ATTEMPTS {
        let current = cx.registry().entry(cx.resource, cx.namespace(), &cx.info.name).ok_or_else(|| cx.not_found())?;
        let old: Value = serde_json::from_slice(&current.bytes).map_err(ApiError::internal)?;
        check_preconditions(cx, options, &old)?;
        admit(cx, options, &old, warnings).await?;
        let written = match plan(cx.resource, &old, options, Timestamp::now()) {
            Plan::Wait => return Ok(Outcome::Pending(object_of(&current))),
            Plan::Delete if options.dry_run => return Ok(Outcome::Deleted(object_of(&current))),
            Plan::Delete => {
                drop(old);
                let (namespace, name) = (cx.namespace(), &cx.info.name);
                cx.registry().delete(cx.resource, namespace, name, Some(current.revision)).await.map(Outcome::Deleted)
            }
            Plan::Mark(new) if options.dry_run => {
                return rules::unstored(cx.resource, &new, Some(current.revision)).map(Outcome::Pending);
            }
            Plan::Mark(new) => {
                let write = cx.registry().put(cx.resource, &new, Some((&old, current.revision)));
                // Others of the room have their turn now.
                drop((new, old));
                write.await.map(Outcome::Pending)
            }
        };
        match written {
            Ok(outcome) => return Ok(outcome),
            Err(Refusal::Raced) => {}
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::modified(&cx.resource.name, &cx.info.name))
}

async fn admit(
    cx: &Context<'_>,
    options: &DeleteOptions,
    old: &Value,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let admission = Admission {
        operation: Operation::Delete,
        name: &cx.info.name,
        old: Some(old),
        dry_run: options.dry_run,
        options: &options.object,
    };
    rules::admit(cx, admission, Phase::Mutate, &mut None, warnings).await?;
    rules::admit(cx, admission, Phase::Validate, &mut None, warnings).await
}

fn check_preconditions(cx: &Context<'_>, options: &DeleteOptions, old: &Value) -> Result<(), ApiError> {
    let conflict = |what: &str, given: &str, current: &str, happened: &str| {
        let detail = format!(
            "the {what} in the precondition ({given}) does not match the {what} in record ({current}). The object \
             might have been {happened}"
        );
        Err(ApiError::conflict(&cx.resource.name, &cx.info.name, detail))
    };
    let (uid, revision) = (text(old, "uid"), text(old, "resourceVersion"));
    match (&options.preconditions.uid, &options.preconditions.resource_version) {
        (Some(given), _) if given != uid => conflict("UID", given, uid, "deleted and then recreated"),
        (_, Some(given)) if given != revision => conflict("ResourceVersion", given, revision, "modified"),
        _ => Ok(()),
    }
}

/// What a delete does to the object now.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: it is being deleted already, and no sooner than before.
    Wait,
    /// It stays, marked, until its grace period or finalizers are done.
    Mark(Value),
    Delete,
}

fn plan(resource: &Resource, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = old.clone();
    let finalizers = finalizers_after(resource, old, options);
    let pending = !finalizers.is_empty();
    if new["metadata"]["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default() != finalizers {
        new["metadata"]["finalizers"] = json!(finalizers);
    }
    if &*resource.collection == "core/namespaces" {
        return plan_namespace(new, old, pending, now);
    }
    let Some(grace) = grace_period(resource, old, options) else {
        if !pending {
            return Plan::Delete;
        }
        mark(&mut new, now, 0);
        return if new == *old { Plan::Wait } else { Plan::Mark(new) };
    };
    match (is_deleting(old), old["metadata"]["deletionGracePeriodSeconds"].as_i64()) {
        // A second delete can only shorten the period.
        (true, Some(existing)) if grace < existing => {
            let earlier = shifted(text(old, "deletionTimestamp"), now, grace - existing);
            new["metadata"]["deletionTimestamp"] = json!(earlier);
            new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        (true, existing) if grace > 0 || existing != Some(0) => return Plan::Wait,
        (true, _) => {}
        (false, _) => mark(&mut new, now, grace),
    }
    if grace == 0 && !pending {
        return Plan::Delete;
    }
    if new == *old { Plan::Wait } else { Plan::Mark(new) }
}

/// The first delete marks a namespace as terminating; it goes when its spec names no finalizer.
fn plan_namespace(mut new: Value, old: &Value, pending: bool, now: Timestamp) -> Plan {
    let held = old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    if !held && !pending {
        return Plan::Delete;
    }
    if !is_deleting(old) {
        new["metadata"]["deletionTimestamp"] = json!(timestamp(now));
        new["status"]["phase"] = json!("Terminating");
    }
    if new == *old { Plan::Wait } else { Plan::Mark(new) }
}

fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Marks an object as being deleted, unless it is already.
fn mark(object: &mut Value, now: Timestamp, grace: i64) {
    if !is_deleting(object) {
        let generation = object["metadata"]["generation"].as_i64().filter(|g| *g > 0);
        if let Some(generation) = generation {
            object["metadata"]["generation"] = json!(generation + 1);
        }
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        object["metadata"]["deletionTimestamp"] = json!(timestamp(at));
    }
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
}

fn shifted(time: &str, now: Timestamp, seconds: i64) -> String {
    let time: Timestamp = time.parse().unwrap_or(now);
    timestamp(time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now))
}

/// The grace period of a kind that has one; a pod that no kubelet runs needs none.
fn grace_period(resource: &Resource, object: &Value, options: &DeleteOptions) -> Option<i64> {
    if !resource.row.graceful {
        return None;
    }
    if is_deleting(object) && options.grace_period_seconds.is_none() {
        return object["metadata"]["deletionGracePeriodSeconds"].as_i64().or(Some(0));
    }
    let (spec, status) = (&object["spec"], &object["status"]);
    let wanted = options.grace_period_seconds.or_else(|| spec["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    let bound = spec["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let finished = matches!(status["phase"].as_str(), Some("Failed" | "Succeeded"));
    Some(if !bound || finished {
        0
    } else if wanted < 0 {
        1
    } else {
        wanted
    })
}

/// The object's finalizers, with those of the garbage collector as the propagation policy asks.
fn finalizers_after(resource: &Resource, object: &Value, options: &DeleteOptions) -> Vec<Value> {
    let current = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let has = |name: &str| current.iter().any(|f| f == name);
    let (orphan, foreground) = match options.propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None if has(ORPHAN) || has(FOREGROUND) => (has(ORPHAN), has(FOREGROUND)),
        None => (resource.row.orphans_by_default, false),
    };
    let mut finalizers: Vec<_> = current.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        finalizers.push(json!(ORPHAN));
    }
    if foreground {
        finalizers.push(json!(FOREGROUND));
    }
    let known: HashSet<&Value> = current.iter().collect();
    let same_set = finalizers.len() == current.len() && finalizers.iter().all(|f| known.contains(f));
    if same_set { current } else { finalizers }
}

/// The status that answers a delete of an object that is gone.
fn success(cx: &Context<'_>, object: &Object) -> Value {
    let mut details = json!({
        "name": &*object.index.key.name,
        "kind": cx.resource.row.resource,
        "uid": &*object.index.uid,
    });
    if !cx.resource.row.group.is_empty() {
        details["group"] = json!(cx.resource.row.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests;
