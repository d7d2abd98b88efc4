//! Strategic merge patch: structs and maps. Lists are in `strategic_list`.
//!
//! Directives: `$patch: replace` and `$patch: delete` in a map or list element, `$retainKeys` with the
//! keys that may stay, `$setElementOrder/field` with the order of a list, and
//! `$deleteFromPrimitiveList/field` with values to take out of one.

use std::collections::HashSet;

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::strategic_list::{delete_values, merge_list, order_merged};
use super::{Patch, PatchError, go_text};
use crate::schema::{Container, FieldRef, MAX_ISSUES, Scalar, Shape, Strategy, TypeId, TypeRef, describe};

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList";

/// Applies a strategic merge patch to an object of a built-in kind.
///
/// # Errors
/// When the body is no patch or one of its directives is misused.
pub fn strategic_merge_patch(doc: Value, patch: Patch, ty: TypeId) -> Result<Value, PatchError> {
    let patch = match patch.value {
        Value::Object(patch) => patch,
        other => {
            let found = if other.is_array() { "array" } else { "value" };
            let text = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
            return Err(PatchError::Malformed(text));
        }
    };
    let original = if let Value::Object(original) = doc { original } else { Map::new() };
    merge_map(original, patch, Schema::Struct(describe(ty)), &mut Work::default()).map(Value::Object)
}

/// The elements of the object's lists that a patch has met so far.
///
/// A list of a patch may name one element of the object again and again, and a list inside that element
/// is then merged as often.
#[derive(Debug, Default)]
pub(super) struct Work(usize);

impl Work {
    /// A patch that names each element once meets fewer than the 250,000 that an object has room for.
    const MOST: usize = 500_000;

    pub(super) fn count(&mut self, elements: usize) -> Result<(), PatchError> {
        self.0 += elements;
        if self.0 <= Self::MOST {
            return Ok(());
        }
        let text = format!("the patch merges more than {} elements of lists", Self::MOST);
        Err(PatchError::TooLarge(text))
    }
}

/// What is known of the members of a map.
#[derive(Clone, Copy)]
pub(super) enum Schema<'t> {
    Struct(TypeRef<'t>),
    /// Free keys whose values have this type, if that is a struct.
    Map(Option<TypeRef<'t>>),
}

/// What is known of one member.
#[derive(Clone, Copy)]
pub(super) struct Member<'t> {
    pub(super) schema: Schema<'t>,
    replace: bool,
    /// The merge key of a merging list, empty for primitives.
    pub(super) merge_key: Option<&'t str>,
}

impl<'t> Schema<'t> {
    pub(super) fn element(ty: Option<TypeRef<'t>>) -> Self {
        ty.map_or(Self::Map(None), Self::Struct)
    }

    fn member(self, name: &str) -> Result<Member<'t>, PatchError> {
        match self {
            Self::Map(value) => Ok(Member { schema: Self::element(value), replace: false, merge_key: None }),
            Self::Struct(ty) => ty.field(name).map(of_field).ok_or_else(|| {
                PatchError::Failed(format!(
                    "unable to find api field in struct {} for the json field {name:?}",
                    ty.short_name()
                ))
            }),
        }
    }
}

fn of_field(field: FieldRef<'_>) -> Member<'_> {
    let schema = match (field.ty().container, field.ty().scalar) {
        (Container::One | Container::List, Scalar::Type(_)) => Schema::element(field.type_ref()),
        _ => Schema::Map(field.type_ref()),
    };
    Member { schema, replace: field.strategy() == Strategy::Replace, merge_key: field.merge_key() }
}

/// Merges a patch into a map.
pub(super) fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Schema<'_>,
    work: &mut Work,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            Some(_) | None => Err(bad_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema, work)?;
    // Fields that a struct does not have are dropped when the answer is checked, which tells the first of them.
    let mut unknown = 0;
    let is_field = |key: &str| match schema {
        Schema::Struct(ty) if ty.shape() == Shape::Struct => ty.field(key).is_some(),
        // Free keys, or JSON that is kept as it is.
        Schema::Struct(_) | Schema::Map(_) => true,
    };
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_VALUES) {
            let name = list.strip_prefix('/').ok_or_else(|| bad_format("primitive list"))?;
            if let (Some(Value::Array(original)), Value::Array(values)) = (original.get_mut(name), &value) {
                work.count(original.len())?;
                delete_values(original, values);
            }
            continue;
        }
        if !is_field(&key) && !original.contains_key(&key) {
            unknown += 1;
            if unknown > MAX_ISSUES {
                continue;
            }
        }
        merge_member(&mut original, key, value, schema, work)?;
    }
    Ok(original)
}

fn merge_member(
    original: &mut Map<String, Value>,
    key: String,
    value: Value,
    schema: Schema<'_>,
    work: &mut Work,
) -> Result<(), PatchError> {
    let mut place = match original.entry(key) {
        Entry::Occupied(place) => place,
        Entry::Vacant(place) => {
            if let Some(added) = Some(value).filter(|v| !v.is_null()).and_then(without_directives) {
                place.insert(added);
            }
            return Ok(());
        }
    };
    let merged = match (place.get_mut().take(), value) {
        (_, Value::Null) => None,
        (Value::Object(old), Value::Object(new)) => {
            let member = schema.member(place.key())?;
            let merged = if member.replace { new } else { merge_map(old, new, member.schema, work)? };
            Some(Value::Object(merged))
        }
        (Value::Array(old), Value::Array(new)) => {
            Some(Value::Array(merge_list(old, new, schema.member(place.key())?, work)?))
        }
        (_, value) => without_directives(value),
    };
    match merged {
        Some(merged) => {
            place.insert(merged);
        }
        None => {
            place.remove();
        }
    }
    Ok(())
}

/// Drops the keys of the object that `$retainKeys` does not name.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(bad_format("retainKeys")) };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &str| retained.contains(key);
    let strays = patch.iter().any(|(key, value)| {
        !value.is_null() && !key.starts_with(DELETE_VALUES) && !key.starts_with(SET_ORDER) && !is_retained(key)
    });
    if strays {
        return Err(bad_format("retainKeys"));
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// Merges the lists whose order the patch sets, and takes them out of the patch.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Schema<'_>,
    work: &mut Work,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = list(patch.remove(&directive).unwrap_or_default())?;
        let name = directive
            .strip_prefix(SET_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| bad_format("setElementOrder list"))?;
        let old = original.get(name).cloned().map(list).transpose()?;
        let new = patch.remove(name).map(list).transpose()?;
        let member = schema.member(name)?;
        let merged = order_merged(old, new, &order, member, work)?;
        original.extend(merged.map(|merged| (name.to_owned(), Value::Array(merged))));
    }
    Ok(())
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    let found = match value {
        Value::Array(list) => return Ok(list),
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Object(_) => "map[string]interface {}",
    };
    Err(PatchError::Failed(format!("expected a []interface {{}}, but received a {found}")))
}

/// What is left of a part of a patch that meets nothing in the object: no directives and no nulls.
/// Nothing, when it says only that it be deleted.
pub(super) fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut map) => {
            if map.remove(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                return None;
            }
            let kept = map.into_iter().filter(|(key, value)| {
                let directive = key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_VALUES);
                !directive && !value.is_null()
            });
            Some(kept.filter_map(|(key, value)| Some((key, without_directives(value)?))).collect())
        }
        // `$patch: replace` in a list is an element of its own.
        Value::Array(list) => {
            let only_directive = |v: &Value| v.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(DIRECTIVE));
            Some(list.into_iter().filter(|v| !only_directive(v)).filter_map(without_directives).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value),
    }
}

pub(super) fn bad_patch_type(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let mut whole = map.clone();
    whole.insert(DIRECTIVE.to_owned(), directive.clone());
    PatchError::Failed(format!("unknown patch type: {} in map: {}", go_text(directive), go_text(&Value::Object(whole))))
}

fn bad_format(of: &str) -> PatchError {
    PatchError::Malformed(format!("invalid patch format of {of}"))
}
