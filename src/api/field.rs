//! Validation errors that name a field, with upstream's wording.
//!
//! A [`Path`] is a chain of borrowed segments: walking an object allocates nothing, only an error
//! writes its path down. The printed form of an [`Error`] and its cause reason are what clients see
//! in a `Status`, so both follow upstream to the letter.

mod list;

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

pub use list::ErrorList;

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    /// Upstream prints a missing path like this.
    Nil,
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

/// Where a value stands in its object: `spec.containers[0].env[1].name`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Self>,
    segment: Segment<'a>,
}

impl<'a> Path<'a> {
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self { parent: None, segment: Segment::Name(name) }
    }

    /// The path of something that has none; it prints as `<nil>`.
    #[must_use]
    pub fn nil() -> Self {
        Self { parent: None, segment: Segment::Nil }
    }

    /// A field below this one; several levels may be given at once, joined by dots.
    #[must_use]
    pub fn child(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Name(name) }
    }

    #[must_use]
    pub fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), segment: Segment::Index(index) }
    }

    #[must_use]
    pub fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.filter(|p| !matches!(p.segment, Segment::Nil));
        if let Some(parent) = parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Nil => f.write_str("<nil>"),
            Segment::Name("") => f.write_str("[]"),
            Segment::Name(name) if parent.is_some() => write!(f, ".{name}"),
            Segment::Name(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of the cause in a `Status`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    pub field: String,
    /// The offending value as it is printed, when this kind prints it.
    pub bad_value: Option<String>,
    pub detail: String,
}

impl Error {
    fn new(kind: ErrorKind, path: &Path<'_>, bad_value: Option<String>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), bad_value, detail: detail.into() }
    }

    /// The message without the field's path, as a cause carries it.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = String::from(self.kind.text());
        if let Some(value) = self.bad_value.as_deref().filter(|_| self.kind.shows_value()) {
            body.push_str(": ");
            body.push_str(value);
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// Several errors as one text: `[a, b]`, a single one bare; repeated messages count once.
#[must_use]
pub fn aggregate(errors: &[Error]) -> String {
    aggregate_texts(errors.iter().map(ToString::to_string))
}

/// As [`aggregate`], of texts.
#[must_use]
pub fn aggregate_texts(texts: impl IntoIterator<Item = String>) -> String {
    let mut known = HashSet::new();
    let texts: Vec<String> = texts.into_iter().filter(|text| known.insert(text.clone())).collect();
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// How a bad value is printed: scalars bare, text quoted, anything else as JSON.
fn printed(value: &(impl Serialize + ?Sized)) -> Option<String> {
    serde_json::to_value(value).ok().map(|v| match v {
        serde_json::Value::String(s) => quote(&s),
        other => other.to_string(),
    })
}

/// Quotes text as Go's `%q` does for the characters that occur in names and paths.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0xa0 && !c.is_ascii() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[must_use]
pub fn not_found(path: &Path<'_>, value: &(impl Serialize + ?Sized)) -> Error {
    Error::new(ErrorKind::NotFound, path, printed(value), "")
}

#[must_use]
pub fn required(path: &Path<'_>, detail: &str) -> Error {
    Error::new(ErrorKind::Required, path, None, detail)
}

#[must_use]
pub fn duplicate(path: &Path<'_>, value: &(impl Serialize + ?Sized)) -> Error {
    Error::new(ErrorKind::Duplicate, path, printed(value), "")
}

#[must_use]
pub fn invalid(path: &Path<'_>, value: &(impl Serialize + ?Sized), detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, path, printed(value), detail)
}

/// One [`invalid`] for each complaint about `value`.
pub fn invalid_each(
    path: &Path<'_>,
    value: &(impl Serialize + ?Sized),
    complaints: impl IntoIterator<Item = String>,
    errs: &mut ErrorList,
) {
    errs.extend(complaints.into_iter().map(|why| invalid(path, value, why)));
}

/// Refuses a number below zero.
pub fn non_negative(path: &Path<'_>, value: i64, errs: &mut ErrorList) {
    if value < 0 {
        errs.push(invalid(path, &value, "must be greater than or equal to 0"));
    }
}

/// Refuses a change.
pub fn immutable<T: PartialEq + Serialize>(path: &Path<'_>, new: &T, old: &T, errs: &mut ErrorList) {
    if new != old {
        errs.push(invalid(path, new, "field is immutable"));
    }
}

#[must_use]
pub fn not_supported(path: &Path<'_>, value: &(impl Serialize + ?Sized), supported: &[&str]) -> Error {
    let detail = match supported {
        [] => String::new(),
        values => {
            format!("supported values: {}", values.iter().map(|v| quote(v)).collect::<Vec<_>>().join(", "))
        }
    };
    Error::new(ErrorKind::NotSupported, path, printed(value), detail)
}

#[must_use]
pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, path, None, detail)
}

#[must_use]
pub fn too_long(path: &Path<'_>, max_bytes: usize) -> Error {
    Error::new(ErrorKind::TooLong, path, None, format!("may not be more than {max_bytes} bytes"))
}

#[must_use]
pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Error {
    let noun = if max == 1 { "item" } else { "items" };
    Error::new(ErrorKind::TooMany, path, Some(actual.to_string()), format!("must have at most {max} {noun}"))
}

#[must_use]
pub fn internal(path: &Path<'_>, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Internal, path, None, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: &Error, expected: &str) {
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_print_as_upstream_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        check(&required(&first.child("image"), ""), "spec.containers[0].image: Required value");
        check(&invalid(&spec.child("replicas"), &-1, "must be >= 0"), "spec.replicas: Invalid value: -1: must be >= 0");
        check(&duplicate(&first.child("name"), "a"), "spec.containers[0].name: Duplicate value: \"a\"");
        check(
            &not_supported(&spec.child("restartPolicy"), "x", &["Always", "Never"]),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\"",
        );
        check(&too_long(&Path::new(""), 7), "[]: Too long: may not be more than 7 bytes");
        check(&too_many(&spec, 9, 8), "spec: Too many: 9: must have at most 8 items");
        check(&forbidden(&spec.key("a/b"), "no"), "spec[a/b]: Forbidden: no");
        check(&invalid(&Path::nil(), "v", "bad"), "<nil>: Invalid value: \"v\": bad");
        let labels = std::collections::BTreeMap::from([("app", "x")]);
        check(&invalid(&spec, &labels, "bad"), "spec: Invalid value: {\"app\":\"x\"}: bad");
    }

    #[test]
    fn an_aggregate_drops_repeats_and_brackets_several() {
        let path = Path::new("a");
        let one = required(&path, "");
        assert_eq!(aggregate(&[one.clone(), one.clone()]), "a: Required value");
        assert_eq!(aggregate(&[one, forbidden(&path, "no")]), "[a: Required value, a: Forbidden: no]");
    }
}
