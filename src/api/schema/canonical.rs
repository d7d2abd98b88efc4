//! Writing an object as Go would: fields that Go writes even when they are empty are there, fields
//! that it omits when empty are not.
//!
//! Upstream's clients see `resources: {}`, `status: {}` or `lastProbeTime: null`; so do ours.

use serde_json::{Map, Value};

use super::BUILT_IN;
use super::decode::is_absent;
use super::table::{Container, Scalar, Shape, Table, Ty, TypeId, TypeRef};

/// Brings a decoded object into the form in which it is stored and served.
pub fn canonicalize(value: &mut Value, ty: TypeId) {
    canonical(&BUILT_IN, Ty::one(Scalar::Type(ty)), value);
}

fn canonical(table: &Table, ty: Ty, value: &mut Value) {
    match (ty.container, ty.scalar, value) {
        (Container::One, Scalar::Type(id), Value::Object(object)) => {
            let ty = table.get(id);
            if ty.shape() == Shape::Struct {
                canonical_struct(ty, object);
            }
        }
        (Container::List, Scalar::Type(_), Value::Array(list)) => {
            list.iter_mut().for_each(|element| canonical(table, ty.element(), element));
        }
        (Container::Map | Container::MapOfLists, Scalar::Type(_), Value::Object(map)) => {
            map.values_mut().for_each(|element| canonical(table, ty.element(), element));
        }
        _ => {}
    }
}

fn canonical_struct(ty: TypeRef<'_>, object: &mut Map<String, Value>) {
    for field in ty.fields() {
        match object.get_mut(field.name()) {
            Some(value) if !is_absent(field, value) => canonical(ty.table, field.ty(), value),
            found => {
                let found = found.is_some();
                if always_written(field) {
                    object.insert(field.name().to_owned(), zero_field(ty.table, field.ty(), field.pointer()));
                } else if found {
                    object.remove(field.name());
                }
            }
        }
    }
}

/// Go's `omitempty` never omits a struct that is no pointer.
fn always_written(field: super::FieldRef<'_>) -> bool {
    let is_struct = field.ty().container == Container::One
        && field.type_ref().is_some_and(|ty| !matches!(ty.shape(), Shape::Json))
        && !field.pointer();
    !field.omitzero() && (!field.omitempty() || is_struct)
}

/// What Go writes for a field that nobody set: lists, maps and pointers are null.
fn zero_field(table: &Table, ty: Ty, pointer: bool) -> Value {
    match ty.container {
        Container::One if !pointer => zero(table, ty),
        Container::One | Container::List | Container::Map | Container::MapOfLists => Value::Null,
    }
}

/// Go's zero value of a type, as it is written.
pub(crate) fn zero(table: &Table, ty: Ty) -> Value {
    match ty.container {
        Container::One => {}
        Container::List => return Value::Array(Vec::new()),
        Container::Map | Container::MapOfLists => return Value::Object(Map::new()),
    }
    match ty.scalar {
        Scalar::String | Scalar::Bytes => "".into(),
        Scalar::Bool => false.into(),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => 0.into(),
        Scalar::Any => Value::Null,
        Scalar::Type(id) => {
            let ty = table.get(id);
            match ty.shape() {
                Shape::Struct => {
                    let mut object = Map::new();
                    canonical_struct(ty, &mut object);
                    object.into()
                }
                Shape::Quantity => "0".into(),
                Shape::IntOrString => 0.into(),
                Shape::SchemaOrBool => false.into(),
                Shape::Time
                | Shape::MicroTime
                | Shape::RawExtension
                | Shape::FieldsV1
                | Shape::Json
                | Shape::SchemaOrArray
                | Shape::SchemaOrStrings => Value::Null,
            }
        }
    }
}
