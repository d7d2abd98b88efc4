//! The proxy's loop: changes in, one load of the rules for all that came together.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Kind, Query, Subscription};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::Protocol;
use network::services::{ServiceTable, ServiceTableError, Sync};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::health::HealthServers;
use crate::host::{claims_node, is_inside, leave_to_cluster, leave_to_host};
use crate::service::ServiceInfo;
use crate::slice::SliceInfo;
use crate::state::State;

/// Between two loads: a rollout changes slices by the dozen. The first change after a pause is
/// loaded at once.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// From a load that may have made UDP flows stale until they are forgotten, with those of later loads. Upstream
/// takes as long to load a change at all (`minSyncPeriod` of its configuration).
const FORGET_AFTER: Duration = Duration::from_secs(1);
/// Without any change: somebody else may have deleted the rules.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// After a load that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Where the proxy runs.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The address of load balancers, too.
    pub node_ip: Ipv4Addr,
    /// Health check ports are served on this address.
    pub health_check_address: Ipv4Addr,
    /// TCP ports that this process serves itself, also before it does.
    pub own_ports: Vec<u16>,
    /// Those of pods and of Services.
    pub cluster_networks: Vec<Ipv4Net>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the source of {0} ended")]
    SourceEnded(&'static str),
    #[error("the thread that loads rules ended: {0}")]
    Loader(#[from] tokio::task::JoinError),
}

/// Keeps the rules of this node up to date until `token` is cancelled. Nothing is loaded before
/// all Services and EndpointSlices are known: rules of an earlier process stay until then.
///
/// # Errors
/// When the cluster's source ends.
pub async fn run(cluster: Cluster, rules: ServiceTable, config: Config, token: CancellationToken) -> Result<(), Error> {
    let mut proxy = Proxy {
        services: cluster.subscribe::<Service>(),
        slices: cluster.subscribe::<EndpointSlice>(),
        cluster,
        state: State::default(),
        rules: Some(rules),
        unsynced: 2,
        health: HealthServers::new(config.health_check_address),
        node: config.node_name,
        node_ip: config.node_ip,
        networks: config.cluster_networks,
        claims: BTreeSet::new(),
        own_ports: config.own_ports.into_iter().map(|port| (Protocol::Tcp, port)).collect(),
    };
    tokio::select! {
        () = token.cancelled() => Ok(()),
        result = proxy.run() => result,
    }
}

struct Proxy {
    cluster: Cluster,
    services: Subscription,
    slices: Subscription,
    state: State,
    /// Away while a load is under way.
    rules: Option<ServiceTable>,
    /// Subscriptions that have not told all yet.
    unsynced: u8,
    health: HealthServers,
    node: String,
    node_ip: Ipv4Addr,
    own_ports: BTreeSet<(Protocol, u16)>,
    networks: Vec<Ipv4Net>,
    /// Services that claim an address of these networks, of which that was said.
    claims: BTreeSet<ObjectKey>,
}

impl Proxy {
    async fn run(&mut self) -> Result<(), Error> {
        let mut due: Option<Instant> = None;
        let mut forget: Option<Instant> = None;
        let mut earliest = Instant::now();
        loop {
            let changed = tokio::select! {
                // Changes that are there already belong to the same load.
                biased;
                change = self.services.next() => {
                    self.take_service(change.ok_or(Error::SourceEnded("services"))?)
                }
                change = self.slices.next() => {
                    self.take_slice(change.ok_or(Error::SourceEnded("endpointslices"))?)
                }
                () = until(due) => {
                    let next = if self.load().await? { MAX_INTERVAL } else { RETRY_INTERVAL };
                    let now = Instant::now();
                    due = Some(now + next);
                    earliest = now + MIN_INTERVAL;
                    if self.rules.as_ref().is_some_and(ServiceTable::has_stale_flows) {
                        forget.get_or_insert(now + FORGET_AFTER);
                    }
                    false
                }
                () = until(forget) => {
                    self.on_thread(ServiceTable::forget_stale_flows).await?;
                    forget = None;
                    false
                }
            };
            if changed && self.unsynced == 0 {
                due = Some(due.map_or(earliest, |due| due.min(earliest)));
            }
        }
    }

    /// Tells whether the rules may differ now.
    fn take_service(&mut self, change: Change) -> bool {
        match change {
            Change::Applied { object, .. } => {
                let info = decode::<Service>(&object).and_then(|s| ServiceInfo::of(&object.index, s));
                self.set_service(&object.index.key, info)
            }
            Change::Deleted { object } => self.set_service(&object.index.key, None),
            Change::Synced => self.synced(),
            Change::Resync => self.start_over(),
        }
    }

    fn set_service(&mut self, key: &ObjectKey, service: Option<ServiceInfo>) -> bool {
        let claim = service.as_ref().and_then(|service| {
            let mut claimed = service.external_ips.iter().chain(&service.load_balancer_ips);
            claimed.find(|ip| is_inside(**ip, &self.networks)).copied()
        });
        match claim {
            // Once a Service, for whoever may change it could fill the log.
            Some(ip) if self.claims.insert(key.clone()) => {
                warn!(service = %key, %ip, "not served at an address of the networks of pods and Services");
            }
            None if service.is_none() => {
                self.claims.remove(key);
            }
            Some(_) | None => {}
        }
        self.state.set_service(key, service)
    }

    fn take_slice(&mut self, change: Change) -> bool {
        match change {
            Change::Applied { object, .. } => self.set_slice(&object),
            Change::Deleted { object } => self.state.set_slice(&object.index.key, None),
            Change::Synced => self.synced(),
            Change::Resync => self.start_over(),
        }
    }

    fn set_slice(&mut self, object: &Object) -> bool {
        let info = decode::<EndpointSlice>(object).and_then(|s| SliceInfo::of(&object.index, s, &self.node));
        self.state.set_slice(&object.index.key, info)
    }

    fn synced(&mut self) -> bool {
        self.unsynced = self.unsynced.saturating_sub(1);
        true
    }

    /// Changes were lost: derive everything from what the source holds.
    fn start_over(&mut self) -> bool {
        self.state = State::default();
        for object in self.cluster.objects::<Service>(&Query::ALL) {
            let info = decode::<Service>(&object).and_then(|s| ServiceInfo::of(&object.index, s));
            self.set_service(&object.index.key, info);
        }
        for object in self.cluster.objects::<EndpointSlice>(&Query::ALL) {
            self.set_slice(&object);
        }
        true
    }

    /// Loads the rules on a blocking thread; false when that must be tried again.
    async fn load(&mut self) -> Result<bool, Error> {
        self.health.serve(self.state.health_checks());
        let mut ports = self.state.service_ports();
        leave_to_cluster(&mut ports, &self.networks);
        let node_ip = self.node_ip;
        let mut hosts = self.own_ports.clone();
        let started = Instant::now();
        let count = ports.len();
        let outcome = self.on_thread(move |rules| {
            // The kernel walks all of its UDP sockets for it.
            if ports.iter().any(|port| claims_node(port, node_ip)) {
                match network::listeners(&[node_ip.into()]) {
                    Ok(listening) => hosts.extend(listening),
                    // The most important ones are known.
                    Err(e) => error!("cannot read which ports this host listens on: {e}"),
                }
            }
            leave_to_host(&mut ports, node_ip, &hosts);
            rules.sync(&ports)
        });
        let outcome = outcome.await?;
        Ok(outcome.is_some_and(|outcome| report(&outcome, count, started.elapsed())))
    }

    /// What the kernel takes its time for; nothing where the rules are away.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut ServiceTable) -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let Some(mut rules) = self.rules.take() else { return Ok(None) };
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut rules);
            (rules, outcome)
        });
        let (rules, outcome) = done.await?;
        self.rules = Some(rules);
        Ok(Some(outcome))
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn report(outcome: &Result<Sync, ServiceTableError>, ports: usize, took: Duration) -> bool {
    match outcome {
        Ok(Sync::Replaced) => info!(ports, ?took, "loaded the rules of all services"),
        Ok(Sync::Changed) => debug!(ports, ?took, "changed the rules of services"),
        Ok(Sync::Unchanged) => (),
        Err(e) => error!("{e}"),
    }
    outcome.is_ok()
}

/// What does not decode is left out: one object must not stop the rules of all others.
fn decode<K: Kind>(object: &Object) -> Option<K> {
    let key: &ObjectKey = &object.index.key;
    object.decode().inspect_err(|e| error!(kind = K::KIND, %key, "cannot decode: {e}")).ok()
}
