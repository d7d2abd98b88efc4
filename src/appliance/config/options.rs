//! The server's options as they are written: flags and the keys of the configuration file.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ipnet::Ipv4Net;
use serde::Deserialize;

/// Characters of a file that an error shows: whatever was named by mistake may hold secrets.
const SHOWN: usize = 16;
const DEFAULT_FILE: &str = "/etc/coracle/config.yaml";
pub(super) const DATA_DIR: &str = "/var/lib/coracle";

/// What the user wrote; an absent option leaves the decision to the file, then to the default.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServerOptions {
    /// Configuration file; every flag is a key there [default: /etc/coracle/config.yaml]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where everything of this node is kept [default: /var/lib/coracle]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the administrator's kubeconfig is written [default: /etc/coracle/kubeconfig.yaml]
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Address that the API server listens on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// Port that the API server listens on [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<u16>,
    /// Addresses of pods; each node gets a /24 [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<Ipv4Net>,
    /// Addresses of services [default: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<Ipv4Net>,
    /// Address of the cluster DNS [default: the tenth of the service addresses]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// Further name or address for the API server's certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// Most that the objects in the store may take, such as 512Mi [default: a quarter of the memory, at most 2Gi]
    #[arg(long, value_name = "SIZE")]
    pub store_limit: Option<String>,
    /// Run no pods on this machine
    #[arg(long)]
    pub disable_agent: bool,
    /// What to log: error, warn, info, debug, trace, or a tracing filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ServerOptions {
    /// Fills in from the configuration file what the command line leaves open.
    ///
    /// # Errors
    /// When the file that `--config` names is missing, or any file has a key or value that is wrong.
    pub(crate) fn with_file(self) -> anyhow::Result<Self> {
        let (path, named) = match &self.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        match statefile::read_text(path) {
            Ok(text) => {
                let file = Self::parse(&text).with_context(|| format!("configuration file {}", path.display()))?;
                Ok(self.over(file))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => Ok(self),
            Err(e) => Err(e).with_context(|| format!("reading the configuration file {}", path.display())),
        }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR))
    }

    pub(crate) fn log_level(&self) -> &str {
        self.log_level.as_deref().unwrap_or(crate::logging::DEFAULT_LEVEL)
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml_ng::from_str(text).map_err(|e| anyhow::anyhow!("{}", brief(&e)))
    }

    /// `self` wins; lists are taken whole from whoever gave one.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            config: self.config,
            data_dir: self.data_dir.or(file.data_dir),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            node_name: self.node_name.or(file.node_name),
            node_ip: self.node_ip.or(file.node_ip),
            bind_address: self.bind_address.or(file.bind_address),
            https_port: self.https_port.or(file.https_port),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            cluster_dns: self.cluster_dns.or(file.cluster_dns),
            tls_san: if self.tls_san.is_empty() { file.tls_san } else { self.tls_san },
            store_limit: self.store_limit.or(file.store_limit),
            disable_agent: self.disable_agent || file.disable_agent,
            log_level: self.log_level.or(file.log_level),
        }
    }
}

/// What is wrong and where, with no more than a few characters of what stands there.
fn brief(error: &serde_yaml_ng::Error) -> String {
    let mut text = shortened(&error.to_string());
    if let Some(at) = error.location().filter(|_| !text.contains(" at line ")) {
        text.push_str(&format!(" at line {} column {}", at.line(), at.column()));
    }
    text
}

/// The text with what it quotes cut short. A quote within a quote is escaped.
fn shortened(text: &str) -> String {
    let mut out = String::new();
    let mut quoted: Option<(char, usize)> = None;
    let mut escaped = false;
    for c in text.chars() {
        let ends = quoted.is_some_and(|(quote, _)| c == quote && !escaped);
        escaped = c == '\\' && !escaped;
        if ends {
            quoted = None;
        } else if let Some((_, length)) = &mut quoted {
            *length += 1;
            match (*length).cmp(&(SHOWN + 1)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    out.push_str("...");
                    continue;
                }
                std::cmp::Ordering::Greater => continue,
            }
        } else if matches!(c, '"' | '`') {
            quoted = Some((c, 0));
        }
        out.push(c);
    }
    out
}
