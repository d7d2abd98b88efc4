//! Upstream's published OpenAPI definitions, as the PyPI package `kubernetes-validate` carries them:
//! the authority for required fields, list and map types, merge keys and kinds.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::table::{Field, Table, Type};

pub(crate) struct Definitions {
    types: serde_json::Map<String, Value>,
}

impl Definitions {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        match serde_json::from_slice::<Value>(&text)? {
            Value::Object(mut top) => match top.remove("$defs") {
                Some(Value::Object(types)) => Ok(Self { types }),
                Some(_) | None => bail!("no $defs in {}", path.display()),
            },
            _ => bail!("{} is no object", path.display()),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Overwrites in `table` what the definitions tell, and checks that both know the same fields
    /// with the same types.
    pub(crate) fn apply(&self, table: &mut Table) -> Result<()> {
        for (name, definition) in &self.types {
            let Some(ty) = table.types.get_mut(name) else {
                ensure!(definition.get("properties").is_none(), "{name} is missing in the table");
                continue;
            };
            apply_type(ty, definition).with_context(|| name.clone())?;
        }
        Ok(())
    }
}

fn apply_type(ty: &mut Type, definition: &Value) -> Result<()> {
    ty.gvks = gvks(definition);
    ty.atomic = definition["x-kubernetes-map-type"] == "atomic";
    ty.union = definition["x-kubernetes-unions"].as_array().map(|unions| union(&unions[0]));
    let required: BTreeSet<&str> = strings(&definition["required"]).collect();
    let empty = serde_json::Map::new();
    let properties = definition["properties"].as_object().unwrap_or(&empty);
    for name in ty.fields.keys() {
        ensure!(properties.contains_key(name), "field {name} is not in the definitions");
    }
    for (name, property) in properties {
        let field = ty.fields.get_mut(name).with_context(|| format!("field {name} is not in the table"))?;
        let published = published_type(property)?;
        ensure!(published == field.ty, "field {name} is {published}, in the table {}", field.ty);
        field.required = required.contains(name.as_str());
        apply_field(field, property);
    }
    Ok(())
}

fn apply_field(field: &mut Field, property: &Value) {
    field.list = property["x-kubernetes-list-type"].as_str().map(|kind| {
        let keys: Vec<&str> = strings(&property["x-kubernetes-list-map-keys"]).collect();
        if keys.is_empty() { kind.to_owned() } else { format!("{kind}:{}", keys.join(",")) }
    });
    field.atomic = property["x-kubernetes-map-type"] == "atomic";
    let strategies: Vec<&str> = property["x-kubernetes-patch-strategy"].as_str().unwrap_or("").split(',').collect();
    field.merge = strategies
        .contains(&"merge")
        .then(|| property["x-kubernetes-patch-merge-key"].as_str().unwrap_or("").to_owned());
    field.strategy = strategies.iter().find(|s| **s != "merge" && !s.is_empty()).map(|s| (*s).to_owned());
}

/// The kinds; more than a handful means options or events, which every group version has.
fn gvks(definition: &Value) -> Vec<String> {
    const MANY: usize = 5;
    let list = definition["x-kubernetes-group-version-kind"].as_array().map_or(&[][..], Vec::as_slice);
    let one = |v: &Value| {
        let part = |key: &str| v[key].as_str().unwrap_or("").to_owned();
        (part("group"), part("version"), part("kind"))
    };
    match list {
        [first, ..] if list.len() > MANY => vec![format!("*/*/{}", one(first).2)],
        _ => list.iter().map(one).map(|(g, v, k)| format!("{g}/{v}/{k}")).collect(),
    }
}

/// `discriminator:field=Name;field=Name`.
fn union(union: &Value) -> String {
    let members: Vec<String> = union["fields-to-discriminateBy"]
        .as_object()
        .map(|m| m.iter().map(|(k, v)| format!("{k}:{}", v.as_str().unwrap_or(""))).collect())
        .unwrap_or_default();
    format!("{};{}", union["discriminator"].as_str().unwrap_or(""), members.join(";"))
}

fn published_type(property: &Value) -> Result<String> {
    if let Some(reference) = property["$ref"].as_str() {
        return Ok(reference.rsplit('/').next().unwrap_or("").to_owned());
    }
    let kind = match &property["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        other => other.as_str(),
    };
    let format = property["format"].as_str();
    Ok(match (kind, format) {
        (Some("array"), _) => format!("[]{}", published_type(&property["items"])?),
        (Some("object"), _) if property["additionalProperties"].is_object() => {
            format!("{{}}{}", published_type(&property["additionalProperties"])?)
        }
        (Some("string"), Some("byte")) => "bytes".to_owned(),
        (Some("string"), None) => "string".to_owned(),
        (Some("boolean"), None) => "bool".to_owned(),
        (Some("integer" | "number"), Some(format)) => format.to_owned(),
        (Some("object"), None) => "any".to_owned(),
        _ => bail!("unknown type {property}"),
    })
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
