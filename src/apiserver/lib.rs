//! The Kubernetes API server: every resource through one generic engine, over the embedded store.
//!
//! A request passes authentication, authorization, decoding, admission, the resource's strategy and
//! the store, in this order, whether it came over TLS or from a component of this process. The watch
//! cache answers reads from encoded bytes; nothing is decoded to serve them in their stored version.

pub mod admission;
pub mod allocate;
pub mod auth;
pub mod config;
pub mod error;
mod projection;
pub mod registry;
pub mod request;
pub mod rest;
mod server;

pub use config::Config;
pub use server::ApiServer;
