//! What all objects have in common: names, labels, annotations, owners, finalizers and the rules for
//! changing them.

pub(crate) mod address_form;
pub mod duration;
pub mod format;
mod label_selector;
mod object_meta;

pub(crate) use label_selector::validate_label_selector;
pub(crate) use object_meta::{meta_of, name_warnings, validate_annotations, validate_labels};
pub use object_meta::{
    missing_resource_version, validate_metadata, validate_metadata_update, validate_object_meta,
    validate_object_meta_update,
};
