//! Power cuts, full disks and failing fsyncs, on a disk that is simulated.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use super::fixtures::{Bits, Text, delete, listing, put, write};
use crate::disk::{Opener, Source};
use crate::{Backend, Durability, Expect, Health, Options, Storage, WriteError};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Platter {
    /// What the operating system has.
    cached: Vec<u8>,
    /// What survives a power cut.
    durable: Vec<u8>,
    /// What was written since the last sync: each sector of it may or may not survive.
    unsynced: Vec<(usize, Vec<u8>)>,
    operations: usize,
    /// From this operation on everything fails; `None` never.
    fails_from: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct FakeDisk(Arc<Mutex<Platter>>);

impl FakeDisk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { durable: bytes.clone(), cached: bytes, ..Platter::default() })))
    }

    fn operate<T>(&self, work: impl FnOnce(&mut Platter) -> T) -> Result<T, io::Error> {
        let mut platter = self.0.lock();
        platter.operations += 1;
        if platter.fails_from.is_some_and(|n| platter.operations > n) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(work(&mut platter))
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || Ok(Database::builder().set_cache_size(1 << 20).create_with_backend(disk.clone())?))
    }

    /// A file after a power cut: of each write since the last sync, some sectors.
    fn torn(&self, bits: &mut Bits) -> Vec<u8> {
        let platter = self.0.lock();
        let mut bytes = platter.durable.clone();
        bytes.resize(bytes.len().max(platter.cached.len()), 0);
        for (start, data) in &platter.unsynced {
            // A write may reach the disk whole or not at all, or lose a sector.
            let odds = bits.below(4);
            for (n, sector) in data.chunks(SECTOR).enumerate() {
                if odds == 3 || (odds > 0 && bits.below(2) == 0) {
                    bytes[start + n * SECTOR..][..sector.len()].copy_from_slice(sector);
                }
            }
        }
        bytes
    }

    fn open(&self) -> Storage<Text> {
        let source = Source { path: None, marker: None, opener: self.opener() };
        Storage::open_with(source, &Options::new(Backend::Memory), Text).unwrap()
    }
}

impl StorageBackend for FakeDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().cached[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.operate(|p| p.cached.resize(usize::try_from(len).unwrap(), 0))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.operate(|p| {
            p.durable.clone_from(&p.cached);
            p.unsynced.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).unwrap();
        self.operate(|p| {
            p.cached[start..start + data.len()].copy_from_slice(data);
            p.unsynced.push((start, data.to_owned()));
        })
    }
}

/// Writes until the disk fails; returns what was acknowledged (`None`: deleted) and the last revision
/// that a write returned.
async fn write_until_failure(storage: &Storage<Text>) -> (BTreeMap<String, Option<u64>>, u64) {
    let mut acknowledged = BTreeMap::new();
    let mut last = 0;
    for i in 0..60 {
        let item = format!("item{}", i % 7);
        let existing = storage.get(super::fixtures::COLLECTION, &item).map(|e| e.revision);
        let op = match existing {
            None => put(&item, Expect::Absent, "x first"),
            Some(revision) if i % 5 == 0 => delete(&item, Expect::Revision(revision)),
            Some(revision) => put(&item, Expect::Revision(revision), "x next"),
        };
        let deletes = matches!(op.action, crate::Action::Delete(_));
        match write(storage, op, Durability::Strict).await {
            Ok(entry) => {
                acknowledged.insert(item, (!deletes).then_some(entry.revision));
                last = entry.revision;
            }
            Err(WriteError::Disk(_)) => break,
            Err(other) => panic!("{other}"),
        }
        let lease = storage.get(super::fixtures::COLLECTION, "lease").map(|e| e.revision);
        let op = put("lease", lease.map_or(Expect::Absent, Expect::Revision), "lease");
        if let Ok(entry) = write(storage, op, Durability::Relaxed).await {
            last = entry.revision;
        }
    }
    (acknowledged, last)
}

/// Holds what was opened after a cut against what was acknowledged before it. Returns whether the write
/// that was under way had reached the disk; no other may differ.
#[track_caller]
fn check_kept(what: &str, after: &Storage<Text>, acknowledged: &BTreeMap<String, Option<u64>>, last: u64) -> bool {
    assert!(after.revision() > last, "{what}: revision {} follows {last}", after.revision());
    let found: BTreeMap<_, _> = listing(after, None).unwrap().into_iter().map(|(i, r, _)| (i, r)).collect();
    let differing = acknowledged.iter().filter(|(item, revision)| found.get(*item) != revision.as_ref());
    let differing: Vec<_> = differing.collect();
    assert!(differing.len() <= 1, "{what}: {differing:?}");
    for (item, revision) in &differing {
        let newer = found.get(*item).is_none_or(|found| revision.is_none_or(|r| *found > r));
        assert!(newer, "{what}: {item} went back");
    }
    !differing.is_empty()
}

/// An image of a fresh store.
async fn fresh() -> Vec<u8> {
    let disk = FakeDisk::default();
    disk.open().close().await.unwrap();
    disk.0.lock().durable.clone()
}

#[tokio::test]
async fn after_a_power_cut_at_any_operation_every_acknowledged_write_is_there() {
    let image = fresh().await;
    for cut in (0..400).step_by(7) {
        let disk = FakeDisk::holding(image.clone());
        let storage = disk.open();
        let start = disk.0.lock().operations;
        disk.0.lock().fails_from = Some(start + cut);
        let (acknowledged, last) = write_until_failure(&storage).await;
        assert!(storage.revision() >= last);
        let (cached, durable) = {
            let p = disk.0.lock();
            (p.cached.clone(), p.durable.clone())
        };
        check_kept(&format!("kill -9 at {cut}"), &FakeDisk::holding(cached).open(), &acknowledged, last);
        let what = format!("power cut at {cut}");
        let differs = check_kept(&what, &FakeDisk::holding(durable).open(), &acknowledged, last);
        assert!(!differs, "{what}: what was not synced is there");
    }
}

/// The check of the file before the engine opens it must take what a power cut leaves for what it is.
#[tokio::test]
async fn a_torn_file_is_whole_with_every_acknowledged_write() {
    let image = fresh().await;
    let mut bits = Bits(0x5eed_0003);
    for cut in (0..400).step_by(10) {
        let disk = FakeDisk::holding(image.clone());
        let storage = disk.open();
        let start = disk.0.lock().operations;
        disk.0.lock().fails_from = Some(start + cut);
        let (acknowledged, last) = write_until_failure(&storage).await;
        for round in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("state.redb");
            std::fs::write(&database, disk.torn(&mut bits)).unwrap();
            let options = Options::new(Backend::File { database, marker: None });
            let what = format!("torn at {cut}.{round}");
            let after = Storage::open(&options, Text).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(after.set_aside(), [], "{what}");
            check_kept(&what, &after, &acknowledged, last);
        }
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_nothing_else_and_writes_resume_when_there_is_room() {
    let disk = FakeDisk::default();
    let storage = disk.open();
    let first = write(&storage, put("a", Expect::Absent, "x 1"), Durability::Strict).await.unwrap();
    let operations = disk.0.lock().operations;
    disk.0.lock().fails_from = Some(operations);
    let error = write(&storage, put("a", Expect::Revision(first.revision), "x 2"), Durability::Strict).await;
    assert!(matches!(error, Err(WriteError::Disk(_))), "{error:?}");
    assert_eq!(listing(&storage, None).unwrap(), [("a".to_owned(), first.revision, "x 1".to_owned())]);
    assert_eq!(storage.revision(), first.revision);
    assert_eq!(storage.health(), Health::Failing);

    disk.0.lock().fails_from = None;
    let second = write(&storage, put("a", Expect::Revision(first.revision), "x 3"), Durability::Strict).await.unwrap();
    assert!(second.revision > first.revision + 1, "the failed write's revision is not used again");
    assert_eq!(storage.health(), Health::Good);
    storage.close().await.unwrap();
    let reopened = disk.open();
    assert_eq!(listing(&reopened, None).unwrap(), [("a".to_owned(), second.revision, "x 3".to_owned())]);
}

#[tokio::test]
async fn relaxed_writes_reach_the_disk_with_the_next_strict_one_and_at_the_end() {
    let disk = FakeDisk::default();
    let storage = disk.open();
    write(&storage, put("s", Expect::Absent, "x"), Durability::Strict).await.unwrap();
    let operations = disk.0.lock().operations;
    write(&storage, put("lease", Expect::Absent, "x 1"), Durability::Relaxed).await.unwrap();
    assert_eq!(disk.0.lock().operations, operations, "a relaxed write does not touch the disk");
    let items = |bytes: Vec<u8>| -> Vec<String> {
        listing(&FakeDisk::holding(bytes).open(), None).unwrap().into_iter().map(|(i, _, _)| i).collect()
    };
    assert_eq!(items(disk.0.lock().durable.clone()), ["s"]);
    write(&storage, put("t", Expect::Absent, "x"), Durability::Strict).await.unwrap();
    assert_eq!(items(disk.0.lock().durable.clone()), ["lease", "s", "t"]);
    write(&storage, put("late", Expect::Absent, "x"), Durability::Relaxed).await.unwrap();
    storage.close().await.unwrap();
    assert_eq!(items(disk.0.lock().durable.clone()), ["late", "lease", "s", "t"]);
}
