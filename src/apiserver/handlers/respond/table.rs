//! Objects as rows of a table, as `kubectl get` asks for them.

use api::object::Object;
use api::table;
use serde_json::{Value, json};

use super::shape::write_metadata;
use crate::error::ApiError;
use crate::handlers::context::Context;
use crate::handlers::rules::to_served;
use crate::negotiate::IncludeObject;

/// Group and resource that the request's table is made for.
pub(super) fn table_of(cx: &Context<'_>) -> (&'static str, &'static str) {
    (cx.resource.stored_group, cx.resource.row.resource)
}

pub(super) fn write_table(
    cx: &Context<'_>,
    (group, resource): (&str, &str),
    objects: impl Iterator<Item = Object>,
    metadata: &Value,
    columns: bool,
) -> Result<Vec<u8>, ApiError> {
    let definitions = if columns { columns_of(group, resource) } else { Value::Null };
    let version = cx.output.meta_version;
    let mut out = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{metadata},\
         \"columnDefinitions\":{definitions},\"rows\":["
    )
    .into_bytes();
    let now = jiff::Timestamp::now();
    for (i, object) in objects.enumerate() {
        let value: Value = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut out, &table::cells(group, resource, &value, now)).map_err(ApiError::internal)?;
        if let Some(conditions) = table::row_conditions(group, resource, &value) {
            out.extend_from_slice(b",\"conditions\":");
            serde_json::to_writer(&mut out, &conditions).map_err(ApiError::internal)?;
        }
        match cx.output.include_object {
            IncludeObject::None => {}
            IncludeObject::Metadata => {
                out.extend_from_slice(b",\"object\":");
                write_metadata(cx, &object, &mut out)?;
            }
            IncludeObject::Object => {
                out.extend_from_slice(b",\"object\":");
                serde_json::to_writer(&mut out, &to_served(cx, value)?).map_err(ApiError::internal)?;
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn columns_of(group: &str, resource: &str) -> Value {
    let columns = table::columns(group, resource).iter().map(|c| {
        json!({
            "name": c.name, "type": c.r#type, "format": c.format,
            "description": c.description, "priority": c.priority,
        })
    });
    Value::Array(columns.collect())
}
