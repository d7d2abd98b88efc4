//! The byte cap holds, and quiet collections keep their history under a busy one.

use super::fixtures::{COLLECTION, Text, put, write};
use crate::{Action, Backend, Content, Durability, Expect, Key, Options, RingLimits, Storage, Write};

#[tokio::test]
async fn a_busy_collection_does_not_evict_a_quiet_one() {
    let ring = RingLimits { bytes: 64 << 10, floor: 8 << 10, ..RingLimits::default() };
    let storage = Storage::open(&Options { backend: Backend::Memory, ring }, Text).unwrap();
    let start = storage.revision();
    let quiet = Write {
        key: Key::new("core/quiet", "a"),
        expect: Expect::Absent,
        action: Action::Put(Box::new(|_| Content { bytes: "q".into(), index: "q".into() })),
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
