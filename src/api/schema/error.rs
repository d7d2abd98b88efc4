//! What decoding can say about a body, in the words of upstream's decoder.

use std::fmt;

/// A field that decoding dropped or overwrote. Strict field validation rejects the body for it, the
/// default warns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldIssue {
    Unknown { path: String },
    Duplicate { path: String },
}

impl FieldIssue {
    /// Where the field stands in the body.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Unknown { path } | Self::Duplicate { path } => path,
        }
    }
}

impl fmt::Display for FieldIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { path } => write!(f, "unknown field {path:?}"),
            Self::Duplicate { path } => write!(f, "duplicate field {path:?}"),
        }
    }
}

/// Why a body is no value of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no JSON.
    #[error("{0}")]
    Syntax(String),
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// `found` is Go's word for the JSON value; `place` names struct and path of the field, or is
    /// nothing at the top of the body.
    #[error("json: cannot unmarshal {found} into Go {} of type {expected}", go_place(.place.as_deref()))]
    Type { found: String, place: Option<String>, expected: String },
    /// A value that a type with a syntax of its own refuses: a time, a quantity.
    #[error("{0}")]
    Value(String),
    #[error("exceeded max depth")]
    Depth,
    /// The body is small enough, but what it decodes to is not. `place` is the first value without room.
    #[error("the object takes more than {limit} bytes of memory, counted up to {place:?}")]
    TooLarge { limit: usize, place: String },
    /// The YAML is small enough, but there is too much in it to read.
    #[error("the YAML document has more than {limit} nodes")]
    TooManyNodes { limit: usize },
}

impl DecodeError {
    /// The body has no fault but how much it is.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::TooManyNodes { .. })
    }
}

fn go_place(field: Option<&str>) -> String {
    field.map_or_else(|| "value".to_owned(), |field| format!("struct field {field}"))
}
