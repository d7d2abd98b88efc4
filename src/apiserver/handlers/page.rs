//! One page of a collection: what is on it, and where the next one begins.
//!
//! Pages are consistent with each other for as long as the store knows the revision of the first.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::options::{ListOptions, VersionMatch};
use super::selection::Selection;
use super::walk::{self, Found, Range};
use crate::error::ApiError;
use crate::registry::ObjectEntry;

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// One page of a collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<ObjectEntry>>,
    pub(crate) revision: u64,
    /// Where the next page begins; empty on the last.
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<usize>,
}

/// What is left of a paged list.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

/// Where a page begins, and as of when.
struct Position {
    start: String,
    at: Option<u64>,
    continued: bool,
    limit: usize,
}

pub(crate) async fn page(cx: &Context<'_>, options: &ListOptions) -> Result<Page, ApiError> {
    let selection = Arc::new(Selection::new(cx, options)?);
    let position = position(cx, options, &selection)?;
    let range = Range { start: position.start.clone(), at: position.at, limit: position.limit };
    let Found { entries, revision, beyond } =
        walk::find(cx, &selection, range).await?.map_err(|_| expired(&position))?;
    let next = entries.last().filter(|_| beyond > 0).map(|last| format!("{}\0", last.key.item));
    Ok(Page {
        continue_token: next.map_or_else(String::new, |start| token(revision, start)),
        remaining: (beyond > 0 && selection.is_everything()).then_some(beyond),
        entries,
        revision,
    })
}

pub(crate) fn not_in_future(requested: Option<u64>, current: u64) -> Result<(), ApiError> {
    match requested {
        Some(requested) if requested > current => Err(ApiError::TooLargeResourceVersion { requested, current }),
        Some(_) | None => Ok(()),
    }
}

fn position(cx: &Context<'_>, options: &ListOptions, selection: &Selection) -> Result<Position, ApiError> {
    if !options.continue_token.is_empty() {
        let position = continued(&options.continue_token, selection, options.limit)
            .map_err(|why| ApiError::BadRequest(format!("invalid continue token: continue key is not valid{why}")))?;
        if !options.resource_version.is_open() {
            return Err(ApiError::BadRequest("specifying resource version is not allowed when using continue".into()));
        }
        return Ok(position);
    }
    let invalid = |why: String| ApiError::BadRequest(format!("invalid resource version: {why}"));
    let version = options.resource_version.parse().map_err(invalid)?;
    not_in_future(version, cx.registry().storage().revision())?;
    // Without a match rule a revision is a lower bound, unless the list is paged: then it is exact.
    let exact = match options.version_match {
        Some(VersionMatch::Exact) => true,
        Some(VersionMatch::NotOlderThan) => false,
        None => options.limit > 0,
    };
    let at = version.filter(|v| exact && *v != 0);
    // Upstream serves "any revision" from its cache, which does not page.
    let limit = if version == Some(0) { 0 } else { options.limit };
    Ok(Position { start: String::new(), at, continued: false, limit })
}

/// Where a token says to go on; the error is the end of upstream's message.
fn continued(token: &str, selection: &Selection, limit: usize) -> Result<Position, String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| format!(": {e}"))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| format!(": {e}"))?;
    if token.v != TOKEN_VERSION {
        return Err(format!(": server does not recognize this encoded version {}", token.v));
    }
    if token.rv == 0 {
        return Err(format!(": incorrect encoded start resourceVersion (version {TOKEN_VERSION})"));
    }
    if token.start.is_empty() {
        return Err(format!(": encoded start key empty (version {TOKEN_VERSION})"));
    }
    if !token.start.starts_with(&selection.prefix()) {
        return Err(format!(": {}", token.start));
    }
    // A negative revision continues at the newest state, without consistency.
    Ok(Position { start: token.start, at: u64::try_from(token.rv).ok(), continued: true, limit })
}

fn token(revision: u64, start: String) -> String {
    let token = Token { v: TOKEN_VERSION.into(), rv: i64::try_from(revision).unwrap_or(i64::MAX), start };
    encode(&token)
}

fn encode(token: &Token) -> String {
    let json = serde_json::to_vec(token).expect("invariant: text and numbers serialize");
    URL_SAFE_NO_PAD.encode(json)
}

fn expired(position: &Position) -> ApiError {
    if !position.continued {
        return ApiError::Expired {
            message: "The resourceVersion for the provided list is too old.".into(),
            continue_token: None,
        };
    }
    let token = Token { v: TOKEN_VERSION.into(), rv: -1, start: position.start.clone() };
    ApiError::Expired {
        message: "The provided continue parameter is too old to display a consistent list result. You can start a new \
                  list without the continue parameter, or use the continue token in this response to retrieve the \
                  remainder of the results. Continuing with the provided token results in an inconsistent list - \
                  objects that were created, modified, or deleted between the time the first chunk was returned and \
                  now may show up in the list."
            .into(),
        continue_token: Some(encode(&token)),
    }
}
