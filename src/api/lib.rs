//! The Kubernetes vocabulary: types, metadata, selectors, quantities, the schema table, patches,
//! defaults, validation and tables.
//!
//! Everything here is pure: no I/O, no async, no clock (`now` is always an argument). The typed
//! structs are `k8s-openapi`'s; this crate adds what upstream's API machinery and per-kind packages
//! add to the bare types.

pub use k8s_openapi;

pub mod object;
