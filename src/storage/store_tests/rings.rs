//! The byte cap holds, and quiet collections keep their history under a busy one.

use std::time::Duration;

use super::fixtures::{COLLECTION, Text, listing, put, write};
use crate::{Action, Backend, Content, Durability, Expect, Key, Options, Purpose, RingLimits, Storage, Write};

#[tokio::test]
async fn a_busy_collection_does_not_evict_a_quiet_one() {
    let ring = RingLimits { bytes: 64 << 10, floor: 8 << 10, ..RingLimits::default() };
    let storage = Storage::open(&Options { ring, ..Options::new(Backend::Memory) }, Text).unwrap();
    let start = storage.revision();
    let quiet = Write {
        key: Key::new("core/quiet", "a"),
        expect: Expect::Absent,
        action: Action::Put(Box::new(|_| Content { bytes: "q".into(), index: "q".into() })),
        purpose: Purpose::Ordinary,
    };
    storage.write(vec![quiet], Durability::Strict).await.unwrap();
    let mut busy = storage.watch(COLLECTION, start).unwrap();
    for i in 0..300 {
        let op = put(&format!("item{i}"), Expect::Absent, &"x".repeat(500));
        write(&storage, op, Durability::Relaxed).await.unwrap();
    }
    let stats = storage.stats();
    assert!(stats.ring_bytes <= 64 << 10, "{stats:?}");
    assert!(busy.ready().is_err(), "a watcher that fell behind is told");
    assert!(storage.watch(COLLECTION, start).is_err());
    let events = storage.watch("core/quiet", start).unwrap().ready().unwrap();
    assert_eq!(events.len(), 1);
}

/// A paged list that is never continued must not be answerable for ever, however quiet its collection is.
#[tokio::test]
async fn an_old_revision_goes_although_its_collection_is_quiet() {
    let ring = RingLimits { age: Duration::ZERO, ..RingLimits::default() };
    let storage = Storage::open(&Options { ring, ..Options::new(Backend::Memory) }, Text).unwrap();
    let first = write(&storage, put("a", Expect::Absent, "1"), Durability::Strict).await.unwrap().revision;
    assert_eq!(listing(&storage, Some(first)).unwrap().len(), 1);
    for item in ["a", "b"] {
        let elsewhere = Write {
            key: Key::new("core/other", item),
            expect: Expect::Absent,
            action: Action::Put(Box::new(|_| Content { bytes: "q".into(), index: "q".into() })),
            purpose: Purpose::Ordinary,
        };
        storage.write(vec![elsewhere], Durability::Strict).await.unwrap();
    }
    assert!(listing(&storage, Some(first)).is_err());
    assert_eq!(listing(&storage, None).unwrap().len(), 1);
}

/// A slow connection keeps no more alive than it sends at a time, and misses nothing.
#[tokio::test]
async fn changes_are_taken_by_their_bytes() {
    let storage = Storage::open(&Options::new(Backend::Memory), Text).unwrap();
    let mut watch = storage.watch(COLLECTION, storage.revision()).unwrap();
    let mut written = Vec::new();
    for (i, size) in [100, 100, 100, 5_000, 5_000, 1].into_iter().enumerate() {
        let op = put(&format!("item{i}"), Expect::Absent, &"x".repeat(size));
        written.push(write(&storage, op, Durability::Relaxed).await.unwrap().revision);
    }
    let mut taken = Vec::new();
    for expected in [2, 2, 1, 1] {
        let events = watch.next_within(200).await.unwrap();
        assert_eq!(events.len(), expected);
        taken.extend(events.iter().map(|event| event.revision()));
        assert_eq!(watch.position(), *taken.last().unwrap());
    }
    assert_eq!(taken, written);
    assert!(watch.ready().unwrap().is_empty());
}
