//! The service proxy: Services and EndpointSlices in, rules for this node out. What kube-proxy does.
//!
//! `service` and `slice` keep the few fields that matter of each object, [`State`] joins them into
//! the plain list that `network` turns into rules, `run` feeds changes in and loads the list,
//! `health` answers load balancers that ask whether this node has endpoints, and `host` keeps Services off
//! the ports that the node itself listens on.

mod health;
mod host;
mod run;
mod service;
mod slice;
mod state;

pub use run::{Config, Error, run};

/// Objects with this label are another proxy's.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Slices of Services that have no cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";
