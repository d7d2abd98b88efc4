//! The streaming decoder: JSON in, a checked and pruned [`Value`] out, in one pass.
//!
//! It behaves as upstream's decoder does: a value of a wrong type is noted and decoding goes on, so
//! that the first such error is the one reported; a value that its own type refuses ends decoding.
//! Every value is charged to the body's [`Budget`] before it is made.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

use super::canonical::zero;
use super::cost::{self, Budget};
use super::error::{DecodeError, FieldIssue};
use super::issues::Issues;
use super::leaf::{self, Leaf};
use super::table::{Container, FieldRef, Scalar, Shape, Table, Ty, TypeId, TypeRef, go_type};
use super::time::complete_condition;
use super::{BUILT_IN, syntax};

/// `serde_json` stops at 128 levels; this is for values that came from elsewhere.
const MAX_DEPTH: usize = 128;
/// What is shown of the path to the value that a body had no room for.
const SHOWN: usize = 200;

/// A body that has the form of its type.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// Fields that were dropped, in the order of the body.
    pub issues: Vec<FieldIssue>,
}

/// Decodes a JSON body.
///
/// # Errors
/// When the bytes are no JSON or hold a value of a wrong type.
pub fn decode_json(bytes: &[u8], ty: TypeId) -> Result<Decoded, DecodeError> {
    decode_ty(&BUILT_IN, bytes, Ty::one(Scalar::Type(ty)))
}

/// Checks a value that did not come from a decoder, such as the result of a patch.
///
/// # Errors
/// As [`decode_json`].
pub fn check_value(value: Value, ty: TypeId) -> Result<Decoded, DecodeError> {
    let ty = Ty::one(Scalar::Type(ty));
    let mut cx = Cx::new(&BUILT_IN, ty);
    let answer: Result<_, serde_json::Error> = Node { cx: &mut cx, ty, go: None }.deserialize(value);
    cx.finish(ty, answer, |error| DecodeError::Syntax(error.to_string()))
}

/// Decodes JSON of no particular type; duplicate members are reported.
///
/// # Errors
/// When the bytes are no JSON.
pub fn decode_any(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_ty(&BUILT_IN, bytes, Ty::one(Scalar::Any))
}

fn decode_ty(table: &Table, bytes: &[u8], ty: Ty) -> Result<Decoded, DecodeError> {
    let mut cx = Cx::new(table, ty);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let node = Node { cx: &mut cx, ty, go: None };
    let answer = node.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    cx.finish(ty, answer, |error| syntax::explain(bytes, error))
}

/// One step from the top of the body to the value at hand.
enum Step<'t> {
    Field { owner: TypeRef<'t>, name: &'t str },
    Key(String),
    Index(usize),
}

struct Cx<'t> {
    table: &'t Table,
    path: Vec<Step<'t>>,
    issues: Issues,
    budget: Budget,
    /// The depth of the value at hand within JSON that is kept as it is, whose members nobody looks at.
    opaque: usize,
    /// The first value of a wrong type.
    mismatch: Option<DecodeError>,
    /// The error that ended decoding.
    fatal: Option<DecodeError>,
}

impl<'t> Cx<'t> {
    fn new(table: &'t Table, ty: Ty) -> Self {
        Self {
            table,
            path: Vec::new(),
            issues: Issues::new(),
            budget: Budget::of(table, ty),
            opaque: 0,
            mismatch: None,
            fatal: None,
        }
    }

    /// The outcome; a body that is null is an empty object to Go. `explain` reads the whole body again, so it
    /// is asked only for a fault that the decoder did not find itself.
    fn finish(
        self,
        ty: Ty,
        answer: Result<Value, serde_json::Error>,
        explain: impl FnOnce(&serde_json::Error) -> DecodeError,
    ) -> Result<Decoded, DecodeError> {
        if let Some(fatal) = self.fatal {
            return Err(fatal);
        }
        match (answer.map_err(|error| explain(&error))?, self.mismatch) {
            (_, Some(error)) => Err(error),
            (Value::Null, None) if ty.scalar != Scalar::Any => {
                Ok(Decoded { value: Map::new().into(), issues: self.issues.into_list() })
            }
            (value, None) => Ok(Decoded { value, issues: self.issues.into_list() }),
        }
    }

    /// The path of a member of the value at hand, as strict decoding prints it.
    fn path_to(&self, member: &str) -> String {
        let mut path = String::new();
        let name = |path: &mut String, name: &str| {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        };
        for step in &self.path {
            match step {
                Step::Field { name: field, .. } => name(&mut path, field),
                Step::Key(key) => name(&mut path, key),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        name(&mut path, member);
        path
    }

    /// Notes a member that stands twice, before the issues that were found in its value.
    fn note_duplicate(&mut self, member: &str, before: usize) {
        if self.opaque == 0 && !self.issues.is_full() {
            let path = self.path_to(member);
            self.issues.note_at(before, FieldIssue::Duplicate { path });
        }
    }

    fn charge<E: serde::de::Error>(&mut self, cost: usize) -> Result<(), E> {
        if self.budget.take(cost).is_ok() {
            return Ok(());
        }
        let mut place = self.path_to("");
        place.truncate((0..=SHOWN.min(place.len())).rev().find(|i| place.is_char_boundary(*i)).unwrap_or(0));
        let (limit, place) = (self.budget.limit(), place.trim_end_matches('.').to_owned());
        Err(self.fatal(DecodeError::TooLarge { limit, place }))
    }

    /// An element as it is stored: null is Go's zero.
    fn or_zero<E: serde::de::Error>(&mut self, value: Value, ty: Ty) -> Result<Value, E> {
        if !value.is_null() {
            return Ok(value);
        }
        let zero = zero(self.table, ty);
        self.charge(cost::of_value(&zero))?;
        Ok(zero)
    }

    fn mismatch(&mut self, found: String, expected: String) {
        if self.mismatch.is_some() {
            return;
        }
        let fields = self.path.iter().filter_map(|step| match step {
            Step::Field { owner, name } => Some((owner.short_name(), *name)),
            Step::Key(_) | Step::Index(_) => None,
        });
        let (owners, names): (Vec<_>, Vec<_>) = fields.unzip();
        let place = owners.last().map(|owner| format!("{owner}.{}", names.join(".")));
        self.mismatch = Some(DecodeError::Type { found, place, expected });
    }

    fn fatal<E: serde::de::Error>(&mut self, error: DecodeError) -> E {
        let text = error.to_string();
        self.fatal = Some(error);
        E::custom(text)
    }
}

/// Decodes the value at hand. Null in the answer means absent.
struct Node<'c, 't> {
    cx: &'c mut Cx<'t>,
    ty: Ty,
    /// The field, or the field that this is an element of.
    go: Option<FieldRef<'t>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.cx.path.len() > MAX_DEPTH {
            return Err(self.cx.fatal(DecodeError::Depth));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'t> Node<'_, 't> {
    fn shape(&self) -> Option<Shape> {
        match (self.ty.container, self.ty.scalar) {
            (Container::One, Scalar::Type(id)) => Some(self.cx.table.get(id).shape()),
            _ => None,
        }
    }

    /// The Go type of the value at hand: a field's own, or that of its elements.
    fn go_name(&self) -> String {
        let Some(field) = self.go else { return go_type(self.cx.table, self.ty).into_owned() };
        let name = field.go_type();
        match (field.ty().container, self.ty.container) {
            (whole, here) if whole == here => Some(name.into_owned()),
            (Container::List, _) => name.strip_prefix("[]").map(str::to_owned),
            (Container::Map | Container::MapOfLists, Container::One) if name.contains("][]") => {
                name.rsplit_once("[]").map(|(_, element)| element.to_owned())
            }
            _ => name.split_once(']').map(|(_, element)| element.to_owned()),
        }
        .unwrap_or_else(|| go_type(self.cx.table, self.ty).into_owned())
    }

    fn mismatch(self, found: &str) -> Value {
        if self.cx.mismatch.is_some() {
            return Value::Null;
        }
        let expected = self.go_name();
        self.cx.mismatch(found.to_owned(), expected);
        Value::Null
    }

    fn leaf<E: serde::de::Error>(self, leaf: Leaf) -> Result<Value, E> {
        if let Leaf::String(text) = &leaf {
            self.cx.charge(cost::text(text.len()))?;
        }
        if let Some(shape) = self.shape().filter(|shape| *shape != Shape::Struct) {
            return match leaf::read(shape, leaf) {
                Ok(value) => Ok(value.unwrap_or(Value::Null)),
                Err(text) => Err(self.cx.fatal(DecodeError::Value(text))),
            };
        }
        if self.ty.container != Container::One {
            return Ok(self.mismatch(leaf.word()));
        }
        Ok(match (self.ty.scalar, leaf) {
            (Scalar::String, Leaf::String(text)) => text.into(),
            (Scalar::Bool, Leaf::Bool(b)) => b.into(),
            (Scalar::Int64, Leaf::Int(n)) => n.into(),
            (Scalar::Int32, Leaf::Int(n)) if i32::try_from(n).is_ok() => n.into(),
            (Scalar::Int32 | Scalar::Int64, leaf) => self.mismatch(&leaf.word_for_integer()),
            (Scalar::Double, leaf @ (Leaf::Int(_) | Leaf::Number(_))) | (Scalar::Any, leaf) => leaf.into_value(),
            (Scalar::Bytes, Leaf::String(text)) => match leaf::read_bytes(&text) {
                Ok(text) => text.into(),
                Err(text) => {
                    self.cx.mismatch.get_or_insert(DecodeError::Value(text));
                    Value::Null
                }
            },
            (Scalar::String | Scalar::Bool | Scalar::Bytes | Scalar::Double | Scalar::Type(_), leaf) => {
                self.mismatch(leaf.word())
            }
        })
    }
}

impl<'de, 't> Visitor<'de> for Node<'_, 't> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.leaf(Leaf::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.leaf(Leaf::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.leaf(i64::try_from(value).map_or_else(|_| Leaf::Number(value.into()), Leaf::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        self.leaf(Leaf::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.leaf(Leaf::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.leaf(Leaf::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        match (self.ty.container, self.shape()) {
            (Container::List, _) => self.list(seq),
            (Container::One, Some(shape)) => match shape {
                Shape::RawExtension | Shape::FieldsV1 | Shape::Json => self.opaque(|node| node.any_list(seq)),
                Shape::SchemaOrArray => self.inner(schema_type, Container::List).list(seq),
                Shape::SchemaOrStrings => Node { ty: STRINGS, go: None, cx: self.cx }.list(seq),
                Shape::SchemaOrBool => Err(self.refuse("boolean or JSON schema expected")),
                Shape::Time | Shape::MicroTime => {
                    Err(self.refuse("json: cannot unmarshal array into Go value of type string"))
                }
                Shape::IntOrString => Err(self.refuse("json: cannot unmarshal array into Go value of type int32")),
                Shape::Quantity => Err(self.refuse(&crate::quantity::ParseError::Format.to_string())),
                Shape::Struct => skip_list(seq, self),
            },
            (Container::One, None) if self.ty.scalar == Scalar::Any => self.any_list(seq),
            (Container::One | Container::Map | Container::MapOfLists, _) => skip_list(seq, self),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        match (self.ty.container, self.shape()) {
            (Container::Map | Container::MapOfLists, _) => self.map(map),
            (Container::One, Some(shape)) => match shape {
                Shape::RawExtension | Shape::FieldsV1 | Shape::Json => self.opaque(|node| node.map(map)),
                Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                    self.inner(schema_type, Container::One).object(map)
                }
                Shape::Time | Shape::MicroTime => {
                    Err(self.refuse("json: cannot unmarshal object into Go value of type string"))
                }
                Shape::IntOrString => Err(self.refuse("json: cannot unmarshal object into Go value of type int32")),
                Shape::Quantity => Err(self.refuse(&crate::quantity::ParseError::Format.to_string())),
                Shape::Struct => self.object(map),
            },
            (Container::One, None) if self.ty.scalar == Scalar::Any => self.map(map),
            (Container::One | Container::List, _) => skip_map(map, self),
        }
    }
}

const STRINGS: Ty = Ty { container: Container::List, scalar: Scalar::String };

/// The struct inside the unions of JSON schema.
fn schema_type(table: &Table) -> Option<TypeId> {
    table.type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
}

impl<'c, 't> Node<'c, 't> {
    fn refuse<E: serde::de::Error>(self, text: &str) -> E {
        self.cx.fatal(DecodeError::Value(text.to_owned()))
    }

    fn inner(self, ty: fn(&Table) -> Option<TypeId>, container: Container) -> Self {
        let scalar = ty(self.cx.table).map_or(Scalar::Any, Scalar::Type);
        Node { ty: Ty { container, scalar }, go: None, cx: self.cx }
    }

    /// JSON that is kept as it is.
    fn opaque<E>(self, read: impl FnOnce(Node<'_, 't>) -> Result<Value, E>) -> Result<Value, E> {
        self.cx.opaque += 1;
        let value = read(Node { cx: &mut *self.cx, ty: Ty::one(Scalar::Any), go: None });
        self.cx.opaque -= 1;
        value
    }

    fn object<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Scalar::Type(id) = self.ty.scalar else { return Err(A::Error::custom("invariant: a struct has a type")) };
        let ty = self.cx.table.get(id);
        let cx = self.cx;
        cx.charge(cost::floor(cx.table, id))?;
        let mut object = Map::new();
        let mut seen = Seen::default();
        let mut unknown: BTreeSet<String> = BTreeSet::new();
        while let Some(key) = map.next_key_seed(FieldKey { ty })? {
            let (index, field) = match key {
                Ok(found) => found,
                Err(name) => {
                    // Names are remembered only while a repeated one would be told.
                    if !cx.issues.is_full() {
                        let path = cx.path_to(&name);
                        let new = unknown.insert(name);
                        cx.issues.note(if new { FieldIssue::Unknown { path } } else { FieldIssue::Duplicate { path } });
                    }
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if !seen.insert(index) {
                cx.note_duplicate(field.name(), cx.issues.len());
            }
            cx.path.push(Step::Field { owner: ty, name: field.name() });
            let value = map.next_value_seed(Node { cx, ty: field.ty(), go: Some(field) })?;
            cx.path.pop();
            if is_absent(field, &value) {
                object.remove(field.name());
            } else {
                cx.charge(cost::member(object.len()))?;
                object.insert(field.name().to_owned(), value);
            }
        }
        complete_condition(ty, &mut object);
        Ok(object.into())
    }

    fn list<'de, A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let (cx, element) = (self.cx, self.ty.element());
        let inline = cost::inline(cx.table, element);
        let mut list = Vec::new();
        loop {
            cx.path.push(Step::Index(list.len()));
            let Some(value) = seq.next_element_seed(Node { cx, ty: element, go: self.go })? else { break };
            cx.charge(cost::element(list.len()) + inline)?;
            let value = cx.or_zero(value, element)?;
            cx.path.pop();
            list.push(value);
        }
        cx.path.pop();
        Ok(list.into())
    }

    /// A map with free keys, or a free object.
    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (cx, element) = (self.cx, self.ty.element());
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let before = cx.issues.len();
            cx.charge(cost::free_member(cx.table, element, key.len(), object.len()))?;
            cx.path.push(Step::Key(key));
            let value = map.next_value_seed(Node { cx, ty: element, go: self.go })?;
            let value = cx.or_zero(value, element)?;
            let Some(Step::Key(key)) = cx.path.pop() else {
                return Err(A::Error::custom("invariant: a key was pushed"));
            };
            // One search of the map finds the place and what stands there: that is most of what a member costs.
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    cx.note_duplicate(place.key(), before);
                    place.insert(value);
                }
            }
        }
        Ok(object.into())
    }

    fn any_list<'de, A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        Node { ty: Ty { container: Container::List, scalar: Scalar::Any }, go: None, cx: self.cx }.list(seq)
    }
}

/// Go leaves the field out when it writes the object.
pub(crate) fn is_absent(field: FieldRef<'_>, value: &Value) -> bool {
    let empty = match value {
        Value::Null => return true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && field.ty().container != Container::One,
    };
    let plain = !matches!((field.ty().container, field.ty().scalar), (Container::One, Scalar::Type(_)));
    empty && plain && field.omitempty() && !field.pointer()
}

/// The fields of a struct that a body has named so far.
#[derive(Debug, Default)]
struct Seen {
    first: u64,
    rest: BTreeSet<usize>,
}

impl Seen {
    /// Whether the field was not named before.
    fn insert(&mut self, index: usize) -> bool {
        let bit = u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index));
        let Some(bit) = bit else { return self.rest.insert(index) };
        let new = self.first & bit == 0;
        self.first |= bit;
        new
    }
}

/// A key of a struct: its field, or the name that the struct does not have.
struct FieldKey<'t> {
    ty: TypeRef<'t>,
}

impl<'de, 't> DeserializeSeed<'de> for FieldKey<'t> {
    type Value = Result<(usize, FieldRef<'t>), String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for FieldKey<'t> {
    type Value = Result<(usize, FieldRef<'t>), String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.ty.field_at(name).ok_or_else(|| name.to_owned()))
    }
}

fn skip_list<'de, A: SeqAccess<'de>>(mut seq: A, node: Node<'_, '_>) -> Result<Value, A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(node.mismatch("array"))
}

fn skip_map<'de, A: MapAccess<'de>>(mut map: A, node: Node<'_, '_>) -> Result<Value, A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(node.mismatch("object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_the_decoder_gave_up_is_not_read_again() {
        let ty = Ty::one(Scalar::Any);
        let mut cx = Cx::new(&BUILT_IN, ty);
        let error: serde_json::Error = cx.fatal(DecodeError::Depth);
        let explain = |_: &serde_json::Error| -> DecodeError { panic!("read again") };
        assert_eq!(cx.finish(ty, Err(error), explain), Err(DecodeError::Depth));
    }

    #[test]
    fn a_duplicate_is_told_before_what_is_wrong_inside_of_it() {
        let body = br#"{"a":{},"a":{"b":1,"b":2}}"#;
        let issues = decode_any(body).unwrap().issues;
        assert_eq!(issues.iter().map(FieldIssue::path).collect::<Vec<_>>(), ["a", "a.b"]);
    }

    #[test]
    fn fields_beyond_the_sixty_fourth_are_seen_too() {
        let mut seen = Seen::default();
        for index in [0, 63, 64, 65, 400] {
            assert!(seen.insert(index) && !seen.insert(index), "{index}");
        }
        assert!(seen.insert(1));
    }
}
