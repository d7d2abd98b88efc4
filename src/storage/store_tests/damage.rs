//! What an SD card does to a file: flipped bits, zeroed and lost pages, files that are gone.
//!
//! Each start after it serves everything, or all but what it names, or refuses with a sentence.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use super::fixtures::{Bits, COLLECTION, Text, delete, in_directory, listing, put, write};
use crate::{Durability, Expect, Health, OpenError, Storage};

pub(super) type Listing = Vec<(String, u64, String)>;

/// A store with objects of several sizes, some of them rewritten and some deleted.
async fn fill(directory: &Path) -> Listing {
    let storage = Storage::open(&in_directory(directory), Text).unwrap();
    for i in 0..60 {
        let text = format!("{i} {}", "text ".repeat(40 * (i % 7) + 3));
        write(&storage, put(&format!("item{i}"), Expect::Absent, &text), Durability::Strict).await.unwrap();
    }
    let big = format!("big {}", "x".repeat(30_000));
    write(&storage, put("big", Expect::Absent, &big), Durability::Strict).await.unwrap();
    for i in (0..60).step_by(9) {
        write(&storage, delete(&format!("item{i}"), Expect::Present), Durability::Strict).await.unwrap();
        write(&storage, put(&format!("item{}", i + 1), Expect::Present, "x again"), Durability::Strict).await.unwrap();
    }
    let all = listing(&storage, None).unwrap();
    storage.close().await.unwrap();
    all
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Everything,
    AllButNamed,
    Refused,
}

/// Opens a store that was damaged and holds the one law.
pub(super) async fn open(directory: &Path, before: &Listing, what: &str) -> Outcome {
    match Storage::open(&in_directory(directory), Text) {
        Err(error) => {
            assert!(error.is_final(), "{what}: {error}: {:?}", error.source());
            Outcome::Refused
        }
        Ok(storage) => {
            let newest = before.iter().map(|(_, revision, _)| *revision).max().unwrap();
            assert!(storage.revision() >= newest, "{what}: the revision went back to {}", storage.revision());
            let now: BTreeMap<_, _> =
                listing(&storage, None).unwrap().into_iter().map(|(i, r, t)| (i, (r, t))).collect();
            let named: Vec<String> = storage.set_aside().into_iter().map(|entry| entry.name).collect();
            for (item, revision, text) in before {
                match now.get(item) {
                    Some(found) => assert_eq!(found, &(*revision, text.clone()), "{what}: {item} is another"),
                    None => assert!(storage.is_set_aside(COLLECTION, item), "{what}: {item} is lost and not named"),
                }
            }
            let gaps = storage.gaps();
            assert!(
                now.keys().all(|item| before.iter().any(|(known, ..)| known == item)),
                "{what}: deleted objects are back"
            );
            assert!(
                !gaps.is_empty() || now.len() + named.len() == before.len(),
                "{what}: {} of {}, {named:?}",
                now.len(),
                before.len()
            );
            storage.close().await.unwrap();
            if named.is_empty() && gaps.is_empty() { Outcome::Everything } else { Outcome::AllButNamed }
        }
    }
}

/// Damages copies of a store and counts the outcomes.
pub(super) async fn outcomes(
    tries: usize,
    before: &Listing,
    image: &Path,
    mut damage: impl FnMut(usize, &mut Vec<u8>) -> String,
) -> BTreeMap<Outcome, usize> {
    let mut counts = BTreeMap::new();
    for n in 0..tries {
        let copy = tempfile::tempdir().unwrap();
        for name in ["mark-a", "mark-b"] {
            std::fs::copy(image.join(name), copy.path().join(name)).unwrap();
        }
        let mut bytes = std::fs::read(image.join("state.redb")).unwrap();
        let what = damage(n, &mut bytes);
        std::fs::write(copy.path().join("state.redb"), bytes).unwrap();
        let first = open(copy.path(), before, &what).await;
        if first != Outcome::Refused {
            assert_eq!(open(copy.path(), before, &format!("{what}, second start")).await, first, "{what}");
        }
        *counts.entry(first).or_insert(0) += 1;
    }
    counts
}

#[tokio::test]
async fn a_flipped_bit_is_put_right_or_costs_one_named_object() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let mut bits = Bits(0x5eed_0001);
    let counts = outcomes(200, &before, image.path(), |n, bytes| {
        // The header is small and matters most.
        let bit = bits.below(if n < 40 { 320 * 8 } else { bytes.len() * 8 });
        bytes[bit / 8] ^= 1 << (bit % 8);
        format!("bit {bit}")
    })
    .await;
    // The page of the one big object is too large to try each of its bits: that object is named.
    assert!(!counts.contains_key(&Outcome::Refused), "{counts:?}");
    assert!(counts[&Outcome::Everything] > 150, "{counts:?}");
}

#[tokio::test]
async fn twenty_flipped_bits_cost_no_more_than_what_is_named() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let mut bits = Bits(0x5eed_0002);
    let counts = outcomes(120, &before, image.path(), |n, bytes| {
        let flips = 2 + n % 19;
        // Together, as one bad cell takes its neighbours along; every third try all over the file.
        let start = bits.below(bytes.len() - 64);
        for _ in 0..flips {
            let at = if n % 3 == 0 { bits.below(bytes.len()) } else { start + bits.below(64) };
            bytes[at] ^= 1 << bits.below(8);
        }
        format!("try {n}: {flips} bits at {start}")
    })
    .await;
    assert!(counts.contains_key(&Outcome::AllButNamed), "{counts:?}");
}

#[tokio::test]
async fn pages_that_are_zeroed_or_gone_are_never_taken_for_absent() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let counts = outcomes(60, &before, image.path(), |n, bytes| {
        let pages = bytes.len() / 4096;
        let page = n * pages / 60;
        match n % 3 {
            0 => bytes[page * 4096..(page + 1) * 4096].fill(0),
            1 => bytes[page * 4096..page * 4096 + 512].fill(0xff),
            _ => bytes.truncate(page * 4096 + 100),
        }
        format!("try {n}: page {page}")
    })
    .await;
    assert!(counts.contains_key(&Outcome::Refused), "{counts:?}");
}

#[tokio::test]
async fn a_damaged_entry_is_named_until_it_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let before = fill(directory.path()).await;
    let path = directory.path().join("state.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"x again\x00\x00" || w == b"33 text t").unwrap();
    bytes[at..at + 7].fill(b'#');
    std::fs::write(&path, bytes).unwrap();
    let report = crate::check(&path, Some(&directory.path().join("mark")), |_, _, _| Ok(())).unwrap();
    assert_eq!((report.set_aside.len(), report.entries, report.is_damaged), (1, before.len() - 1, true));
    let name = report.set_aside[0].name.clone();
    let item = name.rsplit('/').next().unwrap();
    for _ in 0..2 {
        let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
        assert_eq!(storage.set_aside().iter().map(|s| s.name.clone()).collect::<Vec<_>>(), std::slice::from_ref(&name));
        assert!(storage.is_set_aside(COLLECTION, item));
        storage.close().await.unwrap();
    }
    assert!(directory.path().join("state.redb.damaged").exists(), "the damaged file is kept");
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    write(&storage, put(item, Expect::Absent, "x"), Durability::Strict).await.unwrap();
    assert!(!storage.is_set_aside(COLLECTION, item));
    storage.close().await.unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    assert_eq!((storage.set_aside(), listing(&storage, None).unwrap().len()), (vec![], before.len()));
}

#[tokio::test]
async fn a_store_in_use_is_looked_at_as_of_one_commit_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let before = fill(directory.path()).await;
    let (path, mark) = (directory.path().join("state.redb"), directory.path().join("mark"));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"x again\x00\x00" || w == b"33 text t").unwrap();
    bytes[at..at + 7].fill(b'#');
    std::fs::write(&path, bytes).unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    let looked = crate::check_in_use(&path, Some(&mark), |_, _, _| Ok(())).unwrap().unwrap();
    assert_eq!((looked.entries, looked.set_aside.len(), looked.is_damaged), (before.len() - 1, 1, false));
    write(&storage, put("more", Expect::Absent, "x"), Durability::Strict).await.unwrap();
    let looked = crate::check_in_use(&path, Some(&mark), |_, _, _| Ok(())).unwrap().unwrap();
    assert_eq!((looked.entries, looked.set_aside.len()), (before.len(), 1));
    // As if each entry that is read were committed meanwhile: behind the slots the header has room that nobody reads.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut commits = 0_u8;
    let written = crate::check_in_use(&path, Some(&mark), |_, _, _| {
        commits = commits.wrapping_add(1);
        std::os::unix::fs::FileExt::write_all_at(&file, &[commits.max(1)], 400)?;
        Ok(())
    });
    assert!(written.unwrap().is_none());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_file_is_named_and_nobody_waits_for_it() {
    for name in ["state.redb", "state.redb.new", "mark-a", "mark-b"] {
        let directory = tempfile::tempdir().unwrap();
        if name != "state.redb.new" {
            fill(directory.path()).await;
        }
        let path = directory.path().join(name);
        std::fs::remove_file(&path).ok();
        std::fs::create_dir(&path).unwrap();
        let error = Storage::open(&in_directory(directory.path()), Text).unwrap_err();
        assert!(error.is_final(), "{error:?}");
        let said = format!("{error}: {:?}", error.source().map(ToString::to_string));
        assert!(said.contains(&format!("{} is a directory", path.display())), "{said}");
    }
    // What is only there to hold room is made anew.
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let reserve = directory.path().join("state.redb.reserve");
    std::fs::remove_file(&reserve).ok();
    nix::unistd::mkfifo(&reserve, nix::sys::stat::Mode::S_IRWXU).unwrap();
    Storage::open(&in_directory(directory.path()), Text).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_gone_is_not_replaced_by_an_empty_one() {
    for empty in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path()).await;
        let path = directory.path().join("state.redb");
        std::fs::remove_file(&path).unwrap();
        if empty {
            std::fs::write(&path, b"").unwrap();
        }
        let error = Storage::open(&in_directory(directory.path()), Text).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }) && error.is_final(), "{error}");
        assert!(error.to_string().contains("missing or empty"), "{error}");
        assert_eq!(path.exists(), empty, "nothing was written");
        assert!(crate::check(&path, Some(&directory.path().join("mark")), |_, _, _| Ok(())).is_err());
    }
}

#[tokio::test]
async fn an_old_copy_goes_on_above_all_revisions_that_were_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let before = fill(directory.path()).await;
    let path = directory.path().join("state.redb");
    let copy = std::fs::read(&path).unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    let last = write(&storage, put("later", Expect::Absent, "x"), Durability::Strict).await.unwrap().revision;
    storage.close().await.unwrap();
    std::fs::write(&path, copy).unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    assert!(storage.revision() > last);
    assert_eq!(listing(&storage, None).unwrap(), before);
}

#[tokio::test]
async fn another_clusters_store_and_a_later_form_are_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(ours.path()).await;
    fill(theirs.path()).await;
    std::fs::copy(theirs.path().join("state.redb"), ours.path().join("state.redb")).unwrap();
    let error = Storage::open(&in_directory(ours.path()), Text).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    let path = theirs.path().join("state.redb");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(meta).unwrap().insert("form", 3).unwrap();
        transaction.commit().unwrap();
    }
    let error = Storage::open(&in_directory(theirs.path()), Text).unwrap_err();
    assert!(error.to_string().contains("form 3, which a later version wrote; this one reads forms up to 2"), "{error}");
}

/// `form-1.redb` was written and left by `kill -9` by the last version without checksums.
#[tokio::test]
async fn a_store_of_the_first_form_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("store_tests/golden/form-1.redb");
    std::fs::copy(golden, directory.path().join("state.redb")).unwrap();
    let mut expected: Listing = (0..12).map(|i| (format!("item{i}"), i + 2, format!("{i} text of item {i}"))).collect();
    expected.sort();
    for start in 0..2 {
        let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
        assert_eq!(listing(&storage, None).unwrap(), expected, "start {start}");
        assert!(storage.revision() > 10_000, "it was not closed in order");
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_is_found_damaged_in_use_refuses_further_writes_and_is_checked_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let path = directory.path().join("state.redb");
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    let mut closed = std::pin::pin!(storage.closed());
    assert!(tokio::time::timeout(Duration::ZERO, &mut closed).await.is_err(), "nothing was found yet");
    let size = std::fs::metadata(&path).unwrap().len();
    let garbage = vec![0xa5; usize::try_from(size - 4096).unwrap()];
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 4096).unwrap();
    // What the engine has in its cache it may still use; each write needs more of the rest.
    for i in 0..400 {
        let op = put(&format!("new{i}"), Expect::Absent, &"x".repeat(5_000));
        if write(&storage, op, Durability::Strict).await.is_err() {
            break;
        }
    }
    for item in ["item1", "item2", "item3", "item30", "item50", "zzz"] {
        let _ = write(&storage, put(item, Expect::Present, "x"), Durability::Strict).await;
    }
    assert_eq!(storage.health(), Health::Closed);
    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("who waits for it is told");
    assert!(write(&storage, put("later", Expect::Absent, "x"), Durability::Strict).await.is_err());
    let read = listing(&storage, None).unwrap();
    assert!(read.len() >= 50, "reads go on");
    assert!(storage.close().await.is_err(), "what was not written is not said to be");
    match Storage::open(&in_directory(directory.path()), Text) {
        Err(error) => assert!(error.is_final(), "{error}"),
        Ok(storage) => {
            let lost = read.iter().filter(|(item, ..)| storage.get(COLLECTION, item).is_none());
            assert!(lost.clone().count() > 0);
            lost.for_each(|(item, ..)| assert!(storage.is_set_aside(COLLECTION, item), "{item}"));
        }
    }
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_store_is_told_of_an_orderly_one_too() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
    let closed = storage.closed();
    storage.close().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("closed");
}
