//! The schema table and the decoder that it drives.
//!
//! [`decode_json`] reads a body in one pass: it checks types, reports unknown and duplicate fields with
//! their paths, prunes what the type does not have, and leaves exactly what upstream's typed objects
//! would hold: null is absence, an empty value of a field that Go omits when empty is absent, times
//! and quantities are canonical. What a body may decode to is bounded. [`canonicalize`] adds what Go writes even when it is empty.
//!
//! The table is a fact sheet of upstream's v1.36 types. It is made by `xtask table` and checked by
//! `xtask verify`; src/xtask/main.rs says how.

mod canonical;
pub(crate) mod cost;
mod decode;
mod error;
mod issues;
mod leaf;
mod parse;
mod syntax;
mod table;
pub(crate) mod time;
mod yaml;
mod yaml_scalar;

use std::sync::LazyLock;

pub use canonical::canonicalize;
pub(crate) use canonical::zero;
pub(crate) use decode::is_absent;
pub use decode::{Decoded, check_value, decode_any, decode_json};
pub use error::{DecodeError, FieldIssue};
pub(crate) use issues::MAX_ISSUES;
pub(crate) use syntax::explain;
pub(crate) use table::Numbers;
pub use table::{Container, FieldRef, ListType, Scalar, Shape, Strategy, Table, Ty, TypeId, TypeRef};
pub use yaml::{Yaml, check_yaml, decode_yaml, read_yaml};

static BUILT_IN: LazyLock<Table> = LazyLock::new(|| parse::parse(include_str!("table.txt")));

/// The table of the built-in types.
#[must_use]
pub fn built_in() -> &'static Table {
    &BUILT_IN
}

/// The type of a built-in kind. Options (`DeleteOptions` and its like) are found under every group
/// and version.
#[must_use]
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    BUILT_IN.type_of(group, version, kind)
}

/// The fields and attributes of a built-in type.
#[must_use]
pub fn describe(ty: TypeId) -> TypeRef<'static> {
    BUILT_IN.get(ty)
}

#[cfg(test)]
pub(crate) mod generate;
#[cfg(test)]
mod tests;
