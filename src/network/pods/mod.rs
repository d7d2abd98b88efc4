//! The network of pods: an address, a link and host ports for each.
//!
//! [`PodNetwork`] is the thin shell: it serializes changes, keeps [`AddressRecords`] and calls
//! `interface` for links and `rules` for translation. The kernel answers netlink requests at once, so
//! the work runs on blocking threads and takes one to two milliseconds for a pod.

mod flows;
mod host_port;
mod interface;
mod rules;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use tokio::task;
use tracing::{info, warn};

pub use host_port::HostPort;

use crate::address_records::{AddressRecords, Record, RecordError};
use crate::host::{self, HostError};
use crate::listeners;
use crate::netlink::{Kernel, Socket};
use crate::setting::SettingError;
use crate::{Protocol, ipv6, namespace, nft, route};
use interface::{Interface, LinkError};
use rules::PodRules;

/// The name of the link inside every pod.
pub(crate) const POD_LINK: &str = "eth0";

/// What the pod network of a node is made from.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// This node's range.
    pub pod_cidr: Ipv4Net,
    /// The range of all nodes' pods; what leaves it is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// Put on lo for the DNS server to bind, if there is one.
    pub cluster_dns: Option<Ipv4Addr>,
    /// Where address records are kept.
    pub state_dir: PathBuf,
    /// Absent: that of the default route's link.
    pub mtu: Option<u32>,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The link's name inside the pod.
    pub interface: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error("cannot enter the network namespace of pod {uid}: {source}")]
    Enter { uid: String, source: Kernel },
    #[error("cannot set up the link of pod {uid}: {source}")]
    Link { uid: String, source: LinkError },
    #[error("cannot turn IPv6 off on the links of pods: {0}")]
    Ipv6(SettingError),
    #[error("cannot load the rules of the pod network: {0}")]
    Rules(Kernel),
    #[error("cannot read the host's links: {0}")]
    Links(Kernel),
    #[error("host port {port} is in use by pod {uid}")]
    HostPortInUse { port: HostPort, uid: String },
    #[error("host port {port} is in use by a program of this host")]
    HostPortListened { port: HostPort },
    #[error("cannot read which ports this host listens on: {0}")]
    Listeners(std::io::Error),
    #[error("the pod network's worker ended: {0}")]
    Worker(#[from] task::JoinError),
}

/// The pods of this node.
pub struct PodNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    gateway: Ipv4Addr,
    mtu: u32,
    state: Mutex<State>,
    /// Deleting a link waits for all processors: it has a socket of its own, so that attaching
    /// other pods does not wait for it.
    teardown: Mutex<Socket>,
}

/// What changes one at a time.
struct State {
    records: AddressRecords,
    route: Socket,
    rules: PodRules,
    connections: Socket,
}

impl PodNetwork {
    /// Sets the host up, reads the records and loads the rules for the pods in them.
    ///
    /// # Errors
    /// When the host refuses a setting, or the records cannot be read.
    pub async fn open(config: NetworkConfig) -> Result<Arc<Self>, PodNetworkError> {
        let inner = task::spawn_blocking(move || Inner::open(&config)).await??;
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Gives the pod an address and a link in its open network namespace, and maps its host ports. A
    /// pod that is attached already keeps what it has.
    ///
    /// # Errors
    /// When no address is free, a host port is taken, or the kernel refuses.
    pub async fn attach(
        &self,
        uid: &str,
        namespace: File,
        host_ports: &[HostPort],
    ) -> Result<Attachment, PodNetworkError> {
        let record = Record { uid: uid.to_owned(), host_ports: host_ports.to_vec() };
        self.on_blocking_thread(move |inner| inner.attach(&record, &namespace)).await
    }

    /// Takes the pod's link, host ports and address away; a pod that is not attached is fine.
    /// Fast when the pod's namespace is closed already: the link went with it.
    ///
    /// # Errors
    /// When the kernel refuses, or the record cannot be removed; it can be tried again.
    pub async fn detach(&self, uid: &str) -> Result<(), PodNetworkError> {
        let uid = uid.to_owned();
        self.on_blocking_thread(move |inner| inner.detach(&uid)).await
    }

    /// Detaches every pod but these. The link of a pod whose record was lost stays: something lives behind it, and
    /// it goes with that.
    ///
    /// # Errors
    /// The first failure; the other pods are detached nevertheless.
    pub async fn retain(&self, live_uids: &[String]) -> Result<(), PodNetworkError> {
        let live = live_uids.to_vec();
        self.on_blocking_thread(move |inner| inner.retain(&live)).await
    }

    /// Loads the rules again if somebody deleted them, which attaching and detaching pods does too, turns
    /// IPv6 off where somebody turned it on, and frees the addresses of pods that were lost and have ended. To
    /// be called now and then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn repair(&self) -> Result<(), PodNetworkError> {
        self.on_blocking_thread(|inner| {
            let mut state = lock(&inner.state);
            state.repair()?;
            state.settle_unrecorded()?;
            turn_ipv6_off(&state.route)
        })
        .await
    }

    /// The MTU that pods get.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.inner.mtu
    }

    async fn on_blocking_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, PodNetworkError> + Send + 'static,
    ) -> Result<T, PodNetworkError> {
        let inner = Arc::clone(&self.inner);
        task::spawn_blocking(move || work(&inner)).await?
    }
}

impl Inner {
    fn open(config: &NetworkConfig) -> Result<Self, PodNetworkError> {
        let route = route::open().map_err(PodNetworkError::Links)?;
        host::allow_forwarding()?;
        host::prepare_loopback(&route, config.cluster_dns)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => host::default_mtu(&route)?,
        };
        let mut records = AddressRecords::open(&config.state_dir, config.pod_cidr)?;
        records.settle_unrecorded(&linked(&route)?)?;
        let rules = PodRules::new(nft::open().map_err(PodNetworkError::Rules)?, config);
        rules.load(records.iter()).map_err(PodNetworkError::Rules)?;
        host::route_loopback_addresses()?;
        turn_ipv6_off(&route)?;
        let gateway = AddressRecords::gateway(config.pod_cidr);
        info!(pod_cidr = %config.pod_cidr, mtu, pods = records.iter().count(), "pod network is ready");
        let connections = nft::open().map_err(PodNetworkError::Rules)?;
        let teardown = Mutex::new(route::open().map_err(PodNetworkError::Links)?);
        Ok(Self { gateway, mtu, state: Mutex::new(State { records, route, rules, connections }), teardown })
    }

    fn attach(&self, record: &Record, namespace: &File) -> Result<Attachment, PodNetworkError> {
        let uid = record.uid.clone();
        let pod = namespace::open_route_socket(namespace)
            .map_err(|source| PodNetworkError::Enter { uid: uid.clone(), source })?;
        let listening = match record.host_ports.as_slice() {
            [] => Vec::new(),
            _ => listeners::sockets().map_err(PodNetworkError::Listeners)?,
        };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.repair()?;
        let held = state.held_address(&uid, &pod, namespace)?;
        state.check_host_ports(record, held)?;
        state.check_listeners(record, &listening)?;
        let address = match held {
            Some(address) => {
                state.keep(address, record)?;
                address
            }
            None => state.records.allocate(record.clone())?,
        };
        let interface = Interface { address, gateway: self.gateway, mtu: self.mtu };
        interface.connect(&state.route, &pod, namespace).map_err(|source| PodNetworkError::Link { uid, source })?;
        state.rules.add(address, &record.host_ports).map_err(PodNetworkError::Rules)?;
        flows::lead_to(&state.connections, &state.route, address, &record.host_ports);
        Ok(Attachment { ip: address, gateway: self.gateway, interface: POD_LINK })
    }

    /// The address is released last: nobody gets it while its link is still there.
    fn detach(&self, uid: &str) -> Result<(), PodNetworkError> {
        let Some(address) = lock(&self.state).remove_rules(uid)? else { return Ok(()) };
        interface::remove(&lock(&self.teardown), address)
            .map_err(|e| PodNetworkError::Link { uid: uid.to_owned(), source: e.into() })?;
        Ok(lock(&self.state).records.release(address)?)
    }

    fn retain(&self, live: &[String]) -> Result<(), PodNetworkError> {
        let dead: Vec<String> = lock(&self.state)
            .records
            .iter()
            .map(|(_, record)| record.uid.clone())
            .filter(|uid| !live.contains(uid))
            .collect();
        let mut first_failure = None;
        for uid in dead {
            info!(uid, "releasing the address of a pod that is gone");
            first_failure = first_failure.or(self.detach(&uid).err());
        }
        lock(&self.state).settle_unrecorded()?;
        first_failure.map_or(Ok(()), Err)
    }
}

/// On the host's ends of all pods' links: those that an earlier process made are among them.
fn turn_ipv6_off(route: &Socket) -> Result<(), PodNetworkError> {
    for link in route::links(route).map_err(PodNetworkError::Links)? {
        if interface::address_of(&link.name).is_some() {
            ipv6::turn_off(&link.name).map_err(PodNetworkError::Ipv6)?;
        }
    }
    Ok(())
}

/// The addresses of all pods that have a link.
fn linked(route: &Socket) -> Result<BTreeSet<Ipv4Addr>, PodNetworkError> {
    let links = route::links(route).map_err(PodNetworkError::Links)?;
    Ok(links.iter().filter_map(|link| interface::address_of(&link.name)).collect())
}

/// A panic while a lock was held leaves records and rules as they were on disk and in the kernel,
/// each whole; attach and detach start from those.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn repair(&self) -> Result<(), PodNetworkError> {
        if !self.rules.are_loaded().map_err(PodNetworkError::Rules)? {
            warn!("loading the rules of the pod network again, since somebody deleted them");
            self.rules.load(self.records.iter()).map_err(PodNetworkError::Rules)?;
        }
        Ok(())
    }

    /// The address that a pod has by its record, else by the link that leads into it: a pod that runs keeps its
    /// address, whatever became of the record.
    fn held_address(&self, uid: &str, pod: &Socket, namespace: &File) -> Result<Option<Ipv4Addr>, PodNetworkError> {
        match self.records.of_pod(uid) {
            Some((address, _)) => Ok(Some(address)),
            None => interface::address_in(&self.route, pod, namespace).map_err(PodNetworkError::Links),
        }
    }

    /// Records a pod under the address that it has, and takes away what the record before led to it.
    fn keep(&mut self, address: Ipv4Addr, record: &Record) -> Result<(), PodNetworkError> {
        let old = self.records.at(address).cloned();
        if old.as_ref() == Some(record) {
            return Ok(());
        }
        let uid = &record.uid;
        match old.as_ref().map(|old| &old.uid) {
            None => warn!(uid, %address, "a pod keeps its address, though its address record was lost"),
            Some(other) if other != uid => {
                warn!(uid, %address, other, "a pod keeps its address, though it was recorded for another one");
            }
            Some(_) => {}
        }
        self.records.replace(address, record.clone())?;
        if let Some(old) = old {
            self.rules.remove(address, &old.host_ports).map_err(PodNetworkError::Rules)?;
            flows::leave(&self.connections, address, &old.host_ports);
        }
        Ok(())
    }

    fn settle_unrecorded(&mut self) -> Result<(), PodNetworkError> {
        Ok(self.records.settle_unrecorded(&linked(&self.route)?)?)
    }

    /// Removes what leads to the pod; its address, if it has one.
    fn remove_rules(&self, uid: &str) -> Result<Option<Ipv4Addr>, PodNetworkError> {
        let Some((address, record)) = self.records.of_pod(uid) else { return Ok(None) };
        self.repair()?;
        self.rules.remove(address, &record.host_ports).map_err(PodNetworkError::Rules)?;
        flows::leave(&self.connections, address, &record.host_ports);
        Ok(Some(address))
    }

    /// Upstream's plugin takes the clients of such a program away. A port that the pod has stays its own.
    fn check_listeners(&self, record: &Record, listening: &[(Protocol, SocketAddr)]) -> Result<(), PodNetworkError> {
        let has = self.records.of_pod(&record.uid).map_or(&[][..], |(_, had)| had.host_ports.as_slice());
        let dns = self.rules.cluster_dns();
        let taken = |port: &&HostPort| listening.iter().any(|socket| port.is_listened_on(socket, dns));
        match record.host_ports.iter().filter(|port| !has.contains(port)).find(taken) {
            Some(port) => Err(PodNetworkError::HostPortListened { port: *port }),
            None => Ok(()),
        }
    }

    /// `held`: the pod's own address, under which it may be recorded by another name.
    fn check_host_ports(&self, record: &Record, held: Option<Ipv4Addr>) -> Result<(), PodNetworkError> {
        let others = self.records.iter().filter(|(address, other)| Some(*address) != held && other.uid != record.uid);
        for (_, other) in others {
            for port in &record.host_ports {
                if other.host_ports.iter().any(|taken| taken.conflicts_with(port)) {
                    return Err(PodNetworkError::HostPortInUse { port: *port, uid: other.uid.clone() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod ipv6_tests;
#[cfg(test)]
mod tests;
