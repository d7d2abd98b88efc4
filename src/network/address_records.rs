//! Which pod has which address: allocation in turn, recorded in one small file for each address.
//!
//! An address that is recorded is never given to another pod, and a released one is used again
//! only after all others had their turn: connections and caches that still name it have time to end.
//!
//! Files are written aside and renamed, so that a reader sees all or nothing, and not synced: a
//! record matters as long as its pod runs, and a power cut that loses the record ends the pod too.
//! One that is damaged, or gone while the pod's link is there, leaves no free address: nobody gets it until the
//! pod that has it is attached again and the record is written anew, or the link is gone.
//!
//! Records have versions and seals as those of containers have (ADR 6). The first were written without either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use statefile::{Durability, Unreadable};
use tracing::warn;

use crate::pods::HostPort;

/// The address given out last.
const LAST: &str = "last";
/// As a write that was cut short leaves it.
const UNFINISHED: &str = ".tmp";

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("no address is free in {0}")]
    Exhausted(Ipv4Net),
    #[error("address record {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "address record {} is of version {found}, written by a newer coracle; this one knows versions up to {known} \
         and leaves everything as it is",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
}

/// Of the form that is written, below the seal.
const VERSION: u32 = 1;

/// What is known of an address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
    /// Addresses that somebody may have: their records cannot be read, or are gone though there is a link.
    unrecorded: BTreeSet<Ipv4Addr>,
}

impl AddressRecords {
    /// Reads the records in `directory`, which is made if it is not there.
    pub(crate) fn open(directory: &Path, net: Ipv4Net) -> Result<Self, RecordError> {
        statefile::make_dir(directory).map_err(at(directory))?;
        let (mut records, mut unrecorded) = (BTreeMap::new(), BTreeSet::new());
        let (mut unfinished, mut unsealed) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(UNFINISHED) {
                unfinished.push(path);
            } else if let Ok(address) = name.parse::<Ipv4Addr>() {
                let content = statefile::read(&path).map_err(at(&path))?;
                match read_record(&path, &content)? {
                    Some(record) => {
                        if encode(&record) != content {
                            unsealed.push(address);
                        }
                        records.insert(address, record);
                    }
                    None => drop(unrecorded.insert(address)),
                }
            }
        }
        // Only now: a newer record leaves everything as it is.
        unfinished.iter().try_for_each(|path| remove(path))?;
        let last = statefile::read_text(&directory.join(LAST)).ok().and_then(|text| text.trim().parse().ok());
        let records = Self { directory: directory.to_owned(), net, last, records, unrecorded };
        records.seal(&unsealed);
        Ok(records)
    }

    /// Writes anew what an earlier release wrote.
    fn seal(&self, unsealed: &[Ipv4Addr]) {
        for (address, record) in unsealed.iter().filter_map(|address| Some((address, self.at(*address)?))) {
            if let Err(e) = self.write(&address.to_string(), &encode(record)) {
                // It says as much without a checksum, and the next start tries again.
                warn!("{e}");
            }
        }
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

    pub(crate) fn at(&self, address: Ipv4Addr) -> Option<&Record> {
        self.records.get(&address)
    }

    /// Whether somebody has it, known or not.
    fn contains(&self, address: Ipv4Addr) -> bool {
        self.records.contains_key(&address) || self.unrecorded.contains(&address)
    }

    /// Keeps the addresses of these links from everybody, and frees those without a record that have none.
    pub(crate) fn settle_unrecorded(&mut self, linked: &BTreeSet<Ipv4Addr>) -> Result<(), RecordError> {
        for address in self.unrecorded.difference(linked) {
            remove(&self.directory.join(address.to_string()))?;
        }
        self.unrecorded.retain(|address| linked.contains(address));
        for address in linked {
            if !self.contains(*address) {
                warn!(%address, "a pod has a link and no address record: nobody else gets the address");
                self.unrecorded.insert(*address);
            }
        }
        Ok(())
    }

    /// Gives the next free address to a pod and records it.
    pub(crate) fn allocate(&mut self, record: Record) -> Result<Ipv4Addr, RecordError> {
        let address = next_free(self.net, self.last, |a| self.contains(a)).ok_or(RecordError::Exhausted(self.net))?;
        self.write(&address.to_string(), &encode(&record))?;
        self.write(LAST, address.to_string().as_bytes())?;
        self.last = Some(address);
        self.records.insert(address, record);
        Ok(address)
    }

    /// Records other host ports for a pod that keeps its address, or an owner that was lost.
    pub(crate) fn replace(&mut self, address: Ipv4Addr, record: Record) -> Result<(), RecordError> {
        self.write(&address.to_string(), &encode(&record))?;
        self.unrecorded.remove(&address);
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
        statefile::replace(&path, content, Durability::Atomic).map_err(at(&path))
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
    statefile::seal(&statefile::encode(VERSION, record))
}

/// `None` for a damaged one.
fn read_record(path: &Path, content: &[u8]) -> Result<Option<Record>, RecordError> {
    match statefile::open(content).and_then(|record| statefile::decode(VERSION, record)) {
        Ok(record) => Ok(Some(record)),
        Err(Unreadable::Newer { found, known }) => Err(RecordError::Newer { path: path.to_owned(), found, known }),
        Err(Unreadable::Damaged(e)) => {
            warn!(path = %path.display(), "an address record is damaged: {e}");
            Ok(None)
        }
    }
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
    fn an_address_without_a_readable_record_is_nobody_elses_as_long_as_there_is_a_link() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("10.244.3.2"), "").unwrap();
        fs::write(directory.path().join("10.244.3.3"), r#"{"uid":"#).unwrap();
        fs::write(directory.path().join("10.244.3.4.tmp"), r#"{"uid":"x"}"#).unwrap();
        let mut records = AddressRecords::open(directory.path(), net()).unwrap();
        assert_eq!(records.iter().count(), 0);
        // The record of the second one is gone.
        records.settle_unrecorded(&BTreeSet::from([address(3), address(5)])).unwrap();
        let left = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(left, ["10.244.3.3"]);
        assert_eq!(["a", "b", "c"].map(|uid| records.allocate(record(uid)).unwrap()), [2, 4, 6].map(address));
        records.replace(address(3), record("d")).unwrap();
        records.settle_unrecorded(&BTreeSet::from([address(3)])).unwrap();
        assert_eq!(records.allocate(record("e")).unwrap(), address(5), "its link is gone");
        let records = AddressRecords::open(directory.path(), net()).unwrap();
        assert_eq!(records.of_pod("d"), Some((address(3), &record("d"))));
    }

    #[test]
    fn a_flipped_bit_makes_a_record_nobodys_and_not_another_pods() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10.244.3.2");
        let mut records = AddressRecords::open(directory.path(), net()).unwrap();
        records.allocate(record("pod-a")).unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let records = AddressRecords::open(directory.path(), net()).unwrap();
            assert_eq!((records.iter().count(), records.contains(address(2))), (0, true), "bit {bit}");
        }
    }

    #[test]
    fn forms_of_all_releases_are_read_and_newer_ones_refused() {
        let directory = tempfile::tempdir().unwrap();
        let read = |forms: &str| {
            for (n, form) in (2..).zip(forms.lines()) {
                fs::write(directory.path().join(address(n).to_string()), form).unwrap();
            }
            AddressRecords::open(directory.path(), net()).unwrap()
        };
        let newest = include_str!("golden/addresses-3.jsonl");
        for forms in [include_str!("golden/addresses-1.jsonl"), newest] {
            let records = read(forms);
            let written = records.iter().map(|(_, record)| String::from_utf8(encode(record)).unwrap());
            assert_eq!(
                written.collect::<Vec<_>>(),
                newest.lines().collect::<Vec<_>>(),
                "a changed form takes a new version and a golden file"
            );
            let kept = fs::read_to_string(directory.path().join("10.244.3.2")).unwrap();
            assert_eq!(kept, newest.lines().next().unwrap(), "from now on it has a checksum");
            assert_eq!(records.of_pod("5d1c1f6e-0f3e-4a39-8a53-7d1e0c6c7b02").unwrap().1.host_ports.len(), 2);
        }

        fs::write(directory.path().join("10.244.3.6.tmp"), "").unwrap();
        let inside = statefile::seal(r#"{"version":2,"owner":"x"}"#);
        for (newer, version) in [(&br#"{"version":4,"owner":"x"}"#[..], 4), (&inside, 2)] {
            fs::write(directory.path().join("10.244.3.2"), newer).unwrap();
            let error = AddressRecords::open(directory.path(), net()).unwrap_err();
            let said = format!("10.244.3.2 is of version {version}, written by a newer coracle");
            assert!(error.to_string().contains(&said), "{error}");
            assert!(directory.path().join("10.244.3.6.tmp").exists(), "nothing is changed");
        }
    }
}
