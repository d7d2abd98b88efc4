//! GET of one object and of collections.

use axum::response::Response;
use http::StatusCode;

use super::context::Context;
use super::options::{ListOptions, RequestedVersion};
use super::page::{not_in_future, page};
use super::respond;
use crate::answer;
use crate::error::ApiError;
use crate::registry::object_of;

pub(super) fn get(cx: &Context<'_>) -> Result<Response, ApiError> {
    let version = RequestedVersion::of_query(cx.query).parse().map_err(ApiError::Unknown)?;
    not_in_future(version, cx.registry().storage().revision())?;
    let entry = cx.registry().entry(cx.resource, cx.namespace(), &cx.info.name).ok_or_else(|| cx.not_found())?;
    respond::object(cx, StatusCode::OK, &object_of(&entry), &[])
}

pub(super) async fn list(cx: &Context<'_>) -> Result<Response, ApiError> {
    let options = ListOptions::parse(cx.query, false)?;
    let page = page(cx, &options).await?;
    let mut response = respond::list(cx, page).await?;
    // A client that compares lists would take what is missing for deleted, and nobody else tells it.
    if let Some(damaged) = cx.registry().set_aside_in(cx.resource, Some(cx.namespace()).filter(|n| !n.is_empty())) {
        answer::warn(&mut response, &[format!("{damaged} cannot be read and is not in this list")]);
    }
    Ok(response)
}
