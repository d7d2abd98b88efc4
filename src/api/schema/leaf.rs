//! The scalars that have a syntax of their own: reading them from JSON text or numbers into their
//! canonical JSON form.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{DecodeError, Engine as _, alphabet};
use serde_json::Value;

use super::table::Shape;
use super::time::{self, Precision};
use crate::quantity::Quantity;

/// A JSON scalar as the decoder meets it.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    Bool(bool),
    Int(i64),
    /// A number that is no `i64`, and its text.
    Number(serde_json::Number),
    String(String),
}

impl Leaf {
    /// Go's word for the kind of value.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Number(_) => "number",
            Self::String(_) => "string",
        }
    }

    /// The word as integer fields print it, with the number.
    pub(super) fn word_for_integer(&self) -> String {
        match self {
            Self::Int(n) => format!("number {n}"),
            Self::Number(n) => format!("number {n}"),
            Self::Bool(_) | Self::String(_) => self.word().to_owned(),
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Bool(b) => b.into(),
            Self::Int(n) => n.into(),
            Self::Number(n) => n.into(),
            Self::String(s) => s.into(),
        }
    }
}

/// Reads a value of a type with a syntax of its own. `Ok(None)` is Go's zero, written as null.
///
/// # Errors
/// With the whole text that the user is to read.
pub(super) fn read(shape: Shape, leaf: Leaf) -> Result<Option<Value>, String> {
    match shape {
        Shape::Time => read_time(&leaf, Precision::Seconds),
        Shape::MicroTime => read_time(&leaf, Precision::Micros),
        Shape::Quantity => read_quantity(&leaf).map(Some),
        Shape::IntOrString => read_int_or_string(leaf).map(Some),
        Shape::RawExtension | Shape::FieldsV1 | Shape::Json => Ok(Some(leaf.into_value())),
        Shape::SchemaOrBool => match leaf {
            Leaf::Bool(allowed) => Ok(Some(allowed.into())),
            Leaf::Int(_) | Leaf::Number(_) | Leaf::String(_) => Err("boolean or JSON schema expected".into()),
        },
        // Upstream takes anything else as the empty value.
        Shape::SchemaOrArray | Shape::SchemaOrStrings => Ok(None),
        Shape::Struct => Err(format!("json: cannot unmarshal {} into a struct", leaf.word())),
    }
}

fn read_time(leaf: &Leaf, precision: Precision) -> Result<Option<Value>, String> {
    let Leaf::String(text) = leaf else { return Err(nested(leaf.word(), "string")) };
    let read = time::parse(text, precision)?;
    Ok((!time::is_zero(read)).then(|| time::format(read, precision).into()))
}

fn read_quantity(leaf: &Leaf) -> Result<Value, String> {
    let text = match leaf {
        Leaf::String(text) => text.trim().to_owned(),
        Leaf::Int(n) => n.to_string(),
        Leaf::Number(n) => n.to_string(),
        Leaf::Bool(b) => b.to_string(),
    };
    let quantity: Quantity = text.parse().map_err(|error: crate::quantity::ParseError| error.to_string())?;
    Ok(quantity.to_string().into())
}

fn read_int_or_string(leaf: Leaf) -> Result<Value, String> {
    match &leaf {
        Leaf::String(_) => Ok(leaf.into_value()),
        Leaf::Int(n) if i32::try_from(*n).is_ok() => Ok((*n).into()),
        Leaf::Int(_) | Leaf::Number(_) | Leaf::Bool(_) => Err(nested(&leaf.word_for_integer(), "int32")),
    }
}

/// The error of a decoder that was called for one value only and knows no field.
fn nested(found: &str, expected: &str) -> String {
    format!("json: cannot unmarshal {found} into Go value of type {expected}")
}

/// Reads base64 as Go does, which ignores line breaks, and writes it without them.
pub(super) fn read_bytes(text: &str) -> Result<String, String> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&clean) {
        Ok(_) => Ok(clean),
        // Bits beyond the last byte mean nothing to Go, and are gone when it writes.
        Err(DecodeError::InvalidLastSymbol(..)) => {
            lenient().decode(&clean).map(|bytes| STANDARD.encode(bytes)).map_err(|error| illegal(&error, &clean))
        }
        Err(error) => Err(illegal(&error, &clean)),
    }
}

fn illegal(error: &DecodeError, text: &str) -> String {
    format!("illegal base64 data at input byte {}", base64_fault(error, text.len()))
}

fn lenient() -> GeneralPurpose {
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true))
}

fn base64_fault(error: &DecodeError, length: usize) -> usize {
    match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => *at,
        // Go points at the start of the quantum that ends too early.
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => length / 4 * 4,
    }
}
