//! Which pod has which address: allocation in turn, recorded in one small file for each address.
//!
//! An address that is recorded is never given to another pod, and a released one is used again
//! only after all others had their turn: connections and caches that still name it have time to end.
//!
//! Files are written aside and renamed, so that a reader sees all or nothing, and not synced: a
//! record matters as long as its pod runs, and a power cut that loses the record ends the pod too.
//! What a power cut left half-written does not parse and is removed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::pods::HostPort;

/// The address given out last.
const LAST: &str = "last";
const UNFINISHED: &str = ".tmp";

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("no address is free in {0}")]
    Exhausted(Ipv4Net),
    #[error("address record {path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// What is known of an address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_ports: Vec<HostPort>,
}

/// The records of one node, in memory and on disk.
#[derive(Debug)]
pub(crate) struct AddressRecords {
    directory: PathBuf,
    net: Ipv4Net,
    last: Option<Ipv4Addr>,
    records: BTreeMap<Ipv4Addr, Record>,
}

impl AddressRecords {
    /// Reads the records in `directory`, which is made if it is not there.
    pub(crate) fn open(directory: &Path, net: Ipv4Net) -> Result<Self, RecordError> {
        fs::create_dir_all(directory).map_err(at(directory))?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(UNFINISHED) {
                remove(&path)?;
            } else if let Ok(address) = name.parse::<Ipv4Addr>() {
                match read_record(&path)? {
                    Some(record) => drop(records.insert(address, record)),
                    None => remove(&path)?,
                }
            }
        }
        let last = fs::read_to_string(directory.join(LAST)).ok().and_then(|text| text.trim().parse().ok());
        Ok(Self { directory: directory.to_owned(), net, last, records })
    }

    /// The first host address of the node's range, which every pod's default route points to.
    pub(crate) fn gateway(net: Ipv4Net) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(net.network()).saturating_add(1))
    }

    pub(crate) fn of_pod(&self, uid: &str) -> Option<(Ipv4Addr, &Record)> {
        self.records.iter().find(|(_, record)| record.uid == uid).map(|(address, record)| (*address, record))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Record)> {
        self.records.iter().map(|(address, record)| (*address, record))
    }

    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.records.contains_key(&address)
    }

    /// Gives the next free address to a pod and records it.
    pub(crate) fn allocate(&mut self, record: Record) -> Result<Ipv4Addr, RecordError> {
        let address = next_free(self.net, self.last, |a| self.records.contains_key(&a))
            .ok_or(RecordError::Exhausted(self.net))?;
        self.write(&address.to_string(), &encode(&record))?;
        self.write(LAST, address.to_string().as_bytes())?;
        self.last = Some(address);
        self.records.insert(address, record);
        Ok(address)
    }

    /// Records other host ports for a pod that keeps its address.
    pub(crate) fn replace(&mut self, address: Ipv4Addr, record: Record) -> Result<(), RecordError> {
        self.write(&address.to_string(), &encode(&record))?;
        self.records.insert(address, record);
        Ok(())
    }

    /// Frees an address.
    pub(crate) fn release(&mut self, address: Ipv4Addr) -> Result<(), RecordError> {
        remove(&self.directory.join(address.to_string()))?;
        self.records.remove(&address);
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), RecordError> {
        let path = self.directory.join(name);
        let unfinished = self.directory.join(format!("{name}{UNFINISHED}"));
        fs::write(&unfinished, content).map_err(at(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(at(&path))
    }
}

/// The free host address that follows `last`, round the range; network, gateway and broadcast
/// addresses are never given out.
fn next_free(net: Ipv4Net, last: Option<Ipv4Addr>, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let first = u32::from(net.network()).checked_add(2)?;
    let end = u32::from(net.broadcast());
    let start = last.map(u32::from).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    (start..end).chain(first..start.min(end)).map(Ipv4Addr::from).find(|address| !taken(*address))
}

fn encode(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("invariant: strings and numbers always encode")
}

fn read_record(path: &Path) -> Result<Option<Record>, RecordError> {
    let content = fs::read(path).map_err(at(path))?;
    Ok(serde_json::from_slice(&content)
        .inspect_err(|e| warn!(path = %path.display(), "removing an address record that does not parse: {e}"))
        .ok())
}

fn remove(path: &Path) -> Result<(), RecordError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RecordError + '_ {
    move |source| RecordError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> Ipv4Net {
        "10.244.3.0/29".parse().unwrap()
    }

    fn record(uid: &str) -> Record {
        Record { uid: uid.to_owned(), host_ports: Vec::new() }
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 3, last)
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_taken() {
        #[track_caller]
        fn check(last: Option<u8>, taken: &[u8], expected: Option<u8>) {
            let found = next_free(net(), last.map(address), |a| taken.contains(&a.octets()[3]));
            assert_eq!(found, expected.map(address));
        }
        check(None, &[], Some(2));
        check(None, &[2, 3], Some(4));
        check(Some(2), &[], Some(3));
        check(Some(6), &[], Some(2));
        check(Some(5), &[6, 2], Some(3));
        check(Some(4), &[2, 3, 4, 5, 6], None);
        // Left from another range.
        check(Some(200), &[], Some(2));
    }

    #[test]
    fn a_released_address_waits_for_its_turn_across_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = AddressRecords::open(directory.path(), net()).unwrap();
        assert_eq!(records.allocate(record("a")).unwrap(), address(2));
        assert_eq!(records.allocate(record("b")).unwrap(), address(3));
        records.release(address(3)).unwrap();

        let mut records = AddressRecords::open(directory.path(), net()).unwrap();
        assert_eq!(records.of_pod("a"), Some((address(2), &record("a"))));
        let given: Vec<_> = ["c", "d", "e", "f"].map(|uid| records.allocate(record(uid)).unwrap()).into();
        assert_eq!(given, [4, 5, 6, 3].map(address));
        assert!(matches!(records.allocate(record("g")), Err(RecordError::Exhausted(n)) if n == net()));
    }

    #[test]
    fn half_written_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("10.244.3.2"), "").unwrap();
        fs::write(directory.path().join("10.244.3.3"), r#"{"uid":"#).unwrap();
        fs::write(directory.path().join("10.244.3.4.tmp"), r#"{"uid":"x"}"#).unwrap();
        let records = AddressRecords::open(directory.path(), net()).unwrap();
        assert_eq!(records.iter().count(), 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
