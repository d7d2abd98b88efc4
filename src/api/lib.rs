//! The Kubernetes vocabulary: types, metadata, selectors, quantities, the schema table, patches,
//! defaults, validation and tables.
//!
//! Everything here is pure: no I/O, no async, no clock (`now` is always an argument). The typed
//! structs are `k8s-openapi`'s; this crate adds what upstream's API machinery and per-kind packages
//! add to the bare types.

pub use k8s_openapi;

pub mod convert;
pub mod field;
pub mod kinds;
pub mod meta;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod table;
pub mod version;
