//! A disk that is full, on a file system of a few megabytes in a mount namespace of the test's own.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::fixtures::{COLLECTION, Text, delete, in_directory, put, write};
use crate::{Durability, Expect, Health, Purpose, Storage, Write, WriteError};

/// Mounts a small file system for this thread and those that it starts.
fn small_disk(at: &Path) {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=12m")).unwrap();
}

/// Takes all that is left.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 16, 4096] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
    path
}

fn update_that_deletes(item: &str) -> Write<Box<str>> {
    Write { purpose: Purpose::Removal, ..put(item, Expect::Present, "going") }
}

/// The mount namespace belongs to a thread, so the whole test runs on one.
fn on_a_small_disk<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let test = move || {
        let directory = tempfile::tempdir().unwrap();
        small_disk(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(directory.path().to_owned()));
        nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    };
    std::thread::Builder::new().spawn(test).unwrap().join().unwrap();
}

#[test]
fn on_a_full_disk_deletions_are_done_and_nothing_else() {
    on_a_small_disk(|directory| async move {
        let storage = Storage::open(&in_directory(&directory), Text).unwrap();
        let text = "text ".repeat(2_000);
        for i in 0..60 {
            write(&storage, put(&format!("item{i}"), Expect::Absent, &text), Durability::Strict).await.unwrap();
        }
        assert_eq!(storage.health(), Health::Good);
        let filler = fill(&directory);
        let mut refused = None;
        for i in 0..1000 {
            let done = write(&storage, put(&format!("more{i}"), Expect::Absent, &text), Durability::Strict).await;
            if let Err(error) = done {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(WriteError::Full)), "{refused:?}");
        assert_eq!(storage.health(), Health::Full);
        for i in 0..50 {
            write(&storage, update_that_deletes(&format!("item{i}")), Durability::Strict).await.unwrap();
            write(&storage, delete(&format!("item{i}"), Expect::Present), Durability::Strict).await.unwrap();
            let more = write(&storage, put("other", Expect::Absent, "x"), Durability::Strict).await;
            assert!(matches!(more, Err(WriteError::Full)), "{more:?}");
        }
        // A start on the full disk.
        storage.close().await.unwrap();
        let storage = Storage::open(&in_directory(&directory), Text).unwrap();
        assert_eq!(storage.health(), Health::Full);
        assert!(storage.get(COLLECTION, "item49").is_none() && storage.get(COLLECTION, "item50").is_some());
        write(&storage, delete("item50", Expect::Present), Durability::Strict).await.unwrap();

        std::fs::remove_file(filler).unwrap();
        write(&storage, put("other", Expect::Absent, "x"), Durability::Strict).await.unwrap();
        assert_eq!(storage.health(), Health::Good);
    });
}

#[test]
fn a_deletion_that_finds_the_disk_full_is_done_at_once() {
    on_a_small_disk(|directory| async move {
        let storage = Storage::open(&in_directory(&directory), Text).unwrap();
        for i in 0..30 {
            let op = put(&format!("item{i}"), Expect::Absent, &"x".repeat(20_000));
            write(&storage, op, Durability::Strict).await.unwrap();
        }
        fill(&directory);
        for i in 0..30 {
            write(&storage, delete(&format!("item{i}"), Expect::Present), Durability::Strict).await.unwrap();
        }
    });
}
