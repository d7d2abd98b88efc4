//! Kubernetes' protobuf: objects between the wire and JSON values, driven by the schema table.
//!
//! An object on the wire is the magic `k8s\0` and a `runtime.Unknown` that names its kind and holds the
//! message. Decoded values are as [`crate::schema::decode_json`] leaves them. Types for which the table
//! has no field numbers are [`Error::Unsupported`]: the caller answers 415 or JSON. Input is bounded in
//! depth and in what it decodes to, and no length is believed before it is checked.

mod decode;
mod encode;
pub(crate) mod wire;

use serde_json::Value;

use crate::schema::cost::Budget;
use crate::schema::{TypeId, describe, type_of};
use wire::{Payload, Reader};

/// What every object starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Messages inside messages; upstream's deepest types, schemas of CRDs, stay below.
const MAX_DEPTH: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("proto: {0}")]
    Malformed(String),
    #[error("exceeded max depth")]
    Depth,
    #[error("the object takes more than {limit} bytes of memory")]
    TooLarge { limit: usize },
    /// The table has no numbers for this type.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    Unsupported(&'static str),
}

/// The kind that an envelope names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

impl TypeMeta {
    /// Group and version.
    #[must_use]
    pub fn group_version(&self) -> (&str, &str) {
        self.api_version.split_once('/').unwrap_or(("", &self.api_version))
    }
}

/// Are the numbers of this type's fields known?
#[must_use]
pub fn supports(ty: TypeId) -> bool {
    describe(ty).fields().all(|f| f.numbers()[0] != 0 || matches!(f.name(), "apiVersion" | "kind"))
}

/// Decodes an object of the kind that it names.
///
/// # Errors
/// When the bytes are no object, or of a kind that the table does not have.
pub fn decode(bytes: &[u8]) -> Result<(TypeMeta, Value), Error> {
    decode_at(bytes, 0, &Budget::new())
}

fn decode_at(bytes: &[u8], depth: usize, budget: &Budget) -> Result<(TypeMeta, Value), Error> {
    let envelope = envelope(bytes)?;
    let (group, version) = envelope.meta.group_version();
    let ty = type_of(group, version, &envelope.meta.kind).ok_or_else(|| Error::UnknownKind {
        api_version: envelope.meta.api_version.clone(),
        kind: envelope.meta.kind.clone(),
    })?;
    let value = decode_envelope(&envelope, ty, depth, budget)?;
    Ok((envelope.meta, value))
}

/// Decodes an object as a type, whatever kind it names.
///
/// # Errors
/// When the bytes are no object.
pub fn decode_as(bytes: &[u8], ty: TypeId) -> Result<(TypeMeta, Value), Error> {
    let envelope = envelope(bytes)?;
    let value = decode_envelope(&envelope, ty, 0, &Budget::new())?;
    Ok((envelope.meta, value))
}

fn decode_envelope(envelope: &Envelope<'_>, ty: TypeId, depth: usize, budget: &Budget) -> Result<Value, Error> {
    if !supports(ty) {
        return Err(Error::Unsupported(describe(ty).name()));
    }
    let mut object = decode::message(describe(ty), envelope.raw, depth, budget)?;
    for (key, value) in [("apiVersion", &envelope.meta.api_version), ("kind", &envelope.meta.kind)] {
        if !value.is_empty() {
            object.insert(key.to_owned(), value.as_str().into());
        }
    }
    Ok(object.into())
}

struct Envelope<'a> {
    meta: TypeMeta,
    raw: &'a [u8],
}

fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let mut reader = Reader::new(bytes.strip_prefix(&MAGIC).ok_or(Error::NoMagic)?);
    let mut envelope = Envelope { meta: TypeMeta::default(), raw: &[] };
    while let Some((number, payload)) = reader.field()? {
        match (number, payload) {
            (1, Payload::Bytes(meta)) => envelope.meta = type_meta(meta)?,
            (2, Payload::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    let mut reader = Reader::new(bytes);
    let mut meta = TypeMeta::default();
    while let Some((number, payload)) = reader.field()? {
        match (number, payload) {
            (1, Payload::Bytes(text)) => meta.api_version = decode::text(text)?,
            (2, Payload::Bytes(text)) => meta.kind = decode::text(text)?,
            _ => {}
        }
    }
    Ok(meta)
}

/// Encodes an object with its envelope.
///
/// # Errors
/// When the table has no numbers for the type, or the value is not of the type.
pub fn encode(value: &Value, ty: TypeId, api_version: &str, kind: &str) -> Result<Vec<u8>, Error> {
    if !supports(ty) {
        return Err(Error::Unsupported(describe(ty).name()));
    }
    enveloped(api_version, kind, |out| encode::message(describe(ty), value, out))
}

/// Encodes a list with its envelope. Items are asked for one after another, so that only one needs to
/// be a value at a time.
///
/// # Errors
/// When the type is no list or has no numbers, an item is not of its type, or `items` fails.
pub fn encode_list<E: From<Error>>(
    ty: TypeId,
    (api_version, kind): (&str, &str),
    metadata: Value,
    items: impl Iterator<Item = Result<Value, E>>,
) -> Result<Vec<u8>, E> {
    let list = describe(ty);
    let Some((field, item)) = list.field("items").and_then(|field| Some((field, field.type_ref()?))) else {
        return Err(Error::Unsupported(list.name()).into());
    };
    let head = Value::Object([("metadata".to_owned(), metadata)].into_iter().collect());
    let number = field.numbers()[0];
    enveloped(api_version, kind, |out| {
        encode::message(list, &head, out)?;
        for value in items {
            let value = value?;
            wire::put_message_field(out, number, |out| encode::message(item, &value, out))?;
        }
        Ok(())
    })
}

fn enveloped<E: From<Error>>(
    api_version: &str,
    kind: &str,
    message: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut out = MAGIC.to_vec();
    wire::put_message_field(&mut out, 1, |out| {
        wire::put_bytes_field(out, 1, api_version.as_bytes());
        wire::put_bytes_field(out, 2, kind.as_bytes());
        Ok::<(), E>(())
    })?;
    wire::put_message_field(&mut out, 2, message)?;
    wire::put_bytes_field(&mut out, 3, b"");
    wire::put_bytes_field(&mut out, 4, b"");
    Ok(out)
}

/// One event of a watch as it is streamed: length, then a bare `WatchEvent` with the encoded object.
#[must_use]
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    wire::put_bytes_field(&mut frame, 1, event.as_bytes());
    let written: Result<(), Error> = wire::put_message_field(&mut frame, 2, |out| {
        wire::put_bytes_field(out, 1, object);
        Ok(())
    });
    written.expect("invariant: the closure cannot fail");
    let length = u32::try_from(frame.len() - 4).expect("invariant: an object is smaller than 4 GiB");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests;
