//! Request bodies: their form, and what they say they are.

use api::schema::{self, DecodeError, Decoded, FieldIssue, TypeId};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;

use super::context::Context;
use super::options::FieldValidation;
use crate::error::ApiError;
use crate::negotiate::{JSON, Media, PROTOBUF, YAML, unsupported_media_type};

/// The form of a body.
pub(super) fn media_of(headers: &HeaderMap) -> Result<Media, ApiError> {
    match content_type(headers) {
        "" | JSON => Ok(Media::Json),
        YAML | "application/yml" | "text/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        _ => Err(unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

/// The content type without its parameters.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

/// What a body is to be decoded as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) ty: Option<TypeId>,
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) kind: &'a str,
}

impl<'a> Target<'a> {
    /// The object of the request's resource, in the requested version.
    pub(super) fn object(cx: &Context<'a>) -> Self {
        Self { ty: cx.served.ty, group: &cx.info.group, version: &cx.info.version, kind: cx.kind() }
    }

    /// A body may leave out what it is; the object never does.
    fn stamped(&self, mut value: Value) -> Value {
        if let Some(object) = value.as_object_mut() {
            object.insert("apiVersion".into(), self.api_version().into());
            object.insert("kind".into(), self.kind.into());
        }
        value
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TypeMeta {
    api_version: String,
    kind: String,
}

/// Decodes an object; what field validation has to say goes to `warnings` or is an error.
pub(crate) fn decode(
    headers: &HeaderMap,
    body: &[u8],
    target: Target<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let media = media_of(headers)?;
    let ty = target.ty.ok_or(ApiError::UnknownPath)?;
    if media == Media::Protobuf {
        return decode_protobuf(body, target, ty);
    }
    let decoded = if media == Media::Yaml { decode_yaml(body, target, ty)? } else { decode_json(body, target, ty)? };
    let says = TypeMeta::of_value(&decoded.value).or_expected(target);
    says.check(target, body)?;
    judge_issues(&decoded.issues, validation, warnings, |error| says.failure(target, &error, body))?;
    Ok(target.stamped(decoded.value))
}

fn decode_json(body: &[u8], target: Target<'_>, ty: TypeId) -> Result<Decoded, ApiError> {
    schema::decode_json(body, ty).map_err(|error| {
        // A body that cannot be read at all says nothing.
        undecodable(|| serde_json::from_slice(body).ok(), body, target, &error)
    })
}

/// A large YAML body takes longer to read than anything that is done with it, so it is read once.
fn decode_yaml(body: &[u8], target: Target<'_>, ty: TypeId) -> Result<Decoded, ApiError> {
    let yaml = schema::read_yaml(body).map_err(|error| undecodable(|| None, body, target, &error))?;
    let says = TypeMeta::of_value(&yaml.value);
    schema::check_yaml(yaml, ty).map_err(|error| undecodable(|| Some(says), body, target, &error))
}

/// Protobuf has no unknown fields to speak of, so there is nothing to validate beyond its form.
fn decode_protobuf(body: &[u8], target: Target<'_>, ty: TypeId) -> Result<Value, ApiError> {
    if !api::protobuf::supports(ty) {
        return Err(unsupported_media_type(&[JSON, YAML]));
    }
    let unrecognized = |error: api::protobuf::Error| TypeMeta::default().failure(target, &error.to_string(), body);
    let (meta, value) = api::protobuf::decode_as(body, ty).map_err(|error| match error {
        api::protobuf::Error::TooLarge { .. } => ApiError::RequestEntityTooLarge(error.to_string()),
        other => unrecognized(other),
    })?;
    TypeMeta { api_version: meta.api_version, kind: meta.kind }.check(target, body)?;
    Ok(target.stamped(value))
}

/// The answer to a body that has no fault but what it decodes to.
pub(super) fn too_large(error: &DecodeError) -> Option<ApiError> {
    error.is_too_large().then(|| ApiError::RequestEntityTooLarge(error.to_string()))
}

fn decode_text(error: &DecodeError) -> String {
    match error {
        DecodeError::Syntax(text) => format!("couldn't get version/kind; json parse error: {text}"),
        other => other.to_string(),
    }
}

/// Warns of dropped fields, or refuses them.
pub(super) fn judge_issues(
    issues: &[FieldIssue],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
    refuse: impl FnOnce(String) -> ApiError,
) -> Result<(), ApiError> {
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.extend(issues.iter().map(ToString::to_string));
            Ok(())
        }
        FieldValidation::Strict if issues.is_empty() => Ok(()),
        FieldValidation::Strict => Err(refuse(strict_text(issues))),
    }
}

pub(super) fn strict_text(issues: &[FieldIssue]) -> String {
    let texts: Vec<_> = issues.iter().map(ToString::to_string).collect();
    format!("strict decoding error: {}", texts.join(", "))
}

/// The error of a body that is no value of its type: that it says to be another one, if it does.
fn undecodable(
    says: impl FnOnce() -> Option<TypeMeta>,
    body: &[u8],
    target: Target<'_>,
    error: &DecodeError,
) -> ApiError {
    if let Some(error) = too_large(error) {
        return error;
    }
    let says = says().map_or_else(TypeMeta::default, |says| says.or_expected(target));
    match says.check(target, body) {
        Ok(()) => says.failure(target, &decode_text(error), body),
        Err(other_type) => other_type,
    }
}

/// Whether a patched object may still be taken for what it was: it may leave out its type and name
/// another version of its kind, which upstream would convert.
pub(super) fn check_type(patched: &Value, target: Target<'_>) -> Result<(), String> {
    let text = |member: &str, unset: &str| patched[member].as_str().unwrap_or(unset).to_owned();
    let says = TypeMeta { api_version: text("apiVersion", &target.api_version()), kind: text("kind", target.kind) };
    if !says.is_registered() {
        return Err(says.not_registered());
    }
    if says.kind == target.kind { Ok(()) } else { Err(says.no_conversion(target)) }
}

impl TypeMeta {
    fn of_value(value: &Value) -> Self {
        let text = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
        Self { api_version: text("apiVersion"), kind: text("kind") }
    }

    /// What a body leaves out is as expected.
    fn or_expected(mut self, target: Target<'_>) -> Self {
        if self.kind.is_empty() {
            target.kind.clone_into(&mut self.kind);
        }
        if self.api_version.is_empty() {
            self.api_version = target.api_version();
        }
        self
    }

    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or("")
    }

    fn check(&self, target: Target<'_>, body: &[u8]) -> Result<(), ApiError> {
        let expected = target.api_version();
        if self.kind.is_empty() || (self.kind == target.kind && self.api_version.is_empty()) {
            return Ok(());
        }
        if self.kind == target.kind {
            if self.api_version == expected {
                return Ok(());
            }
            return Err(ApiError::BadRequest(format!(
                "the API version in the data ({}) does not match the expected API version ({expected})",
                self.api_version
            )));
        }
        let error = if self.is_registered() { self.no_conversion(target) } else { self.not_registered() };
        Err(self.failure(target, &error, body))
    }

    fn is_registered(&self) -> bool {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        schema::type_of(group, self.version(), &self.kind).is_some()
    }

    fn not_registered(&self) -> String {
        format!("no kind {:?} is registered for version {:?} in scheme", self.kind, self.api_version)
    }

    /// Upstream names the Go types, whose packages are called after the group's first word.
    fn no_conversion(&self, target: Target<'_>) -> String {
        let package = target.group.split('.').next().filter(|word| !word.is_empty()).unwrap_or("core");
        format!("converting ({}.{}) to ({package}.{}): unknown conversion", self.version(), self.kind, target.kind)
    }

    fn failure(&self, target: Target<'_>, error: &str, body: &[u8]) -> ApiError {
        let text = if self.kind.is_empty() {
            let summary = summary(body);
            format!("the object provided is unrecognized (must be of type {}): {error} ({summary})", target.kind)
        } else {
            format!("{} in version {:?} cannot be handled as a {}: {error}", self.kind, self.version(), target.kind)
        };
        ApiError::BadRequest(text)
    }
}

/// The beginning of a body, as upstream shows it in errors.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let cut = &body[..body.len().min(SHOWN)];
    let dots = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(cut)),
        Some(_) => format!("{}{dots}", hex::encode(cut)),
    }
}
