//! The Kubernetes API server: every resource through one generic engine, over the embedded store.
//!
//! A request passes authentication, authorization, decoding, admission, the resource's strategy and
//! the store, in this order, whether it came over TLS or from a component of this process. The watch
//! cache answers reads from encoded bytes; nothing is decoded to serve them in their stored version.

pub mod admission;
pub mod allocate;
mod allowance;
mod answer;
pub mod auth;
mod bootstrap;
pub mod config;
mod connections;
mod deadline;
mod discovery;
mod dispatch;
pub mod error;
mod event_expiry;
mod frames;
mod handlers;
mod health;
mod held;
mod in_flight;
mod listener;
mod metrics;
mod negotiate;
mod openapi;
mod paths;
mod projection;
mod reader;
mod receiving;
pub mod registry;
pub mod request;
pub mod rest;
mod room;
mod served;
mod server;
mod shares;
mod start;
mod status;
mod streams;
mod system_objects;
mod system_services;
mod unread;

#[cfg(test)]
mod api_tests;

pub use config::Config;
pub use reader::{Reader, ReaderEvent, ReaderSubscription};
pub use registry::{StoreUse, check_store};
pub use served::ServedResource;
pub use server::ApiServer;
pub use start::StartError;
pub use storage::{Gap, SetAside};
