//! The server's life: fill the zone, then open the sockets, then keep the zone up to date.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use api::object::Object;
use client::{Change, Cluster, Kind, Query, Subscription};
use hickory_proto::rr::Name;
use hickory_server::Server;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::handler::Handler;
use crate::tcp;
use crate::upstream::Upstream;
use crate::zone::{Origin, ServiceRecord, Slice, Zone};

/// Where and for what the server answers.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// `cluster.local`
    pub domain: String,
    /// Each is bound for UDP and TCP; the addresses must be there.
    pub bind: Vec<SocketAddrV4>,
    /// Who may ask; others get no answer.
    pub clients: Vec<IpNet>,
    /// The ranges of pods and services, whose reverse names nobody else knows.
    pub ranges: Vec<IpNet>,
    /// Names the servers for everything outside the cluster.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{domain:?} is no domain: {source}")]
    Domain { domain: String, source: hickory_proto::ProtoError },
    #[error("cannot bind {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the source of {0} ended")]
    SourceEnded(&'static str),
    #[error("the task of TCP connections ended: {0}")]
    Connections(tokio::task::JoinError),
    #[error("the DNS server ended: {0}")]
    Server(hickory_resolver::net::NetError),
}

/// Serves until `token` is cancelled. Sockets open only once all Services are known: until then a
/// client is refused, tries again, and is never told that an existing name does not exist.
///
/// # Errors
/// When the domain is no name, an address cannot be bound, or the cluster's source ends.
pub async fn run(cluster: Cluster, config: DnsConfig, token: CancellationToken) -> Result<(), Error> {
    let mut domain = Name::from_ascii(&config.domain)
        .map_err(|source| Error::Domain { domain: config.domain.clone(), source })?
        .to_lowercase();
    domain.set_fqdn(true);
    let servers: Vec<Ipv4Addr> = config.bind.iter().map(|at| *at.ip()).collect();
    let own_addresses = servers.iter().map(|ip| IpAddr::from(*ip)).collect();
    let zone = Arc::new(RwLock::new(Zone::new(Origin { domain, servers, ranges: config.ranges })));
    let upstream = Upstream::new(config.resolv_conf, own_addresses);
    let mut feed = Feed::new(cluster, Arc::clone(&zone));
    tokio::select! {
        () = token.cancelled() => return Ok(()),
        synced = feed.sync() => synced?,
    }
    let handler = Handler { zone, upstream: Arc::new(upstream), clients: config.clients.into() };
    let mut server = Server::new(handler.clone());
    let mut connections = JoinSet::new();
    for address in config.bind {
        let listener = listen(&mut server, address).await?;
        connections.spawn(tcp::serve(listener, handler.clone()));
        info!(%address, "serving DNS");
    }
    let result = tokio::select! {
        () = token.cancelled() => Ok(()),
        Some(Err(e)) = connections.join_next() => Err(Error::Connections(e)),
        result = server.block_until_done() => result.map_err(Error::Server),
        result = feed.follow() => result,
    };
    // Questions on their way have an answer in a moment or never.
    server.shutdown_token().cancel();
    result
}

/// Binds both; hickory serves UDP.
async fn listen(server: &mut Server<Handler>, address: SocketAddrV4) -> Result<TcpListener, Error> {
    let failed = |source| Error::Bind { address: address.into(), source };
    let udp = UdpSocket::bind(address).await.map_err(failed)?;
    // Port 0 stands for any, the same one for both.
    let address = udp.local_addr().map_err(failed)?;
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    server.register_socket(udp);
    Ok(tcp)
}

/// Brings changes of objects into the zone.
struct Feed {
    cluster: Cluster,
    zone: Arc<RwLock<Zone>>,
    namespaces: Subscription,
    services: Subscription,
    slices: Subscription,
    /// Subscriptions that have not told all yet.
    unsynced: u8,
}

impl Feed {
    fn new(cluster: Cluster, zone: Arc<RwLock<Zone>>) -> Self {
        Self {
            namespaces: cluster.subscribe::<Namespace>(),
            services: cluster.subscribe::<Service>(),
            slices: cluster.subscribe::<EndpointSlice>(),
            cluster,
            zone,
            unsynced: 3,
        }
    }

    async fn sync(&mut self) -> Result<(), Error> {
        while self.unsynced > 0 {
            self.step().await?;
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), Error> {
        loop {
            self.step().await?;
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        let (change, take): (Change, fn(&mut Zone, &Object, bool)) = tokio::select! {
            change = self.namespaces.next() => (change.ok_or(Error::SourceEnded("namespaces"))?, take_namespace),
            change = self.services.next() => (change.ok_or(Error::SourceEnded("services"))?, take_service),
            change = self.slices.next() => (change.ok_or(Error::SourceEnded("endpointslices"))?, take_slice),
        };
        match change {
            Change::Applied { object, .. } => self.update(|zone| take(zone, &object, true)),
            Change::Deleted { object } => self.update(|zone| take(zone, &object, false)),
            Change::Synced => self.unsynced = self.unsynced.saturating_sub(1),
            Change::Resync => self.start_over(),
        }
        Ok(())
    }

    fn update(&self, change: impl FnOnce(&mut Zone)) {
        let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let mut zone = self.zone.write();
        change(&mut zone);
        zone.serial = now;
    }

    /// Changes were lost: derive everything from what the source holds.
    fn start_over(&self) {
        let mut fresh = Zone::new(self.zone.read().origin.clone());
        self.cluster.objects::<Namespace>(&Query::ALL).iter().for_each(|o| take_namespace(&mut fresh, o, true));
        self.cluster.objects::<Service>(&Query::ALL).iter().for_each(|o| take_service(&mut fresh, o, true));
        self.cluster.objects::<EndpointSlice>(&Query::ALL).iter().for_each(|o| take_slice(&mut fresh, o, true));
        self.update(|zone| *zone = fresh);
    }
}

fn take_namespace(zone: &mut Zone, object: &Object, exists: bool) {
    zone.set_namespace(&object.index.key.name, exists);
}

fn take_service(zone: &mut Zone, object: &Object, exists: bool) {
    let service = exists.then(|| decode::<Service>(object)).flatten();
    zone.set_service(&object.index.key, service.and_then(ServiceRecord::of));
}

fn take_slice(zone: &mut Zone, object: &Object, exists: bool) {
    let slice = exists.then(|| decode::<EndpointSlice>(object)).flatten();
    zone.set_slice(&object.index.key, slice.and_then(|slice| Slice::of(&object.index, slice)));
}

/// What does not decode is left out: one object must not take the names of all others away.
fn decode<K: Kind>(object: &Object) -> Option<K> {
    object.decode().inspect_err(|e| error!(kind = K::KIND, key = %object.index.key, "cannot decode: {e}")).ok()
}

#[cfg(test)]
mod tests;
