//! Everything that a shim knows of its pod, for a daemon that finds the records on disk damaged.
//!
//! It travels in a file in memory, since records outgrow packets, and in the records' own versioned
//! forms, since daemon and shim may come from different releases.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::protocol::ContainerNow;
use super::records::{ContainerRecord, SandboxRecord};
use crate::durable;
use crate::error::{IoContext, Result};
use crate::sys::memfd;

/// A pod's containers keep a few hundred KiB of configuration at the very most.
const BYTES_MAX: u64 = 64 << 20;

/// A pod's records as its shim holds them.
#[derive(Clone, Debug)]
pub(crate) struct HeldRecords {
    pub sandbox: SandboxRecord,
    pub containers: Vec<HeldContainer>,
}

#[derive(Clone, Debug)]
pub(crate) struct HeldContainer {
    pub record: ContainerRecord,
    /// Its process's number is 0 while it is being started.
    pub now: ContainerNow,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    sandbox: Box<RawValue>,
    containers: Vec<WireContainer>,
}

#[derive(Serialize, Deserialize)]
struct WireContainer {
    record: Box<RawValue>,
    now: ContainerNow,
}

impl HeldRecords {
    pub(crate) fn send<'a>(
        sandbox: &SandboxRecord,
        containers: impl Iterator<Item = (&'a ContainerRecord, ContainerNow)>,
    ) -> io::Result<OwnedFd> {
        let containers = containers.map(|(record, now)| Ok(WireContainer { record: raw(record)?, now }));
        let wire = Wire { sandbox: raw(sandbox)?, containers: containers.collect::<io::Result<_>>()? };
        memfd::of_bytes(&serde_json::to_vec(&wire)?)
    }

    /// `origin` is what an error names: the shim's socket.
    pub(crate) fn receive(fd: OwnedFd, origin: &Path) -> Result<Self> {
        let read = || -> io::Result<Wire> { Ok(serde_json::from_slice(&memfd::read(fd, BYTES_MAX)?)?) };
        let Wire { sandbox, containers } = read().at("read what is held behind", origin)?;
        let containers = containers.into_iter().map(|WireContainer { record, now }| {
            Ok(HeldContainer { record: durable::decode(origin, record.get().as_bytes())?, now })
        });
        Ok(Self {
            containers: containers.collect::<Result<_>>()?,
            sandbox: durable::decode(origin, sandbox.get().as_bytes())?,
        })
    }
}

fn raw<T: durable::Record>(record: &T) -> io::Result<Box<RawValue>> {
    Ok(RawValue::from_string(durable::encode(record))?)
}
