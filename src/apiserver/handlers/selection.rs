//! Which objects of a collection a list or watch is about.

use api::object::ObjectIndex;
use api::selector::FieldRequirement;

use super::context::Context;
use super::event_form;
use super::options::ListOptions;
use crate::error::ApiError;
use crate::registry::field_of;

/// Namespace, label selector and field selector of a request.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Empty for all namespaces.
    pub(crate) namespace: String,
    labels: Option<api::selector::LabelSelector>,
    fields: Option<api::selector::FieldSelector>,
}

impl Selection {
    pub(crate) fn new(cx: &Context<'_>, options: &ListOptions) -> Result<Self, ApiError> {
        // The fields of the group that was asked; those of the stored form have the index.
        let known = api::kinds::rules(cx.resource.row.group, cx.kind()).traits().fields;
        let mut fields = options.fields.clone();
        for requirement in &mut fields.requirements {
            let field = &*requirement.field;
            let common = matches!(field, "metadata.name" | "metadata.namespace");
            if !common && !known.iter().any(|f| f.name == field) {
                return Err(ApiError::BadRequest(unknown_field(cx, field)));
            }
            if cx.resource.row.stored_in.is_some() {
                requirement.field = event_form::core_field(field).into();
            }
        }
        // The old paths of watches name the one object.
        if !cx.info.name.is_empty() {
            let value = cx.info.name.as_str().into();
            fields.requirements.push(FieldRequirement { field: "metadata.name".into(), value, equal: true });
        }
        Ok(Self {
            namespace: cx.namespace().to_owned(),
            labels: (!options.labels.is_everything()).then(|| options.labels.clone()),
            fields: (!fields.is_everything()).then_some(fields),
        })
    }

    /// Whether the whole collection (of the namespace) is meant.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// The one name that is selected, if the selector fixes it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.as_ref()?.required_value("metadata.name")
    }

    pub(crate) fn prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }

    pub(crate) fn matches(&self, index: &ObjectIndex) -> bool {
        (self.namespace.is_empty() || *index.key.namespace == *self.namespace)
            && self.labels.as_ref().is_none_or(|l| l.matches(&index.labels))
            && self.fields.as_ref().is_none_or(|f| f.matches(|field| field_of(index, field)))
    }
}

fn unknown_field(cx: &Context<'_>, field: &str) -> String {
    if cx.resource.rules.traits().fields.is_empty() {
        return format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
    }
    format!("field label not supported: {field}")
}
