//! Images, sandboxes and containers on libcontainer: what CRI covers, as plain Rust types.
//!
//! The daemon's side is [`Runtime`]; each pod has a shim, a small process of the same binary (see
//! `shim`), that owns its containers and outlives the daemon.

mod cgroup;
mod contract;
mod disk;
mod durable;
mod error;
mod image;
mod node;
mod oci;
mod seccomp;
mod shim;
mod sys;
mod types;

pub use disk::{DiskError, DiskRoom, Lane};
pub use error::{Error, Result};
pub use image::PullError;
pub use image::registries::Registries;
pub use node::{EventReceiver, Input, Output, Resizer, Runtime, RuntimeConfig, SHIM_TIMEOUT, Scope, Streams};
pub use shim::{shim_main, shim_main_of};
pub use sys::memory::trim_memory;
pub use sys::mount::{mount_points, unswapped_tmpfs};
pub use sys::process::process_age;
pub use sys::rootdir::{Links, RootDir, by_descriptor};
pub use sys::tree::{TreeCount, TreeUsage, remove_tree, walk_tree};
pub use types::*;
