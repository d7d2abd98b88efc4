//! From JSON values to messages.
//!
//! Only members that are present are written: readers take an absent number as the zero value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::decode::schema_type;
use super::wire::{put_bytes_field, put_double_field, put_message_field, put_varint_field};
use super::{Error, MAX_DEPTH};
use crate::schema::time::{self, Precision};
use crate::schema::{Container, FieldRef, Numbers, Scalar, Shape, Table, Ty, TypeRef};

/// Appends the message of a struct.
pub(super) fn message(ty: TypeRef<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let Value::Object(object) = value else { return Err(not_of_type()) };
    Encoder { table: ty.table, depth: 0 }.object(ty, object, out)
}

fn not_of_type() -> Error {
    Error::Malformed("the value is not of its type".to_owned())
}

#[derive(Clone, Copy)]
struct Encoder<'t> {
    table: &'t Table,
    depth: usize,
}

/// A member that is to be written, and its numbers.
type Member<'t, 'v> = (Numbers, FieldRef<'t>, &'v Value);

impl<'t> Encoder<'t> {
    fn object(self, ty: TypeRef<'t>, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let present = object.iter().filter(|(_, value)| !value.is_null());
        let mut members: Vec<Member<'_, '_>> = present
            .filter_map(|(name, value)| ty.field(name).map(|field| (field.numbers(), field, value)))
            .filter(|(numbers, ..)| numbers[0] != 0)
            .collect();
        members.sort_by_key(|(numbers, ..)| *numbers);
        self.members(&members, 0, out)
    }

    /// Writes members that share the first `level` numbers.
    fn members(self, mut members: &[Member<'_, '_>], level: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        while let [(numbers, field, value), rest @ ..] = members {
            let number = numbers[level];
            if numbers.get(level + 1).is_none_or(|next| *next == 0) {
                self.field(number, *field, value, out)?;
                members = rest;
                continue;
            }
            let end = members.iter().position(|(n, ..)| n[level] != number).unwrap_or(members.len());
            let (embedded, rest) = members.split_at(end);
            put_message_field(out, number, |out| self.members(embedded, level + 1, out))?;
            members = rest;
        }
        Ok(())
    }

    fn field(self, number: u8, field: FieldRef<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let element = field.ty().element();
        match (field.ty().container, value) {
            (Container::One, _) => self.value(number, element.scalar, value, out),
            (Container::List, Value::Array(list)) if field.wrapped() => {
                put_message_field(out, number, |out| self.list(1, element.scalar, list, out))
            }
            (Container::List, Value::Array(list)) => self.list(number, element.scalar, list, out),
            (Container::Map | Container::MapOfLists, Value::Object(map)) => map.iter().try_for_each(|(key, value)| {
                put_message_field(out, number, |out| self.entry(key, element, value, out))
            }),
            (Container::List | Container::Map | Container::MapOfLists, _) => Err(not_of_type()),
        }
    }

    fn list(self, number: u8, scalar: Scalar, list: &[Value], out: &mut Vec<u8>) -> Result<(), Error> {
        list.iter().try_for_each(|element| self.value(number, scalar, element, out))
    }

    fn entry(self, key: &str, element: Ty, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        put_bytes_field(out, 1, key.as_bytes());
        match (element.container, value) {
            (Container::List, Value::Array(list)) => {
                put_message_field(out, 2, |out| self.list(1, element.scalar, list, out))
            }
            _ => self.value(2, element.scalar, value, out),
        }
    }

    fn value(self, number: u8, scalar: Scalar, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match (scalar, value) {
            (Scalar::String, Value::String(text)) => put_bytes_field(out, number, text.as_bytes()),
            (Scalar::Bytes, Value::String(text)) => {
                put_bytes_field(out, number, &STANDARD.decode(text).map_err(|_| not_of_type())?);
            }
            (Scalar::Bool, Value::Bool(b)) => put_varint_field(out, number, u64::from(*b)),
            (Scalar::Int32 | Scalar::Int64, Value::Number(n)) => {
                let n = n.as_i64().ok_or_else(not_of_type)?;
                put_varint_field(out, number, n.cast_unsigned());
            }
            (Scalar::Double, Value::Number(n)) => {
                put_double_field(out, number, n.as_f64().ok_or_else(not_of_type)?);
            }
            (Scalar::Type(id), _) => {
                let inner = Self { depth: self.depth + 1, ..self };
                put_message_field(out, number, |out| inner.typed(self.table.get(id), value, out))?;
            }
            (Scalar::Any, _) => return Err(Error::Unsupported("interface {}")),
            _ => return Err(not_of_type()),
        }
        Ok(())
    }

    fn typed(self, ty: TypeRef<'t>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match (ty.shape(), value) {
            (Shape::Struct, Value::Object(object)) => self.object(ty, object, out)?,
            (Shape::Time, Value::String(text)) => put_time(text, Precision::Seconds, out)?,
            (Shape::MicroTime, Value::String(text)) => put_time(text, Precision::Micros, out)?,
            (Shape::Time | Shape::MicroTime, Value::Null) => {}
            (Shape::Quantity, Value::String(text)) => put_bytes_field(out, 1, text.as_bytes()),
            (Shape::IntOrString, Value::Number(n)) => {
                put_varint_field(out, 1, 0);
                put_varint_field(out, 2, n.as_i64().ok_or_else(not_of_type)?.cast_unsigned());
                put_bytes_field(out, 3, b"");
            }
            (Shape::IntOrString, Value::String(text)) => {
                put_varint_field(out, 1, 1);
                put_varint_field(out, 2, 0);
                put_bytes_field(out, 3, text.as_bytes());
            }
            (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, _) => {
                put_bytes_field(out, 1, value.to_string().as_bytes());
            }
            (Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings, _) => {
                self.schema_union(ty.shape(), value, out)?;
            }
            _ => return Err(not_of_type()),
        }
        Ok(())
    }

    fn schema_union(self, shape: Shape, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let schema = Scalar::Type(schema_type(self.table)?);
        match (shape, value) {
            (Shape::SchemaOrBool, Value::Bool(allows)) => put_varint_field(out, 1, u64::from(*allows)),
            (Shape::SchemaOrBool, Value::Object(_)) => {
                put_varint_field(out, 1, 1);
                self.value(2, schema, value, out)?;
            }
            (_, Value::Object(_)) => self.value(1, schema, value, out)?,
            (Shape::SchemaOrArray, Value::Array(list)) => self.list(2, schema, list, out)?,
            (Shape::SchemaOrStrings, Value::Array(list)) => self.list(2, Scalar::String, list, out)?,
            _ => return Err(not_of_type()),
        }
        Ok(())
    }
}

fn put_time(text: &str, precision: Precision, out: &mut Vec<u8>) -> Result<(), Error> {
    let time = time::parse(text, precision).map_err(Error::Malformed)?;
    put_varint_field(out, 1, time.as_second().cast_unsigned());
    put_varint_field(out, 2, i64::from(time.subsec_nanosecond()).cast_unsigned());
    Ok(())
}
