//! Random objects of any type of the table, for property tests. Lists and maps are never empty: the
//! wire cannot tell an empty one from none.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::table::{Container, FieldRef, Scalar, Shape, Ty, TypeId};
use super::{built_in, describe};

/// Structs nested deeper than this stay empty.
const DEPTH: usize = 4;

/// Objects of a type, each field there or not.
pub(crate) fn object_of(ty: TypeId) -> BoxedStrategy<Value> {
    object(ty, DEPTH)
}

fn object(ty: TypeId, depth: usize) -> BoxedStrategy<Value> {
    let names: Vec<FieldRef<'static>> =
        describe(ty).fields().filter(|f| !matches!(f.name(), "kind" | "apiVersion")).collect();
    if depth == 0 || names.is_empty() {
        return Just(Value::Object(Map::new())).boxed();
    }
    prop::sample::subsequence(names.clone(), 0..=names.len().min(4))
        .prop_flat_map(move |fields| {
            let members: Vec<_> = fields
                .into_iter()
                .map(|field| value(field.ty(), depth - 1).prop_map(move |value| (field.name().to_owned(), value)))
                .collect();
            members.prop_map(|members| Value::Object(members.into_iter().collect()))
        })
        .boxed()
}

fn value(ty: Ty, depth: usize) -> BoxedStrategy<Value> {
    match ty.container {
        Container::One => scalar(ty.scalar, depth),
        Container::List => prop::collection::vec(scalar(ty.scalar, depth), 1..3).prop_map(Value::from).boxed(),
        Container::Map | Container::MapOfLists => {
            prop::collection::btree_map("[a-z./]{1,4}", value(ty.element(), depth), 1..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
                .boxed()
        }
    }
}

fn scalar(scalar: Scalar, depth: usize) -> BoxedStrategy<Value> {
    match scalar {
        Scalar::String => "[a-zä]{0,3}".prop_map(Value::from).boxed(),
        Scalar::Bytes => prop::sample::select(vec!["", "AA==", "AAECAw=="]).prop_map(Value::from).boxed(),
        Scalar::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Scalar::Int32 => any::<i32>().prop_map(Value::from).boxed(),
        Scalar::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        Scalar::Double => (-1_000_i32..1_000).prop_map(|n| Value::from(f64::from(n) + 0.5)).boxed(),
        Scalar::Any => any::<i32>().prop_map(Value::from).boxed(),
        Scalar::Type(id) => match describe(id).shape() {
            Shape::Struct => object(id, depth),
            Shape::Time => (-1_000_000_000_i64..4_000_000_000).prop_map(|s| time(s, "")).boxed(),
            Shape::MicroTime => {
                (0_i64..4_000_000_000, 0..1_000_000).prop_map(|(s, us)| time(s, &format!(".{us:06}"))).boxed()
            }
            Shape::Quantity => {
                prop::sample::select(vec!["0", "1", "500m", "1Gi", "1.5", "2e3", "100k"]).prop_map(Value::from).boxed()
            }
            Shape::IntOrString => {
                prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{1,3}".prop_map(Value::from)].boxed()
            }
            Shape::RawExtension | Shape::FieldsV1 => prop::sample::select(vec![r#"{"a":[1,null]}"#, "{}"])
                .prop_map(|text| serde_json::from_str(text).unwrap())
                .boxed(),
            Shape::Json => any::<bool>().prop_map(Value::from).boxed(),
            Shape::SchemaOrBool => any::<bool>().prop_map(Value::from).boxed(),
            Shape::SchemaOrArray => object(schema(), depth),
            Shape::SchemaOrStrings => prop::collection::vec("[a-z]{1,2}", 1..3).prop_map(Value::from).boxed(),
        },
    }
}

fn schema() -> TypeId {
    built_in().type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap()
}

fn time(seconds: i64, fraction: &str) -> Value {
    let civil = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(seconds).unwrap());
    format!("{}{fraction}Z", civil.strftime("%Y-%m-%dT%H:%M:%S")).into()
}
