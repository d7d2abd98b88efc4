//! From messages to JSON values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Payload, Reader};
use super::{Error, MAGIC, MAX_DEPTH};
use crate::quantity::Quantity;
use crate::schema::cost::{self, Budget};
use crate::schema::time::{self, Precision, complete_condition};
use crate::schema::{
    Container, DecodeError, FieldRef, Scalar, Shape, Table, Ty, TypeId, TypeRef, decode_any, is_absent, zero,
};

/// Decodes a message of a struct type.
pub(super) fn message(
    ty: TypeRef<'_>,
    bytes: &[u8],
    depth: usize,
    budget: &Budget,
) -> Result<Map<String, Value>, Error> {
    Decoder { table: ty.table, depth, budget }.message(ty, bytes)
}

pub(super) fn text(bytes: &[u8]) -> Result<String, Error> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| Error::Malformed("string field contains invalid UTF-8".to_owned()))
}

#[derive(Clone, Copy)]
struct Decoder<'t> {
    table: &'t Table,
    depth: usize,
    /// What the values of the whole body may take.
    budget: &'t Budget,
}

impl<'t> Decoder<'t> {
    fn deeper(self) -> Result<Self, Error> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::Depth);
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn charge(self, cost: usize) -> Result<(), Error> {
        self.budget.take(cost).map_err(|_| Error::TooLarge { limit: self.budget.limit() })
    }

    fn text(self, bytes: &[u8]) -> Result<String, Error> {
        self.charge(cost::text(bytes.len()))?;
        text(bytes)
    }

    fn message(self, ty: TypeRef<'t>, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
        self.charge(cost::floor(self.table, ty.id))?;
        let mut object = Map::new();
        self.members(ty, &[], bytes, &mut object)?;
        for field in ty.fields() {
            if object.get(field.name()).is_some_and(|value| is_absent(field, value)) {
                object.remove(field.name());
            }
        }
        complete_condition(ty, &mut object);
        Ok(object)
    }

    /// Reads the fields of a message; `via` are the numbers of the embedded messages around it, whose
    /// fields are the struct's own in JSON.
    fn members(self, ty: TypeRef<'t>, via: &[u8], bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Error> {
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            let Ok(number) = u8::try_from(number) else { continue };
            let path = [via, &[number]].concat();
            let Some(field) = ty.fields().find(|f| f.numbers().starts_with(&path)) else { continue };
            let embedded = field.numbers().get(path.len()).is_some_and(|next| *next != 0);
            match payload {
                Payload::Bytes(inner) if embedded => self.deeper()?.members(ty, &path, inner, object)?,
                _ => self.field(field, payload, object)?,
            }
        }
        Ok(())
    }

    fn field(self, field: FieldRef<'t>, payload: Payload<'_>, object: &mut Map<String, Value>) -> Result<(), Error> {
        let name = field.name();
        let element = field.ty().element();
        if !object.contains_key(name) {
            self.charge(cost::member(object.len()))?;
        }
        match field.ty().container {
            Container::One => {
                object.insert(name.to_owned(), self.value(element.scalar, payload)?);
            }
            Container::List if field.wrapped() => {
                object.insert(name.to_owned(), self.wrapped_list(element.scalar, payload)?);
            }
            Container::List => {
                let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Ok(()) };
                self.element(element.scalar, payload, list)?;
            }
            Container::Map | Container::MapOfLists => {
                let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(map) = map else { return Ok(()) };
                // The texts of an entry are charged where they are read.
                self.charge(cost::free_member(self.table, element, 0, map.len()))?;
                let (key, value) = self.entry(element, payload)?;
                map.insert(key, value);
            }
        }
        Ok(())
    }

    /// An element of a list, or several of a packed one.
    fn element(self, scalar: Scalar, payload: Payload<'_>, list: &mut Vec<Value>) -> Result<(), Error> {
        let packable = matches!(scalar, Scalar::Int32 | Scalar::Int64 | Scalar::Bool);
        if let (true, Payload::Bytes(packed)) = (packable, payload) {
            let mut reader = Reader::new(packed);
            while let Some(value) = reader.packed()? {
                self.charge(cost::element(list.len()))?;
                list.push(self.value(scalar, Payload::Varint(value))?);
            }
            return Ok(());
        }
        self.charge(cost::element(list.len()) + cost::inline(self.table, Ty::one(scalar)))?;
        let value = self.value(scalar, payload)?;
        list.push(if value.is_null() { zero(self.table, Ty::one(scalar)) } else { value });
        Ok(())
    }

    fn wrapped_list(self, scalar: Scalar, payload: Payload<'_>) -> Result<Value, Error> {
        let mut reader = Reader::new(bytes(payload)?);
        let mut list = Vec::new();
        while let Some((number, payload)) = reader.field()? {
            if number == 1 {
                self.element(scalar, payload, &mut list)?;
            }
        }
        Ok(list.into())
    }

    fn entry(self, value_ty: Ty, payload: Payload<'_>) -> Result<(String, Value), Error> {
        let mut reader = Reader::new(bytes(payload)?);
        let (mut key, mut value) = (String::new(), Value::Null);
        while let Some((number, payload)) = reader.field()? {
            match number {
                1 => key = self.text(bytes(payload)?)?,
                2 if value_ty.container == Container::List => value = self.wrapped_list(value_ty.scalar, payload)?,
                2 => value = self.value(value_ty.scalar, payload)?,
                _ => {}
            }
        }
        Ok((key, if value.is_null() { zero(self.table, value_ty) } else { value }))
    }

    fn value(self, scalar: Scalar, payload: Payload<'_>) -> Result<Value, Error> {
        Ok(match scalar {
            Scalar::String => self.text(bytes(payload)?)?.into(),
            Scalar::Bytes => {
                let bytes = bytes(payload)?;
                self.charge(cost::text(bytes.len() / 3 * 4))?;
                STANDARD.encode(bytes).into()
            }
            Scalar::Bool => (varint(payload)? != 0).into(),
            Scalar::Int32 => int32(varint(payload)?).into(),
            Scalar::Int64 => varint(payload)?.cast_signed().into(),
            Scalar::Double => match payload {
                Payload::Fixed64(bits) => double(f64::from_bits(bits)),
                Payload::Varint(_) | Payload::Bytes(_) | Payload::Fixed32 => return Err(wrong_wire_type()),
            },
            Scalar::Any => Value::Null,
            Scalar::Type(id) => self.deeper()?.typed(id, bytes(payload)?)?,
        })
    }

    fn typed(self, id: TypeId, bytes: &[u8]) -> Result<Value, Error> {
        let ty = self.table.get(id);
        match ty.shape() {
            Shape::Struct => self.message(ty, bytes).map(Value::Object),
            Shape::Time => timestamp(bytes, Precision::Seconds),
            Shape::MicroTime => timestamp(bytes, Precision::Micros),
            Shape::Quantity => quantity(bytes),
            Shape::IntOrString => int_or_string(bytes),
            Shape::RawExtension => self.raw_extension(bytes),
            Shape::FieldsV1 | Shape::Json => match raw_bytes(bytes)? {
                [] => Ok(Value::Null),
                json => self.parse_json(json),
            },
            Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => self.schema_union(ty.shape(), bytes),
        }
    }

    fn parse_json(self, bytes: &[u8]) -> Result<Value, Error> {
        let decoded = decode_any(bytes).map_err(|error| match error {
            DecodeError::TooLarge { limit, .. } => Error::TooLarge { limit },
            other => Error::Malformed(other.to_string()),
        })?;
        self.charge(cost::of_value(&decoded.value))?;
        Ok(decoded.value)
    }

    /// The object in a raw extension is JSON, or an object on the wire with an envelope of its own.
    fn raw_extension(self, bytes: &[u8]) -> Result<Value, Error> {
        match raw_bytes(bytes)? {
            [] => Ok(Value::Null),
            raw if raw.starts_with(&MAGIC) => super::decode_at(raw, self.depth, self.budget).map(|(_, value)| value),
            json => self.parse_json(json),
        }
    }

    /// The unions of JSON schema: in each, one field is a schema, the other a bool or a list.
    fn schema_union(self, shape: Shape, bytes: &[u8]) -> Result<Value, Error> {
        let schema = schema_type(self.table)?;
        let schema_number = if shape == Shape::SchemaOrBool { 2 } else { 1 };
        let (mut found, mut list, mut allows) = (None, Vec::new(), false);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match (number, shape) {
                (n, _) if n == schema_number => found = Some(self.value(Scalar::Type(schema), payload)?),
                (1, Shape::SchemaOrBool) => allows = varint(payload)? != 0,
                (2, Shape::SchemaOrArray) => self.element(Scalar::Type(schema), payload, &mut list)?,
                (2, Shape::SchemaOrStrings) => self.element(Scalar::String, payload, &mut list)?,
                _ => {}
            }
        }
        Ok(match (found, shape) {
            (Some(schema), _) => schema,
            (None, Shape::SchemaOrBool) => allows.into(),
            (None, _) if list.is_empty() => Value::Null,
            (None, _) => list.into(),
        })
    }
}

/// The type inside the unions of JSON schema.
pub(super) fn schema_type(table: &Table) -> Result<TypeId, Error> {
    const NAME: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    table.type_named(NAME).ok_or(Error::Unsupported(NAME))
}

fn bytes(payload: Payload<'_>) -> Result<&[u8], Error> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        Payload::Varint(_) | Payload::Fixed64(_) | Payload::Fixed32 => Err(wrong_wire_type()),
    }
}

fn varint(payload: Payload<'_>) -> Result<u64, Error> {
    match payload {
        Payload::Varint(value) => Ok(value),
        Payload::Bytes(_) | Payload::Fixed64(_) | Payload::Fixed32 => Err(wrong_wire_type()),
    }
}

fn wrong_wire_type() -> Error {
    Error::Malformed("wrong wireType".to_owned())
}

#[expect(clippy::cast_possible_truncation, reason = "protobuf reads the low 32 bits of an int32's varint")]
fn int32(value: u64) -> i32 {
    value as i32
}

/// Whole numbers print without a point, as Go prints them.
fn double(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return (value as i64).into();
    }
    value.into()
}

/// Two varints of a small message, such as seconds and nanoseconds.
fn numbers(bytes: &[u8]) -> Result<[u64; 2], Error> {
    let mut numbers = [0; 2];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        if let 1 | 2 = number {
            numbers[usize::from(number == 2)] = varint(payload)?;
        }
    }
    Ok(numbers)
}

fn timestamp(bytes: &[u8], precision: Precision) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = numbers(bytes)?;
    let nanos = if precision == Precision::Seconds { 0 } else { int32(nanos) };
    let time =
        Timestamp::new(seconds.cast_signed(), nanos).map_err(|_| Error::Malformed("time out of range".to_owned()))?;
    Ok(if time::is_zero(time) { Value::Null } else { time::format(time, precision).into() })
}

fn raw_bytes(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        if number == 1 {
            raw = self::bytes(payload)?;
        }
    }
    Ok(raw)
}

fn quantity(bytes: &[u8]) -> Result<Value, Error> {
    let amount = text(raw_bytes(bytes)?)?;
    if amount.is_empty() {
        return Ok("0".into());
    }
    let amount: Quantity =
        amount.trim().parse().map_err(|e: crate::quantity::ParseError| Error::Malformed(e.to_string()))?;
    Ok(amount.to_string().into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_string, mut int, mut string) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.field()? {
        match number {
            1 => is_string = varint(payload)? == 1,
            2 => int = int32(varint(payload)?),
            3 => string = text(self::bytes(payload)?)?,
            _ => {}
        }
    }
    Ok(if is_string { string.into() } else { int.into() })
}
