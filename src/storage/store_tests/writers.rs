//! Many writers at once: each change is decided against the newest state and seen once, in order.

use super::fixtures::{COLLECTION, Text, put, text, write};
use crate::{Backend, Durability, Expect, Options, Storage, WriteError};

async fn increment(storage: Storage<Text>, times: usize) {
    for _ in 0..times {
        loop {
            let entry = storage.get(COLLECTION, "counter").unwrap();
            let next = text(&entry)[2..].parse::<u64>().unwrap() + 1;
            let op = put("counter", Expect::Revision(entry.revision), &format!("n {next}"));
            match write(&storage, op, Durability::Strict).await {
                Ok(_) => break,
                Err(WriteError::Failed { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_increment_is_lost_and_a_watcher_sees_each_one() {
    let storage = Storage::open(&Options::new(Backend::Memory), Text).unwrap();
    let created = write(&storage, put("counter", Expect::Absent, "n 0"), Durability::Strict).await.unwrap();
    let mut watch = storage.watch(COLLECTION, created.revision).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        tasks.spawn(increment(storage.clone(), 25));
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.extend(watch.next().await.unwrap().iter().map(|e| text(&e.entry)));
    }
    tasks.join_all().await;
    assert_eq!(seen, (1..=200).map(|n| format!("n {n}")).collect::<Vec<_>>());
    assert_eq!(text(&storage.get(COLLECTION, "counter").unwrap()), "n 200");
}

#[tokio::test]
async fn a_write_of_several_entries_is_done_whole_or_not_at_all() {
    let storage = Storage::open(&Options::new(Backend::Memory), Text).unwrap();
    let both = |b| vec![put("a", Expect::Absent, "x"), put("b", b, "x")];
    let refused = storage.write(both(Expect::Present), Durability::Strict).await;
    assert!(matches!(refused, Err(WriteError::Failed { position: 1, current: None })), "{refused:?}");
    assert!(storage.get(COLLECTION, "a").is_none());
    let done = storage.write(both(Expect::Absent), Durability::Strict).await.unwrap();
    assert_eq!(done.iter().map(|e| &*e.key.item).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_closed_store_still_reads() {
    let storage = Storage::open(&Options::new(Backend::Memory), Text).unwrap();
    write(&storage, put("a", Expect::Absent, "x"), Durability::Strict).await.unwrap();
    storage.close().await.unwrap();
    assert!(matches!(
        write(&storage, put("b", Expect::Absent, "x"), Durability::Strict).await,
        Err(WriteError::Closed)
    ));
    assert!(storage.get(COLLECTION, "a").is_some());
}
