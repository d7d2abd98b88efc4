//! The node's parts: runtime, pod network, kubelet, service proxy and DNS.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use api::k8s_openapi::api::core::v1::Node;
use client::{Cluster, Parts, Query, Tasks};
use ipnet::{IpNet, Ipv4Net};
use network::services::{ServiceTable, ServiceTableConfig};
use network::{HostPort, NetworkConfig, PodNetwork, Protocol};
use runtime::{LogLimit, Registries, Runtime, RuntimeConfig, SHIM_TIMEOUT};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::tls::Certificates;
use super::{image_files, node_role, report, tls};
use crate::config::{CLUSTER_DOMAIN, ServerConfig};
use crate::pki::Pki;

const KUBELET_PORT: u16 = 10250;
const DNS_PORT: u16 = 53;
/// Upstream's default; a /24 has room for it.
const MAX_PODS: u32 = 110;
const REGISTRIES: &str = "/etc/coracle/registries.yaml";

/// Starts the node's parts. What they need of the machine may be missing for a while: they try again.
///
/// # Errors
/// When the configuration cannot work.
pub(super) fn spawn(
    config: &ServerConfig,
    pki: &Pki,
    certificates: &Certificates,
    cluster: &Cluster,
    parts: Parts,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let token = tasks.token().clone();
    let pod_cidr = pod_cidr(config, cluster)?;
    let server = kubelet::ServerConfig {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), KUBELET_PORT),
        tls: tls::kubelet(pki, certificates)?,
        client_name: apiserver::auth::user::KUBELET_CLIENT.to_owned(),
        parts: parts.clone(),
    };
    let kubelet = kubelet_config(config, server, pod_cidr);
    tasks.spawn("node-role", node_role::keep(cluster.clone(), config.node_name.clone(), token.clone()));
    let node = Starting { config: config.clone(), cluster: cluster.clone(), parts, token };
    tasks.spawn("node", node.run(pod_cidr, kubelet));
    Ok(())
}

/// This node's pods and the node itself, by any address that its own processes ask from.
fn dns_clients(config: &ServerConfig, pod_cidr: Ipv4Net) -> Vec<IpNet> {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    vec![pod_cidr.into(), loopback.into(), IpAddr::V4(config.cluster_dns).into(), IpAddr::V4(config.node_ip).into()]
}

/// What the node's parts share.
struct Starting {
    config: ServerConfig,
    cluster: Cluster,
    parts: Parts,
    token: CancellationToken,
}

impl Starting {
    /// Runs the node until cancelled. Returns earlier when the kubelet, which cannot be started twice in
    /// one process, ends.
    async fn run(self, pod_cidr: Ipv4Net, kubelet: kubelet::Config) {
        let Some((runtime, network)) = self.open(pod_cidr).await else { return };
        let ended = self.token.child_token();
        let run_kubelet = async {
            report("kubelet", kubelet::run(self.cluster.clone(), kubelet, runtime, network, ended.clone()).await);
            ended.cancel();
        };
        tokio::join!(self.run_proxy(&ended), self.run_dns(pod_cidr, &ended), run_kubelet);
    }

    /// The container runtime, with the images that lie ready, and the pod network.
    async fn open(&self, pod_cidr: Ipv4Net) -> Option<(Arc<Runtime>, Arc<PodNetwork>)> {
        let Self { config, parts, token, .. } = self;
        let agent = config.data_dir.join("agent");
        let open_runtime = || async { anyhow::Ok(Runtime::open(runtime_config(config)?).await?) };
        let (images, imported) = (config.data_dir.join("images"), agent.join("imported.json"));
        let runtime = async {
            let runtime = parts.keep_trying("runtime", token, open_runtime).await?;
            token.run_until_cancelled(image_files::import(&runtime, &images, &imported)).await?;
            Some(runtime)
        };
        let open_network = || async {
            let config = NetworkConfig {
                pod_cidr,
                cluster_cidr: config.cluster_cidr,
                cluster_dns: Some(config.cluster_dns),
                state_dir: agent.join("network"),
                mtu: None,
            };
            anyhow::Ok(PodNetwork::open(config).await?)
        };
        let network = parts.keep_trying("network", token, open_network);
        let (runtime, network) = tokio::join!(runtime, network);
        Some((runtime?, network?))
    }

    async fn run_proxy(&self, token: &CancellationToken) {
        let config = &self.config;
        let start = || {
            let rules = ServiceTable::open(ServiceTableConfig {
                cluster_cidr: config.cluster_cidr,
                service_cidr: config.service_cidr,
                cluster_dns: Some(config.cluster_dns),
            });
            let proxy = proxy::Config {
                node_name: config.node_name.clone(),
                node_ip: config.node_ip,
                health_check_address: Ipv4Addr::UNSPECIFIED,
                own_ports: vec![config.listen.port(), KUBELET_PORT],
                cluster_networks: vec![config.cluster_cidr, config.service_cidr],
            };
            let (cluster, token) = (self.cluster.clone(), token.clone());
            async move { anyhow::Ok(proxy::run(cluster, rules?, proxy, token).await?) }
        };
        self.parts.keep_running("proxy", token, start).await;
    }

    async fn run_dns(&self, pod_cidr: Ipv4Net, token: &CancellationToken) {
        let config = &self.config;
        let start = || {
            let dns = dns::DnsConfig {
                domain: CLUSTER_DOMAIN.to_owned(),
                bind: vec![SocketAddrV4::new(config.cluster_dns, DNS_PORT)],
                clients: dns_clients(config, pod_cidr),
                ranges: vec![config.cluster_cidr.into(), config.service_cidr.into()],
                resolv_conf: "/etc/resolv.conf".into(),
            };
            dns::run(self.cluster.clone(), dns, token.clone())
        };
        self.parts.keep_running("dns", token, start).await;
    }
}

fn runtime_config(config: &ServerConfig) -> anyhow::Result<RuntimeConfig> {
    Ok(RuntimeConfig {
        data_dir: config.data_dir.join("agent/runtime"),
        run_dir: run_dir(&config.data_dir),
        exe: std::env::current_exe().context("finding this binary")?,
        registries: Registries::load(Path::new(REGISTRIES)).with_context(|| format!("reading {REGISTRIES}"))?,
        log_limit: LogLimit::default(),
        shim_timeout: SHIM_TIMEOUT,
    })
}

/// Sockets have short paths (108 bytes at the most), so they live below the run directory's root.
fn run_dir(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new("/var/lib/coracle") { "/run/coracle".into() } else { data_dir.join("run") }
}

/// All that is read of a node here: the rest of it may be damaged.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Ranged {
    spec: Range,
}

api::decode!(Ranged);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
}

/// The range that this node has already, else the first that no other node has.
fn pod_cidr(config: &ServerConfig, cluster: &Cluster) -> anyhow::Result<Ipv4Net> {
    let mut taken = HashSet::new();
    for node in cluster.objects::<Node>(&Query::ALL) {
        // A server whose one node cannot be read has to start all the same: how else would it be mended?
        let Ok(Ranged { spec }) = node.decode() else { continue };
        let Some(cidr) = spec.pod_cidr.as_deref().and_then(|c| c.parse().ok()) else { continue };
        if *node.index.key.name == *config.node_name {
            return Ok(cidr);
        }
        taken.insert(cidr);
    }
    let free = config.cluster_cidr.subnets(24).context("dividing --cluster-cidr")?.find(|c| !taken.contains(c));
    ensure!(free.is_some(), "--cluster-cidr {}: every /24 of it belongs to a node", config.cluster_cidr);
    free.context("a free range for pods")
}

fn kubelet_config(config: &ServerConfig, server: kubelet::ServerConfig, pod_cidr: Ipv4Net) -> kubelet::Config {
    let agent = config.data_dir.join("agent");
    kubelet::Config {
        node_name: config.node_name.clone(),
        node_ips: vec![IpAddr::V4(config.node_ip)],
        root_dir: agent.join("kubelet"),
        log_dir: agent.join("logs"),
        seccomp_dir: agent.join("seccomp"),
        resolv_conf: "/etc/resolv.conf".into(),
        hosts_file: "/etc/hosts".into(),
        cluster_dns: vec![IpAddr::V4(config.cluster_dns)],
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        pod_cidr: Some(pod_cidr.to_string()),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        max_pods: MAX_PODS,
        pod_pids_limit: None,
        reserved_cpu_milli: 0,
        reserved_memory: 0,
        kubelet_version: api::version::GIT_VERSION.to_owned(),
        runtime_version: format!("coracle://{}", env!("CARGO_PKG_VERSION")),
        server: Some(server),
        own_ports: vec![own_port(config.listen.port()), own_port(KUBELET_PORT)],
        thresholds: kubelet::Thresholds::default(),
    }
}

fn own_port(port: u16) -> HostPort {
    HostPort { host_ip: None, host_port: port, container_port: port, protocol: Protocol::Tcp }
}
