//! A store at its limit: nothing grows, and everything else goes on.

use super::fixtures::{COLLECTION, Text, delete, in_directory, listing, put, write};
use crate::{Backend, Durability, Expect, Health, Options, Purpose, Storage, Write, WriteError};

const LIMIT: u64 = 1 << 20;
const LARGE: usize = 50_000;

fn options() -> Options {
    Options { limit: LIMIT, ..Options::new(Backend::Memory) }
}

/// Large entries until one is refused; returns how many there are.
async fn fill(storage: &Storage<Text>) -> usize {
    let mut count = 0;
    loop {
        let item = put(&format!("large{count}"), Expect::Absent, &"x".repeat(LARGE));
        match write(storage, item, Durability::Strict).await {
            Ok(_) => count += 1,
            Err(WriteError::AtLimit) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_grows_is_refused_and_what_shrinks_is_done() {
    let storage = Storage::open(&options(), Text).unwrap();
    let count = fill(&storage).await;
    assert_eq!((count, storage.health()), (20, Health::AtLimit));
    assert!(storage.size() <= LIMIT && storage.size() > LIMIT - LARGE as u64 - 1000);
    let revision = storage.revision();
    for durability in [Durability::Strict, Durability::Relaxed] {
        let more = write(&storage, put("large0", Expect::Present, &"x".repeat(2 * LARGE)), durability).await;
        let text = more.unwrap_err().to_string();
        assert!(text.starts_with("etcdserver: mvcc: database space exceeded"), "{text}");
    }
    assert_eq!((storage.revision(), storage.get(COLLECTION, "large0").unwrap().bytes.len()), (revision, LARGE));
    // Neither part of a write is done without the other.
    let both = vec![delete("large0", Expect::Present), put("more", Expect::Absent, &"x".repeat(3 * LARGE))];
    assert!(matches!(storage.write(both, Durability::Strict).await, Err(WriteError::AtLimit)));
    assert!(storage.get(COLLECTION, "large0").is_some() && storage.get(COLLECTION, "more").is_none());
    let same = put("large0", Expect::Present, &"y".repeat(LARGE));
    assert_eq!(write(&storage, same, Durability::Strict).await.unwrap().revision, revision + 1);
    write(&storage, put("large0", Expect::Present, "small"), Durability::Strict).await.unwrap();
    assert_eq!(storage.health(), Health::Good);
    write(&storage, delete("large1", Expect::Present), Durability::Strict).await.unwrap();
    write(&storage, put("more", Expect::Absent, &"x".repeat(LARGE)), Durability::Strict).await.unwrap();
    for i in 2..count {
        write(&storage, delete(&format!("large{i}"), Expect::Present), Durability::Strict).await.unwrap();
    }
    let left = listing(&storage, None).unwrap();
    let size: usize = left.iter().map(|(item, _, text)| item.len() + text.len() + 512).sum();
    assert_eq!(storage.size(), size as u64);
}

#[tokio::test]
async fn a_refused_write_leaves_the_others_of_its_batch() {
    let storage = Storage::open(&options(), Text).unwrap();
    fill(&storage).await;
    let revision = storage.revision();
    let (free, huge) = (put("free", Expect::Absent, "x"), put("huge", Expect::Absent, &"x".repeat(LARGE)));
    let (huge, free, same) = tokio::join!(
        write(&storage, huge, Durability::Strict),
        write(&storage, free, Durability::Strict),
        write(&storage, put("large3", Expect::Present, "y"), Durability::Strict),
    );
    assert!(matches!(huge, Err(WriteError::AtLimit)));
    let mut revisions = [free.unwrap().revision, same.unwrap().revision];
    revisions.sort_unstable();
    assert_eq!(revisions, [revision + 1, revision + 2]);
    assert_eq!(storage.get(COLLECTION, "huge").map(|e| e.revision), None);
}

#[tokio::test]
async fn what_the_cluster_needs_goes_on_in_a_reserve_that_ends() {
    let storage = Storage::open(&options(), Text).unwrap();
    fill(&storage).await;
    let grown = |purpose, size: usize| Write { purpose, ..put("large0", Expect::Present, &"x".repeat(size)) };
    let upkeep = Purpose::Upkeep { is_removal: false };
    let up_to = |purpose, size| write(&storage, grown(purpose, size), Durability::Strict);
    let free = usize::try_from(LIMIT - storage.size()).unwrap();
    up_to(Purpose::Ordinary, LARGE + free).await.unwrap();
    assert!(up_to(Purpose::Ordinary, LARGE + free + 100).await.is_err());
    up_to(Purpose::Ordinary, LARGE + free + 10).await.unwrap();
    up_to(Purpose::Removal, LARGE + free + 30_000).await.unwrap();
    assert!(up_to(Purpose::Ordinary, LARGE + free + 30_010).await.is_err());
    assert!(up_to(Purpose::Removal, LARGE + free + 40_000).await.is_err());
    up_to(upkeep, LARGE + free + 60_000).await.unwrap();
    assert!(up_to(upkeep, LARGE + free + 70_000).await.is_err());
}

#[tokio::test]
async fn a_store_that_is_larger_than_its_limit_opens_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    for i in 0..60 {
        let item = put(&format!("large{i:02}"), Expect::Absent, &"x".repeat(LARGE));
        write(&storage, item, Durability::Strict).await.unwrap();
    }
    let before = listing(&storage, None).unwrap();
    storage.close().await.unwrap();
    let limited = Options { limit: LIMIT, ..in_directory(directory.path()) };
    let storage = Storage::open(&limited, Text).unwrap();
    assert_eq!(storage.health(), Health::AtLimit);
    assert_eq!(listing(&storage, None).unwrap(), before);
    assert!(matches!(
        write(&storage, put("more", Expect::Absent, "x"), Durability::Strict).await,
        Err(WriteError::AtLimit)
    ));
    let upkeep = Purpose::Upkeep { is_removal: false };
    let status = Write { purpose: upkeep, ..put("large00", Expect::Present, &"x".repeat(LARGE + 1000)) };
    write(&storage, status, Durability::Strict).await.unwrap();
    for i in 0..40 {
        assert_eq!(storage.health(), Health::AtLimit);
        write(&storage, delete(&format!("large{i:02}"), Expect::Present), Durability::Strict).await.unwrap();
    }
    assert_eq!(storage.health(), Health::Good);
    write(&storage, put("more", Expect::Absent, "x"), Durability::Strict).await.unwrap();
}
