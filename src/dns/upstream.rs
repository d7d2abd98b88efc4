//! Names outside the cluster: asked of the servers in the node's resolv.conf, and remembered.
//!
//! The file is looked at again when a question needs it, at most every few seconds: a board gets its
//! DNS servers after it has an address, and another set when it moves to another network.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use client::Places;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Questions on their way at once; a client's fifth retry is worth less than another's first try.
const MAX_QUESTIONS: usize = 256;
/// Those of one client: a resolver of many threads has fewer.
pub(crate) const MAX_QUESTIONS_OF_CLIENT: usize = 64;
/// Answers kept; of about 300 bytes each.
const CACHE_ENTRIES: u64 = 4096;
/// An answer, or a no, is asked for again after this even if its owner allows longer.
const MAX_TTL: Duration = Duration::from_secs(30);
/// Two attempts end before the five seconds that clients wait.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Between looks at resolv.conf.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What the upstream servers said.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    /// The SOA record of the zone that says no.
    pub(crate) authority: Vec<Record>,
}

impl Forwarded {
    fn failed() -> Self {
        Self { code: ResponseCode::ServFail, ..Self::default() }
    }
}

pub(crate) struct Upstream {
    resolv_conf: PathBuf,
    /// Asking these would be asking ourselves.
    own_addresses: Vec<IpAddr>,
    servers: Mutex<Servers>,
    pub(crate) room: Places<IpAddr>,
}

#[derive(Default)]
struct Servers {
    resolver: Option<TokioResolver>,
    addresses: Vec<IpAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Upstream {
    pub(crate) fn new(resolv_conf: PathBuf, own_addresses: Vec<IpAddr>) -> Self {
        Self { resolv_conf, own_addresses, servers: Mutex::new(Servers::default()), room: Places::new(MAX_QUESTIONS) }
    }

    /// Asks for records on a client's behalf; every failure is a SERVFAIL. When too many questions are
    /// on their way, the client with the most of them is let down.
    pub(crate) async fn ask(&self, client: IpAddr, name: &Name, kind: RecordType) -> Forwarded {
        let place = self.room.take(client, MAX_QUESTIONS_OF_CLIENT);
        tokio::select! {
            () = place.lost() => {
                debug!(%client, "too many questions of this client are on their way upstream");
                Forwarded::failed()
            }
            forwarded = self.look_up(name, kind) => forwarded,
        }
    }

    async fn look_up(&self, name: &Name, kind: RecordType) -> Forwarded {
        let Some(resolver) = self.resolver() else { return Forwarded::failed() };
        let mut name = name.clone();
        // Search domains of the node are not those of its pods.
        name.set_fqdn(true);
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Forwarded { answers: lookup.answers().to_vec(), ..Forwarded::default() },
            Err(NetError::Dns(DnsError::NoRecordsFound(no))) => {
                let soa = no.soa.map(|soa| soa.into_record_of_rdata());
                Forwarded { code: no.response_code, answers: Vec::new(), authority: soa.into_iter().collect() }
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Forwarded { code, ..Forwarded::default() },
            Err(e) => {
                debug!(%name, %kind, "no answer from upstream: {e}");
                Forwarded::failed()
            }
        }
    }

    fn resolver(&self) -> Option<TokioResolver> {
        let mut servers = self.servers.lock();
        let now = Instant::now();
        if servers.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL) {
            servers.looked = Some(now);
            self.look(&mut servers);
        }
        servers.resolver.clone()
    }

    fn look(&self, servers: &mut Servers) {
        let modified = fs::metadata(&self.resolv_conf).and_then(|metadata| metadata.modified()).ok();
        if modified.is_some() && modified == servers.modified {
            return;
        }
        let content = match fs::read_to_string(&self.resolv_conf) {
            Ok(content) => content,
            Err(e) => {
                warn!(path = %self.resolv_conf.display(), "cannot read the upstream DNS servers: {e}");
                return;
            }
        };
        servers.modified = modified;
        let addresses = name_servers(&content, &self.own_addresses);
        if addresses == servers.addresses {
            return;
        }
        info!(?addresses, "upstream DNS servers");
        servers.resolver = build(&addresses);
        servers.addresses = addresses;
    }
}

/// The servers that a resolv.conf names, without our own; three at most, as the C library has it.
fn name_servers(resolv_conf: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    const MAX: usize = 3;
    let lines = resolv_conf.lines().map(|line| line.split_whitespace());
    let values = lines.filter_map(|mut words| (words.next() == Some("nameserver")).then(|| words.next()).flatten());
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in values.filter_map(|value| value.parse().ok()) {
        if !own.contains(&server) && !servers.contains(&server) && servers.len() < MAX {
            servers.push(server);
        }
    }
    servers
}

fn build(servers: &[IpAddr]) -> Option<TokioResolver> {
    if servers.is_empty() {
        return None;
    }
    let servers = servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHE_ENTRIES;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_TTL);
    // Pods do not see the node's own hosts file.
    options.use_hosts_file = ResolveHosts::Never;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build().inspect_err(|e| warn!("cannot make a resolver: {e}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_never_asked() {
        #[track_caller]
        fn check(content: &str, expected: &[&str]) {
            let own = ["10.96.0.10".parse().unwrap()];
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(name_servers(content, &own), expected);
        }
        check("", &[]);
        check("# home\nsearch lan\nnameserver 192.168.1.1\nnameserver\t1.1.1.1 # two\n", &["192.168.1.1", "1.1.1.1"]);
        check("nameserver 10.96.0.10\nnameserver 192.168.1.1", &["192.168.1.1"]);
        check("nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver", &["2001:db8::1"]);
        check(
            "nameserver 1.0.0.1\nnameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
            &["1.0.0.1", "1.0.0.2", "1.0.0.3"],
        );
    }
}
