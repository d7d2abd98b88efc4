//! Answers that know no resource: text, values and failures, in the negotiated form and compressed if
//! that is worth it.

use std::collections::HashSet;
use std::io::Write;

use api::schema::TypeId;
use axum::body::{Body, Bytes};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use crate::error::ApiError;
use crate::negotiate::{JSON, Media, Offer, Output, PROTOBUF, Shapes, YAML};
use crate::status;

/// Answers below this are not worth compressing; upstream's threshold.
pub(crate) const GZIP_FROM: usize = 128 * 1024;

/// A plain text answer.
pub(crate) fn text(code: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Answers with the status of a failure.
pub(crate) fn error_response(error: &ApiError) -> Response {
    let status = Status::from(error);
    let code = status.code.and_then(|c| u16::try_from(c).ok()).and_then(|c| StatusCode::from_u16(c).ok());
    let mut bytes = status::json(&status);
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(seconds) = status.details.and_then(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Answers with the status of a success.
pub(crate) fn success(status: &Status) -> Response {
    let code = status.code.and_then(|c| u16::try_from(c).ok()).and_then(|c| StatusCode::from_u16(c).ok());
    let mut response = Response::new(Body::from([status::json(status), b"\n".to_vec()].concat()));
    *response.status_mut() = code.unwrap_or(StatusCode::OK);
    describe(&mut response, JSON, false);
    response
}

/// Answers a request with a value that is of a built-in kind but no object of a resource, in the form
/// that the client accepts.
pub(crate) fn negotiated(parts: &Parts, value: &Value) -> Result<Response, ApiError> {
    let ty = api::schema::type_of("", "v1", value["kind"].as_str().unwrap_or(""));
    let form = ValueForm::negotiate(&parts.headers, parts.uri.query().unwrap_or(""), ty)?;
    // The list of versions says none of its own in JSON; its envelope does.
    form.answer(&parts.headers, StatusCode::OK, "v1", value, &[])
}

/// How a value that is no object of a stored resource is sent: never as a table or bare metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueForm {
    output: Output,
    ty: Option<TypeId>,
}

impl ValueForm {
    /// # Errors
    /// When the client accepts no form of such a value.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &str, ty: Option<TypeId>) -> Result<Self, ApiError> {
        let protobuf = ty.is_some_and(api::protobuf::supports);
        let offer = Offer { protobuf, shapes: Shapes::Object, stream: false };
        Ok(Self { output: Output::negotiate(headers, query, offer)?, ty })
    }

    pub(crate) fn answer(
        self,
        headers: &HeaderMap,
        code: StatusCode,
        api_version: &str,
        value: &Value,
        warnings: &[String],
    ) -> Result<Response, ApiError> {
        let (content_type, bytes) = if self.output.media == Media::Protobuf {
            let ty = self.ty.ok_or_else(without_schema)?;
            let kind = value["kind"].as_str().unwrap_or("");
            (PROTOBUF, api::protobuf::encode(value, ty, api_version, kind).map_err(ApiError::internal)?)
        } else {
            text_form(self.output, serde_json::to_vec(value).map_err(ApiError::internal)?)?
        };
        Ok(respond(headers, code, content_type, bytes, warnings))
    }
}

pub(crate) fn encode_protobuf(value: &Value, ty: Option<TypeId>) -> Result<Vec<u8>, ApiError> {
    let ty = ty.ok_or_else(without_schema)?;
    let text = |member: &str| value[member].as_str().unwrap_or("");
    api::protobuf::encode(value, ty, text("apiVersion"), text("kind")).map_err(ApiError::internal)
}

pub(crate) fn without_schema() -> ApiError {
    ApiError::internal("a type without a schema was negotiated as protobuf")
}

/// JSON in the negotiated text form, and what that is called.
pub(crate) fn text_form(output: Output, mut json: Vec<u8>) -> Result<(&'static str, Vec<u8>), ApiError> {
    if output.media == Media::Yaml {
        let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        let yaml = serde_yaml_ng::to_string(&value).map_err(ApiError::internal)?;
        return Ok((YAML, yaml.into_bytes()));
    }
    if output.pretty {
        let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        json = match status::of_value(&value) {
            Some(status) => status::pretty(&status),
            None => serde_json::to_vec_pretty(&value).map_err(ApiError::internal)?,
        };
    }
    json.push(b'\n');
    Ok((JSON, json))
}

/// An answer with its warnings.
pub(crate) fn respond(
    headers: &HeaderMap,
    code: StatusCode,
    content_type: &'static str,
    bytes: Vec<u8>,
    warnings: &[String],
) -> Response {
    let mut response = maybe_compress(headers, content_type, bytes);
    *response.status_mut() = code;
    warn(&mut response, warnings);
    response
}

/// Adds warnings to an answer.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for value in warning_headers(warnings) {
        response.headers_mut().append(WARNING, value);
    }
}

/// Upstream's limit on the characters of all warnings of one answer.
const WARNINGS_SHOWN: usize = 4 * 1024;
/// Where upstream cuts each warning once all together pass their limit.
const WARNING_SHOWN: usize = 256;

/// The headers of an answer's warnings, each warning once. Together they stay within what clients read:
/// when they are too long each is cut, and what does not fit then is left out.
fn warning_headers(warnings: &[String]) -> Vec<HeaderValue> {
    let mut known = HashSet::new();
    let different: Vec<&str> =
        warnings.iter().map(String::as_str).filter(|w| !w.is_empty() && known.insert(*w)).collect();
    let whole: usize = different.iter().map(|w| w.chars().count()).sum();
    let longest = if whole > WARNINGS_SHOWN { WARNING_SHOWN } else { WARNINGS_SHOWN };
    let mut written = 0;
    let mut headers = Vec::new();
    for warning in different {
        if written >= WARNINGS_SHOWN {
            break;
        }
        let shown: String = warning.chars().take(longest).collect();
        written += shown.chars().count();
        headers.extend(warning_header(&shown));
    }
    headers
}

/// `299 - "text"`, with what a quoted string cannot hold escaped or dropped.
fn warning_header(text: &str) -> Option<HeaderValue> {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

/// How much memory an answer takes that was built whole, as an extension of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffered(pub(crate) usize);

/// A 200 answer, compressed if it is large and the client can read that.
pub(crate) fn maybe_compress(headers: &HeaderMap, content_type: &'static str, bytes: Vec<u8>) -> Response {
    let compressed = if bytes.len() >= GZIP_FROM && accepts_gzip(headers) { gzip(&bytes) } else { None };
    let mut response = Response::new(Body::empty());
    describe(&mut response, content_type, compressed.is_some());
    let bytes = compressed.unwrap_or(bytes);
    response.extensions_mut().insert(Buffered(bytes.capacity()));
    *response.body_mut() = Body::from(Bytes::from(bytes));
    response
}

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"))
}

pub(crate) fn describe(response: &mut Response, content_type: &'static str, compressed: bool) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(warnings: &[String], expected: &[usize]) {
        let got: Vec<usize> = warning_headers(warnings).iter().map(HeaderValue::len).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn warnings_are_told_once_and_cut_when_they_are_long() {
        const FRAME: usize = "299 - \"\"".len();
        let text = |i: usize, length: usize| format!("{i:04}{}", "x".repeat(length - 4));
        check(&[text(1, 4_000), text(1, 4_000), text(2, 96)], &[FRAME + 4_000, FRAME + 96]);
        check(&[text(1, 4_000), text(2, 97)], &[FRAME + 256, FRAME + 97]);
        let many: Vec<String> = (0..100).map(|i| text(i, 22_000)).collect();
        check(&many, &[FRAME + 256; 16]);
        check(&["é".repeat(5_000)], &[FRAME + 2 * 256]);
    }
}
