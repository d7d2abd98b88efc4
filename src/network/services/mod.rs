//! Rules for Services: the table `ip coracle`.
//!
//! [`ServiceTable`] is given the whole list of service ports each time, works out how that differs
//! from what is loaded and sends the difference as one atomic batch: a packet sees the old rules or
//! the new ones. The first sync, and the first after a failure, replaces the table, which is atomic
//! too and leaves established connections alone (conntrack has them).
//!
//! `plan` turns the list into a [`Ruleset`] of maps and chains, `ruleset` compares two of those,
//! `skeleton` holds the rules that never change. Everything a packet does is a look-up in a map, so
//! that its cost does not grow with the number of Services.

mod chain;
mod desired;
mod plan;
mod ruleset;
mod skeleton;
mod udp;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tracing::{debug, warn};

pub use desired::{ServicePort, TrafficPolicy};

use crate::netlink::{Kernel, Socket};
use crate::nft::{self, Batch};
use crate::{conntrack, route};
use chain::Frontend;
use ruleset::Ruleset;
use udp::UdpServices;

const TABLE: &str = "coracle";

/// The ranges that the rules distinguish.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTableConfig {
    /// The range of all nodes' pods: what comes from outside of it is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// What is left for this range after translation is rejected.
    pub service_cidr: Ipv4Net,
    /// Answered on this host itself: never translated, never rejected.
    pub cluster_dns: Option<Ipv4Addr>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServiceTableError {
    #[error("cannot open a netlink socket: {0}")]
    Open(Kernel),
    #[error("cannot load the rules of services: {0}")]
    Load(Kernel),
}

/// How a [`ServiceTable::sync`] was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Nothing differed.
    Unchanged,
    /// The difference was loaded.
    Changed,
    /// The table was replaced as a whole.
    Replaced,
}

/// The rules of all services, as they are loaded. Its methods block for as long as the kernel
/// takes: microseconds for a change, tens of milliseconds for a thousand services.
pub struct ServiceTable {
    config: ServiceTableConfig,
    rules: Socket,
    connections: Socket,
    route: Socket,
    /// Absent until the first sync, and after one that failed.
    loaded: Option<Ruleset>,
    udp: UdpServices,
    suspects: Suspects,
}

/// Whose flows may have gone stale since they were last looked through.
#[derive(Default)]
struct Suspects {
    frontends: BTreeSet<Frontend>,
    /// Flows may have begun before the table was there, or under the rules of an earlier process.
    all: bool,
}

impl ServiceTable {
    /// Opens the sockets; rules that an earlier process loaded stay until the first sync.
    ///
    /// # Errors
    /// When the kernel lacks netfilter or the caller lacks the right to it.
    pub fn open(config: ServiceTableConfig) -> Result<Self, ServiceTableError> {
        Ok(Self {
            config,
            rules: nft::open().map_err(ServiceTableError::Open)?,
            connections: nft::open().map_err(ServiceTableError::Open)?,
            route: route::open().map_err(ServiceTableError::Open)?,
            loaded: None,
            udp: UdpServices::default(),
            suspects: Suspects::default(),
        })
    }

    /// Makes the kernel's rules those of `ports`, also when somebody deleted the table in between.
    /// Where two ports claim the same address and port, the first has it. Flows that the change made
    /// stale go on until [`Self::forget_stale_flows`].
    ///
    /// # Errors
    /// When the kernel refuses even a new table; the rules loaded before stay in place.
    pub fn sync(&mut self, ports: &[ServicePort]) -> Result<Sync, ServiceTableError> {
        let desired = plan::plan(ports, self.config.cluster_dns);
        let intact = nft::table_exists(&self.rules, TABLE).map_err(ServiceTableError::Load)?;
        let outcome = match self.loaded.take().filter(|_| intact) {
            Some(loaded) if loaded == desired => Sync::Unchanged,
            Some(loaded) => self.change(&loaded, &desired)?,
            None => self.replace(&desired)?,
        };
        self.loaded = Some(desired);
        if outcome != Sync::Unchanged {
            let udp = UdpServices::of(ports, self.config.cluster_dns);
            self.suspects.frontends.append(&mut udp.suspects_after(&self.udp));
            self.suspects.all |= outcome == Sync::Replaced;
            self.udp = udp;
        }
        Ok(outcome)
    }

    fn change(&self, loaded: &Ruleset, desired: &Ruleset) -> Result<Sync, ServiceTableError> {
        let mut batch = Batch::new(TABLE);
        loaded.change_to(desired, &self.config, &mut batch);
        match batch.commit(&self.rules) {
            Ok(()) => Ok(Sync::Changed),
            Err(e) => {
                warn!("replacing the table of services, since a change to it failed: {e}");
                self.replace(desired)
            }
        }
    }

    fn replace(&self, desired: &Ruleset) -> Result<Sync, ServiceTableError> {
        let mut batch = Batch::new(TABLE);
        skeleton::declare(&mut batch, &self.config);
        Ruleset::default().change_to(desired, &self.config, &mut batch);
        batch.commit(&self.rules).map_err(ServiceTableError::Load)?;
        Ok(Sync::Replaced)
    }

    /// Whether a change since the last time may have made flows stale.
    #[must_use]
    pub fn has_stale_flows(&self) -> bool {
        self.suspects.all || !self.suspects.frontends.is_empty()
    }

    /// Forgets the flows that changes made stale. UDP flows have no end: one with a fixed source port would
    /// go to a removed endpoint for as long as it sends. The kernel walks through all that it tracks, which
    /// takes some ten milliseconds, so one walk serves for the changes of a while. The rules are right whether
    /// or not this works, so failures are only told.
    pub fn forget_stale_flows(&mut self) {
        let Suspects { frontends, all } = std::mem::take(&mut self.suspects);
        let suspects = self.udp.with(&frontends, all);
        let range = self.config.service_cidr;
        let forget = || -> Result<usize, Kernel> {
            let local: Vec<_> = route::local_addresses(&self.route)?.into_iter().map(|(_, address)| address).collect();
            conntrack::forget_udp(&self.connections, |flow| {
                suspects.is_stale(flow, &local) || all && suspects.is_of_no_service(flow, range)
            })
        };
        match forget() {
            Ok(forgotten) => debug!(forgotten, "forgot UDP flows to endpoints that are gone"),
            Err(e) => warn!("cannot forget UDP flows to endpoints that are gone: {e}"),
        }
    }
}

#[cfg(test)]
mod tests;
