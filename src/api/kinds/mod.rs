//! What distinguishes one kind from another: its defaults, what its writers may set, what is valid.
//!
//! Upstream calls this a strategy. The API server asks [`rules`] for those of a kind and drives every
//! resource through the same engine. Objects are untyped at this edge only: a kind with rules of its
//! own is decoded once per call, and its rules (the per-group folders of this crate) are written on
//! the typed structs.

mod generic;
mod prepare;
mod registry;
mod typed;

use serde_json::Value;

use crate::field::ErrorList;
use crate::meta::format::NameRule;

pub(crate) use generic::Generic;
pub use registry::rules;
pub(crate) use typed::{Kind, Typed};

/// What a write came to: the object was changed in place. Of one with more errors than are told the metadata
/// is left.
#[derive(Debug, Default)]
pub struct Admitted {
    pub errors: ErrorList,
    pub warnings: Vec<String>,
}

/// When a write counts as a new generation of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has no generation.
    None,
    /// When `spec` differs.
    Spec,
    /// When anything but metadata and status differs.
    Content,
}

/// A field that objects of a kind can be selected by.
#[derive(Clone, Copy, Debug)]
pub struct SelectableField {
    pub name: &'static str,
    /// Where it stands, as a JSON pointer.
    pub pointer: &'static str,
    /// Where its value stands when it is absent or empty there; empty for nowhere else.
    pub otherwise: &'static str,
    /// Its value when it is absent.
    pub absent: &'static str,
}

/// The part of a kind's rules that is data.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    pub namespaced: bool,
    pub names: NameRule,
    pub generation: Generation,
    /// The kind has a status that ordinary updates cannot touch.
    pub status: bool,
    /// A creator cannot set the status either.
    pub status_reset: bool,
    pub fields: &'static [SelectableField],
    /// Fields of the status that a writer who leaves them out does not mean to clear.
    pub status_kept: &'static [&'static str],
    /// A status and its conditions keep the generation that they were observed at, when a writer leaves
    /// it out.
    pub status_keeps_generations: bool,
    /// An update of the status leaves the labels as they are.
    pub status_keeps_labels: bool,
}

impl Traits {
    pub(crate) const NAMESPACED: Self = Self {
        namespaced: true,
        names: NameRule::Subdomain,
        generation: Generation::None,
        status: false,
        status_reset: false,
        fields: &[],
        status_kept: &[],
        status_keeps_generations: false,
        status_keeps_labels: false,
    };
    pub(crate) const CLUSTER: Self = Self { namespaced: false, ..Self::NAMESPACED };

    pub(crate) const fn names(self, names: NameRule) -> Self {
        Self { names, ..self }
    }

    pub(crate) const fn generation(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    pub(crate) const fn status(self) -> Self {
        Self { status: true, status_reset: true, ..self }
    }

    pub(crate) const fn status_on_create(self) -> Self {
        Self { status: true, status_reset: false, ..self }
    }

    pub(crate) const fn status_kept(self, status_kept: &'static [&'static str]) -> Self {
        Self { status_kept, ..self }
    }

    pub(crate) const fn status_keeps_generations(self) -> Self {
        Self { status_keeps_generations: true, ..self }
    }

    pub(crate) const fn status_keeps_labels(self) -> Self {
        Self { status_keeps_labels: true, ..self }
    }

    pub(crate) const fn fields(self, fields: &'static [SelectableField]) -> Self {
        Self { fields, ..self }
    }
}

/// The object-level rules of one kind.
pub trait KindRules: Sync {
    fn traits(&self) -> &Traits;

    /// Fills in what upstream's defaulting fills in, and writes quantities in canonical form.
    ///
    /// # Errors
    /// When the object is not of this kind.
    fn default(&self, obj: &mut Value) -> Result<(), serde_json::Error>;

    /// Resets what a creator may not set.
    fn prepare_create(&self, obj: &mut Value);

    /// Resets what an updater may not set, and bumps the generation if the write deserves it.
    fn prepare_update(&self, new: &mut Value, old: &Value);

    /// Keeps everything but the status from the old object.
    fn prepare_status_update(&self, new: &mut Value, old: &Value);

    fn validate(&self, obj: &Value) -> ErrorList;

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList;

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList;

    fn warnings(&self, obj: &Value) -> Vec<String>;

    /// Values of the selectable fields beyond `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, Box<str>)> {
        let value = |field: &SelectableField| {
            let first = obj.pointer(field.pointer).filter(|v| *v != "");
            first.or_else(|| obj.pointer(field.otherwise).filter(|_| !field.otherwise.is_empty()))
        };
        let text = |field: &SelectableField| match value(field) {
            None | Some(Value::Null) => field.absent.into(),
            Some(Value::String(s)) => s.as_str().into(),
            Some(other) => other.to_string().into_boxed_str(),
        };
        self.traits().fields.iter().map(|f| (f.name, text(f))).collect()
    }

    /// Default, prepare and validate a new object, decoding it once.
    ///
    /// # Errors
    /// When the object is not of this kind.
    fn admit_create(&self, obj: &mut Value) -> Result<Admitted, serde_json::Error> {
        self.default(obj)?;
        self.prepare_create(obj);
        Ok(Admitted { errors: self.validate(obj), warnings: self.warnings(obj) })
    }

    /// Default, prepare and validate a changed object, decoding each side once.
    ///
    /// # Errors
    /// When an object is not of this kind.
    fn admit_update(&self, new: &mut Value, old: &Value) -> Result<Admitted, serde_json::Error> {
        self.default(new)?;
        self.prepare_update(new, old);
        Ok(Admitted { errors: self.validate_update(new, old), warnings: self.warnings(new) })
    }
}

#[cfg(test)]
mod tests;
