//! Images, sandboxes and containers on libcontainer: what CRI covers, as plain Rust types.
mod types;
pub use types::*;
