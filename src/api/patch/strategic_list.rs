//! Strategic merge patch: lists. Elements are matched by the list's merge key, primitives by value.
//!
//! The order of the answer: elements that the patch names stand in the patch's order, those that only
//! the object has in theirs, and an element of the object comes before one of the patch where the
//! object had both in that order.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::strategic::{DIRECTIVE, Member, Work, bad_patch_type, merge_map, without_directives};
use super::{PatchError, go_text};

/// Merges the list of a patch into that of the object.
pub(super) fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    member: Member<'_>,
    work: &mut Work,
) -> Result<Vec<Value>, PatchError> {
    let Some(key) = member.merge_key else { return Ok(new) };
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    work.count(old.len())?;
    if !is_list_of_maps(&old, &new)? {
        let mut known: HashSet<&Value> = old.iter().collect();
        let added: Vec<Value> = new.iter().filter(|value| known.insert(value)).cloned().collect();
        let merged = old.iter().cloned().chain(added).collect();
        return ordered(merged, &new, &old, "");
    }
    if key.is_empty() {
        return Err(PatchError::Failed("cannot merge lists without merge key for type struct".to_owned()));
    }
    let (old, new) = directives(old, new, key)?;
    let mut merged = old.clone();
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(merged.len());
    for (at, element) in merged.iter().enumerate() {
        if let Some(id) = element.get(key) {
            places.entry(id.clone()).or_insert(at);
        }
    }
    for element in &new {
        let Value::Object(patch) = element else { continue };
        let id = identity(element, key)?;
        if let Some(at) = places.get(id).copied() {
            let Value::Object(original) = merged[at].take() else { continue };
            merged[at] = merge_map(original, patch.clone(), member.schema, work)?.into();
        } else if let Some(added) = without_directives(element.clone()) {
            if let Some(id) = added.get(key) {
                places.entry(id.clone()).or_insert(merged.len());
            }
            merged.push(added);
        }
    }
    ordered(merged, &new, &old, key)
}

/// Handles the elements that are directives: deletions leave the object's list, a replacement makes
/// the patch the object's list.
fn directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut deleted = HashSet::new();
    let mut replace = false;
    for element in new {
        let Some(directive) = element.get(DIRECTIVE) else {
            plain.push(element);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                deleted.insert(identity(&element, key)?.clone());
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Failed("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(_) | None => {
                let map = element.as_object().cloned().unwrap_or_default();
                return Err(bad_patch_type(directive, &map));
            }
        }
    }
    if !deleted.is_empty() {
        old.retain(|o| o.get(key).is_none_or(|id| !deleted.contains(id)));
    }
    Ok(if replace { (plain, Vec::new()) } else { (old, plain) })
}

/// Merges the two lists, if there are, and puts the answer into the order that the patch sets.
pub(super) fn order_merged(
    old: Option<Vec<Value>>,
    new: Option<Vec<Value>>,
    order: &[Value],
    member: Member<'_>,
    work: &mut Work,
) -> Result<Option<Vec<Value>>, PatchError> {
    let key = member.merge_key.unwrap_or("");
    work.count(old.as_ref().map_or(0, Vec::len))?;
    check_order(new.as_deref().unwrap_or_default(), order, key)?;
    let server_order = old.clone().unwrap_or_default();
    let merged = match (old, new) {
        (None, None) => return Ok(None),
        (Some(old), None) => old,
        (None, Some(new)) => match without_directives(Value::Array(new)) {
            Some(Value::Array(new)) => new,
            Some(_) | None => return Ok(None),
        },
        (Some(old), Some(new)) => merge_list(old, new, member, work)?,
    };
    ordered(merged, order, &server_order, key).map(Some)
}

/// The elements of the patch must stand in the order that it sets.
fn check_order(new: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if new.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut slots = order.iter();
    for element in new.iter().filter(|e| e.get(DIRECTIVE).is_none()) {
        let id = identity(element, key)?;
        let mut found = false;
        for slot in slots.by_ref() {
            if identity(slot, key)? == id {
                found = true;
                break;
            }
        }
        if !found {
            return Err(PatchError::Failed(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_text(&new.to_vec().into()),
                go_text(&order.to_vec().into())
            )));
        }
    }
    Ok(())
}

/// What tells an element from its siblings: its merge key, or itself.
fn identity<'v>(element: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    if key.is_empty() {
        return Ok(element);
    }
    element.get(key).ok_or_else(|| {
        PatchError::Failed(format!("map: {} does not contain declared merge key: {key}", go_text(element)))
    })
}

/// Where each element stands in a list, the first of several.
fn places<'v>(list: &'v [Value], key: &str) -> HashMap<&'v Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (at, element) in list.iter().enumerate() {
        if let Some(id) = if key.is_empty() { Some(element) } else { element.get(key) } {
            places.entry(id).or_insert(at);
        }
    }
    places
}

/// Puts a merged list in order: `order` rules the elements that it names, `server` the others.
fn ordered(merged: Vec<Value>, order: &[Value], server: &[Value], key: &str) -> Result<Vec<Value>, PatchError> {
    let (order, server) = (places(order, key), places(server, key));
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut others: Vec<(usize, Value)> = Vec::new();
    for element in merged {
        let id = identity(&element, key)?;
        match order.get(id).copied() {
            Some(at) => named.push((at, element)),
            None => others.push((server.get(id).copied().unwrap_or(usize::MAX), element)),
        }
    }
    named.sort_by_key(|(at, _)| *at);
    others.sort_by_key(|(at, _)| *at);
    let mut others = others.into_iter().peekable();
    let mut list = Vec::with_capacity(named.len() + others.len());
    for (_, element) in named {
        let place = server.get(identity(&element, key)?).copied();
        while let Some((_, other)) = others.next_if(|(at, _)| place.is_some_and(|place| *at < place)) {
            list.push(other);
        }
        list.push(element);
    }
    list.extend(others.map(|(_, element)| element));
    Ok(list)
}

fn is_list_of_maps(old: &[Value], new: &[Value]) -> Result<bool, PatchError> {
    let mut maps = old.iter().chain(new).map(|element| match element {
        Value::Array(_) => Err(PatchError::DoesNotApply("lists of lists are not supported".to_owned())),
        Value::Object(_) => Ok(true),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(false),
    });
    let first = maps.next().unwrap_or(Ok(false))?;
    for other in maps {
        if other? != first {
            return Err(PatchError::Failed("list element types are not identical".to_owned()));
        }
    }
    Ok(first)
}

/// Takes values out of a list of primitives.
pub(super) fn delete_values(list: &mut Vec<Value>, values: &[Value]) {
    let values: HashSet<&Value> = values.iter().collect();
    list.retain(|value| !values.contains(value));
}
