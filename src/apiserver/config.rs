//! Everything the API server is told at start. Resolved and validated by the appliance; the server
//! reads no file, flag or environment variable of its own.

use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::registry::Store;

/// What `/version` says besides the fixed parts.
#[derive(Clone, Debug)]
pub struct Version {
    /// For example `v1.36.2+coracle.1`.
    pub git_version: String,
    pub git_commit: String,
    pub build_date: String,
    /// For example `linux/arm64`.
    pub platform: String,
}

/// The API server's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: Store,
    /// Bytes that the objects in the store may take.
    pub store_limit: u64,
    pub version: Version,
    /// The address and port that clients outside of the cluster reach the server at.
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    pub service_cidr: IpNet,
    /// The service address that the nodes answer DNS queries at.
    pub cluster_dns: IpAddr,
    pub auth: crate::auth::Config,
    pub rest: crate::rest::kubelet::Config,
}
