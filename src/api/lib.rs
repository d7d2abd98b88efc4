//! The Kubernetes vocabulary: types, metadata, selectors, quantities, the schema table, patches,
//! defaults, validation and tables.
//!
//! Everything here is pure: no I/O, no async, no clock (`now` is always an argument). The typed
//! structs are `k8s-openapi`'s; this crate adds what upstream's API machinery and per-kind packages
//! add to the bare types.

pub use k8s_openapi;
/// For [`decode!`], wherever it is used.
#[doc(hidden)]
pub use {serde, serde_json};

mod apps;
mod autoscaling;
pub mod batch;
mod certificates;
pub mod codec;
pub mod convert;
mod coordination;
pub mod core;
mod difference;
mod discovery;
mod events;
pub mod field;
pub mod kinds;
pub mod meta;
mod networking;
mod node;
pub mod object;
pub mod openapi;
pub mod patch;
mod policy;
pub mod protobuf;
pub mod quantity;
mod rbac;
mod scheduling;
pub mod schema;
pub mod selector;
mod storage;
pub mod table;
pub mod version;
