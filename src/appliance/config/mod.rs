//! Configuration: command line over file over defaults, resolved once into [`ServerConfig`].
//!
//! Every flag is also a key of the file, under the same name.

mod options;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use api::quantity::Quantity;
use ipnet::Ipv4Net;

pub(crate) use options::ServerOptions;

use crate::exit::Final;
use crate::{memory, nodeaddress};

/// The domain of the cluster's DNS.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// A server's settings, checked and complete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerConfig {
    pub data_dir: PathBuf,
    pub write_kubeconfig: PathBuf,
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    pub listen: SocketAddr,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub cluster_dns: Ipv4Addr,
    pub tls_san: Vec<String>,
    /// Bytes.
    pub store_limit: u64,
    pub run_agent: bool,
}

impl ServerConfig {
    /// Completes what the command line and the file say. Waits until the machine has an address, if
    /// none is given.
    ///
    /// # Errors
    /// Names the flag that cannot be used.
    pub(crate) fn resolve(options: ServerOptions) -> anyhow::Result<Self> {
        let name = hostname()?;
        Self::from_options(options, &name, nodeaddress::wait).map_err(|e| Final(e).into())
    }

    fn from_options(
        options: ServerOptions,
        hostname: &str,
        detect: impl FnOnce() -> anyhow::Result<IpAddr>,
    ) -> anyhow::Result<Self> {
        // Destructured, so that an option without a reader does not compile.
        let ServerOptions {
            config: _,
            data_dir,
            write_kubeconfig,
            node_name,
            node_ip,
            bind_address,
            https_port,
            cluster_cidr,
            service_cidr,
            cluster_dns,
            tls_san,
            store_limit,
            disable_agent,
            log_level: _,
        } = options;
        let node_ip = match node_ip.map_or_else(detect, Ok)? {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => bail!("--node-ip {ip}: IPv6 nodes are not supported yet"),
        };
        let cluster_cidr = cluster_cidr.unwrap_or_else(|| cidr([10, 244, 0, 0], 16));
        let service_cidr = service_cidr.unwrap_or_else(|| cidr([10, 96, 0, 0], 16));
        ensure!(
            !overlap(cluster_cidr, service_cidr),
            "--cluster-cidr {cluster_cidr} and --service-cidr {service_cidr} overlap"
        );
        ensure!(cluster_cidr.prefix_len() <= 24, "--cluster-cidr {cluster_cidr}: each node needs a /24 of it");
        ensure!(
            (12..=28).contains(&service_cidr.prefix_len()),
            "--service-cidr {service_cidr}: the prefix length must be 12 to 28"
        );
        let cluster_dns = cluster_dns.unwrap_or_else(|| nth(service_cidr, 10));
        ensure!(
            service_cidr.contains(&cluster_dns),
            "--cluster-dns {cluster_dns} is not in --service-cidr {service_cidr}"
        );
        ensure!(
            ![service_cidr.network(), nth(service_cidr, 1), service_cidr.broadcast()].contains(&cluster_dns),
            "--cluster-dns {cluster_dns}: the first two addresses and the last of --service-cidr are taken"
        );
        let node_name = node_name.unwrap_or_else(|| hostname.to_lowercase());
        check_node_name(&node_name)?;
        let bind = bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Self {
            data_dir: data_dir.unwrap_or_else(|| options::DATA_DIR.into()),
            write_kubeconfig: write_kubeconfig.unwrap_or_else(|| "/etc/coracle/kubeconfig.yaml".into()),
            node_name,
            node_ip,
            listen: SocketAddr::new(bind, https_port.unwrap_or(6443)),
            cluster_cidr,
            service_cidr,
            cluster_dns,
            tls_san,
            store_limit: store_limit_of(store_limit.as_deref(), memory::available())?,
            run_agent: !disable_agent,
        })
    }

    /// The address of the `kubernetes` service.
    pub(crate) fn service_ip(&self) -> Ipv4Addr {
        nth(self.service_cidr, 1)
    }
}

/// etcd's default quota, and the part of the memory that the objects of a small machine get: they rest in memory, once
/// as text and, in small, as what they are found by; the rest is for pods.
const LARGEST_STORE: u64 = 2 << 30;
const STORES_PART: u64 = 4;
/// The objects of an empty cluster take some 1 MiB, and one object up to 1.5.
const SMALLEST_STORE: u64 = 64 << 20;

fn store_limit_of(given: Option<&str>, memory: Option<u64>) -> anyhow::Result<u64> {
    let Some(given) = given else {
        let part = memory.map_or(LARGEST_STORE, |memory| memory / STORES_PART);
        return Ok(part.clamp(SMALLEST_STORE, LARGEST_STORE));
    };
    let size: Quantity = given.parse().map_err(|e| anyhow::anyhow!("--store-limit {given:?}: {e}"))?;
    let bytes = u64::try_from(size.value()).unwrap_or(0);
    ensure!(bytes >= SMALLEST_STORE, "--store-limit {given}: a store needs 64Mi at least");
    Ok(bytes)
}

fn cidr(ip: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new(ip.into(), length).expect("the length is at most 32")
}

fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.network().to_bits() + n)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("reading the host's name")?;
    name.into_string().map_err(|name| anyhow::anyhow!("the host's name {name:?} is not UTF-8; give --node-name"))
}

/// A node's name is a DNS-1123 subdomain (RFC 1123, at most 253 characters).
fn check_node_name(name: &str) -> anyhow::Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    ensure!(
        name.len() <= 253 && name.split('.').all(label),
        "node name {name:?}: only lower case letters, digits, '-' and '.' are allowed, beginning and ending with a letter or digit; give another with --node-name"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
