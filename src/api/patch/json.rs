//! JSON patch, RFC 6902, with the reach, the limits and the messages of upstream's library.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Patch, PatchError};
use crate::schema::cost::{self, Budget};

/// Upstream's limit on the operations of one patch.
const MAX_OPERATIONS: usize = 10_000;
/// Upstream's limit on the bytes that the copies of one patch may add: its limit of a request body.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Elements that the insertions and removals of one patch may shift: 320 MB of memory that is moved, which
/// takes a tenth of a second. A patch of a thousand operations on a list of a thousand shifts a tenth of it.
const MAX_SHIFTED: usize = 10_000_000;

/// Applies a JSON patch to an object.
///
/// # Errors
/// When the body is no patch, or an operation does not apply.
pub fn json_patch(doc: Value, patch: Patch) -> Result<Value, PatchError> {
    let operations = match patch.value {
        Value::Array(operations) => operations,
        other => return Err(not_a_patch(&other, "jsonpatch.Patch")),
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { limit: MAX_OPERATIONS, found: operations.len() });
    }
    let mut patcher = Patcher { doc, copied: 0, budget: Budget::new(), shifted: 0 };
    for operation in operations {
        match operation {
            Value::Object(operation) => patcher.apply(operation).map_err(PatchError::DoesNotApply)?,
            other => return Err(not_a_patch(&other, "jsonpatch.Operation")),
        }
        if patcher.shifted > MAX_SHIFTED {
            let text = format!("the JSON patch moves more than {MAX_SHIFTED} elements of lists");
            return Err(PatchError::TooLarge(text));
        }
    }
    Ok(patcher.doc)
}

fn not_a_patch(found: &Value, expected: &str) -> PatchError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    PatchError::Malformed(format!("json: cannot unmarshal {found} into Go value of type {expected}"))
}

struct Patcher {
    doc: Value,
    copied: usize,
    /// What copies may take in memory.
    budget: Budget,
    /// Elements that came to another index.
    shifted: usize,
}

const MISSING: &str = "missing value";

impl Patcher {
    fn apply(&mut self, mut operation: Map<String, Value>) -> Result<(), String> {
        let kind = operation.get("op").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let path = |operation: &Map<String, Value>| match operation.get("path") {
            Some(Value::String(path)) => Ok(path.clone()),
            Some(_) | None => Err(format!("{kind} operation failed to decode path: {MISSING}")),
        };
        let from = |operation: &Map<String, Value>| match operation.get("from") {
            Some(Value::String(from)) => Ok(from.clone()),
            Some(_) | None => {
                Err(format!("{kind} operation failed to decode from: operation, missing from field: {MISSING}"))
            }
        };
        let value = operation.remove("value");
        match kind.as_str() {
            "add" => self.add(&path(&operation)?, value.unwrap_or(Value::Null)),
            "remove" => self.remove(&path(&operation)?),
            "replace" => self.replace(&path(&operation)?, value.unwrap_or(Value::Null)),
            "move" => self.move_to(&from(&operation)?, &path(&operation)?),
            "copy" => self.copy(&from(&operation)?, &path(&operation)?),
            "test" => self.test(&path(&operation)?, value.as_ref()),
            _ => Err(format!("Unexpected kind: {kind}")),
        }
    }

    fn add(&mut self, path: &str, value: Value) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, path)
            .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
        insert(container, &key, value, &mut self.shifted)
            .map_err(|error| format!("error in add for path: '{path}': {error}"))
    }

    fn remove(&mut self, path: &str) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, path)
            .ok_or_else(|| format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
        take(container, &key, &mut self.shifted)
            .map(drop)
            .map_err(|error| format!("error in remove for path: '{path}': {error}"))
    }

    fn replace(&mut self, path: &str, value: Value) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, path)
            .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: {MISSING}"))?;
        let slot = member_mut(container, &key)
            .ok_or_else(|| format!("replace operation does not apply: doc is missing key: {path}: {MISSING}"))?;
        *slot = value;
        Ok(())
    }

    fn move_to(&mut self, from: &str, path: &str) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, from)
            .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
        let value = take(container, &key, &mut self.shifted)
            .map_err(|error| format!("error in move for path: '{key}': {error}"))?;
        let (container, key) = find(&mut self.doc, path).ok_or_else(|| {
            format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}")
        })?;
        insert(container, &key, value, &mut self.shifted)
            .map_err(|error| format!("error in move for path: '{path}': {error}"))
    }

    fn copy(&mut self, from: &str, path: &str) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, from)
            .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
        let value = member_mut(container, &key).ok_or_else(|| {
            format!("error in copy for from: '{from}': unable to get nonexistent key: {key}: {MISSING}")
        })?;
        self.copied += value.to_string().len();
        if self.copied > MAX_COPIED || self.budget.take(cost::of_value(value)).is_err() {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED}",
                self.copied
            ));
        }
        let value = value.clone();
        let (container, key) = find(&mut self.doc, path).ok_or_else(|| {
            format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}")
        })?;
        insert(container, &key, value, &mut self.shifted)
            .map_err(|error| format!("error while adding value during copy: {error}"))
    }

    fn test(&mut self, path: &str, value: Option<&Value>) -> Result<(), String> {
        let (container, key) = find(&mut self.doc, path)
            .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
        let found = member_mut(container, &key).map_or(&Value::Null, |found| found);
        if found == value.unwrap_or(&Value::Null) {
            return Ok(());
        }
        Err(format!("testing value {path} failed: test failed"))
    }
}

/// The container that the last part of a path is in, and that part.
fn find<'d, 'p>(doc: &'d mut Value, path: &'p str) -> Option<(&'d mut Value, Cow<'p, str>)> {
    let (parents, last) = path.rsplit_once('/')?;
    let mut container = doc;
    for part in parents.split('/').skip(1) {
        container = member_mut(container, &unescape(part))?;
    }
    matches!(container, Value::Object(_) | Value::Array(_)).then(|| (container, unescape(last)))
}

/// Paths of many steps are cheap: a step that has nothing escaped is used where it stands.
pub(super) fn unescape(part: &str) -> Cow<'_, str> {
    if part.contains('~') { part.replace("~1", "/").replace("~0", "~").into() } else { part.into() }
}

/// The index that a part of a path names in a list; negative ones count from the end.
fn index(part: &str, len: usize) -> Result<usize, String> {
    let index: i64 = part.parse().map_err(|_| format!("strconv.Atoi: parsing {part:?}: invalid syntax"))?;
    let out = || format!("Unable to access invalid index: {index}: invalid index referenced");
    let at = if index < 0 { i64::try_from(len).map_err(|_| out())? + index } else { index };
    usize::try_from(at).ok().filter(|at| *at < len).ok_or_else(out)
}

fn member_mut<'a>(container: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match container {
        Value::Object(map) => map.get_mut(part),
        Value::Array(list) => index(part, list.len()).ok().and_then(|at| list.get_mut(at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn insert(container: &mut Value, part: &str, value: Value, shifted: &mut usize) -> Result<(), String> {
    match container {
        Value::Object(map) => {
            map.insert(part.to_owned(), value);
        }
        Value::Array(list) if part == "-" => list.push(value),
        Value::Array(list) => {
            let at = index(part, list.len() + 1).map_err(|error| {
                if error.starts_with("strconv") {
                    format!("value was not a proper array index: '{part}': {error}")
                } else {
                    error
                }
            })?;
            *shifted += list.len() - at;
            list.insert(at, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(MISSING.to_owned()),
    }
    Ok(())
}

fn take(container: &mut Value, part: &str, shifted: &mut usize) -> Result<Value, String> {
    match container {
        Value::Object(map) => {
            map.remove(part).ok_or_else(|| format!("Unable to remove nonexistent key: {part}: {MISSING}"))
        }
        Value::Array(list) => index(part, list.len()).map(|at| {
            *shifted += list.len() - at;
            list.remove(at)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(MISSING.to_owned()),
    }
}
