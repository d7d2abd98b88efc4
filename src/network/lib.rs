//! The pod network and the rules of Services: what CNI and kube-proxy's back end cover, by netlink alone.
//!
//! A pod has a veth pair of its own and a /32; the host routes to it and no bridge is involved.
//! nf_tables maps send traffic for Services to endpoints. This crate knows no Kubernetes type: the
//! kubelet asks [`PodNetwork`] for addresses, the proxy hands [`services::ServiceTable`] plain lists.
//!
//! All rules live in two tables of ours, `ip coracle-pods` and `ip coracle`, which outlive the
//! process: traffic flows on while the daemon restarts.

mod address_records;
mod conntrack;
mod host;
mod ipv6;
mod listeners;
mod namespace;
mod netlink;
mod nft;
mod pods;
mod protocol;
mod route;
pub mod services;
mod setting;
#[cfg(test)]
mod testbed;

pub use listeners::listeners;
pub use netlink::Kernel;
pub use pods::{Attachment, HostPort, NetworkConfig, PodNetwork, PodNetworkError};
pub use protocol::Protocol;
