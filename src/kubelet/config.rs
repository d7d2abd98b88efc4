//! What the kubelet is told by whoever starts it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::Taint;
use network::HostPort;

/// The settings of one node's kubelet.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The first is the one that pods see as `status.hostIP`.
    pub node_ips: Vec<IpAddr>,
    /// The kubelet's own files, such as `<data-dir>/agent/kubelet`.
    pub root_dir: PathBuf,
    /// Container logs, `<data-dir>/agent/logs` or `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Where `Localhost` seccomp profiles are.
    pub seccomp_dir: PathBuf,
    /// The node's own resolver settings and hosts file.
    pub resolv_conf: PathBuf,
    pub hosts_file: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The range of this node's pods, shown in `spec.podCIDR`.
    pub pod_cidr: Option<String>,
    /// Set on the Node when it is registered, beside the well-known ones. A node may not give itself
    /// a role.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    /// Processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// Kept from pods.
    pub reserved_cpu_milli: i64,
    pub reserved_memory: i64,
    /// `v1.36.x+coracle.N`
    pub kubelet_version: String,
    /// `coracle://<version>`
    pub runtime_version: String,
    pub server: Option<ServerConfig>,
    /// What the node itself listens on: no pod gets these ports of the host.
    pub own_ports: Vec<HostPort>,
    pub thresholds: Thresholds,
}

/// The kubelet's own HTTPS API.
#[derive(Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Asks for a client certificate of the cluster's CA.
    pub tls: Arc<rustls::ServerConfig>,
    /// The common name of the API server's client certificate; it and members of `system:masters` are
    /// let in without asking for their rights.
    pub client_name: String,
    /// Where it is said that the address cannot be listened on.
    pub parts: client::Parts,
}

/// When resources run short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Pods are evicted below so many bytes of available memory.
    pub memory_available: i64,
    /// And below this share of free disk or inodes.
    pub disk_available: f64,
    pub inodes_available: f64,
    /// A pressure condition stays at least this long.
    pub pressure_transition: Duration,
    /// Unused images are removed from this share of used disk on, down to the other.
    pub image_gc_high: f64,
    pub image_gc_low: f64,
    /// An image this young is never removed.
    pub image_min_age: Duration,
}

impl Default for Thresholds {
    /// Upstream's values.
    fn default() -> Self {
        Self {
            memory_available: 100 << 20,
            disk_available: 0.10,
            inodes_available: 0.05,
            pressure_transition: Duration::from_secs(300),
            image_gc_high: 0.85,
            image_gc_low: 0.80,
            image_min_age: Duration::from_secs(120),
        }
    }
}

impl Config {
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.root_dir.join("pods")
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }
}
