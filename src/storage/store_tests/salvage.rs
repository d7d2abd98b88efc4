//! Every page and random sectors of a store's file are zeroed in turn: all objects are there afterwards, or
//! all but those that are named or lie in a gap.

use std::collections::BTreeMap;
use std::path::Path;

use super::damage::{Listing, Outcome, outcomes};
use super::fixtures::{Bits, COLLECTION, Text, delete, in_directory, listing, put, write};
use crate::{Durability, Expect, OpenError, Storage};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
const OBJECTS: usize = 400;

fn name(n: usize) -> String {
    format!("namespace-{}/object-of-some-name-{n}", n % 5)
}

/// A store whose tables have branches over branches, with rewritten and deleted objects.
async fn fill(directory: &Path) -> Listing {
    let storage = Storage::open(&in_directory(directory), Text).unwrap();
    let text = |n: usize| format!("{n} {}", "text ".repeat(60 + 20 * (n % 7)));
    for start in (0..OBJECTS).step_by(50) {
        let writes = (start..start + 50).map(|n| put(&name(n), Expect::Absent, &text(n)));
        storage.write(writes.collect(), Durability::Strict).await.unwrap();
    }
    let big = format!("big {}", "x".repeat(30_000));
    write(&storage, put("namespace-2/big", Expect::Absent, &big), Durability::Strict).await.unwrap();
    for n in (0..OBJECTS).step_by(23) {
        write(&storage, delete(&name(n), Expect::Present), Durability::Strict).await.unwrap();
        write(&storage, put(&name(n + 1), Expect::Present, "x again"), Durability::Strict).await.unwrap();
    }
    let all = listing(&storage, None).unwrap();
    storage.close().await.unwrap();
    all
}

fn pages(directory: &Path) -> usize {
    usize::try_from(std::fs::metadata(directory.join("state.redb")).unwrap().len()).unwrap() / PAGE
}

#[tokio::test]
async fn no_zeroed_page_refuses_the_start() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let pages = pages(image.path());
    let counts = outcomes(pages, &before, image.path(), |page, bytes| {
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        format!("page {page}")
    })
    .await;
    eprintln!("zeroed pages of {pages}: {counts:?}");
    assert!(!counts.contains_key(&Outcome::Refused), "{counts:?}");
    // Only leaves cost anything.
    assert!(counts[&Outcome::AllButNamed] > 60 && counts[&Outcome::Everything] > 20, "{counts:?}");
}

#[tokio::test]
async fn no_zeroed_sector_refuses_the_start() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let sectors = pages(image.path()) * PAGE / SECTOR;
    let mut bits = Bits(0x5eed_0004);
    let counts = outcomes(120, &before, image.path(), |n, bytes| {
        let sector = if n == 0 { 0 } else { bits.below(sectors) };
        bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        format!("sector {sector}")
    })
    .await;
    eprintln!("zeroed sectors: {counts:?}");
    assert!(!counts.contains_key(&Outcome::Refused), "{counts:?}");
}

/// Garbage takes the place of some pages at once: of what proves itself all is there, or too much is lost.
#[tokio::test]
async fn several_damaged_pages_cost_what_is_named_or_refuse_the_start() {
    let image = tempfile::tempdir().unwrap();
    let before = fill(image.path()).await;
    let pages = pages(image.path());
    let mut bits = Bits(0x5eed_0005);
    outcomes(40, &before, image.path(), |n, bytes| {
        for _ in 0..=n % 8 {
            let page = bits.below(pages);
            let other = bits.below(pages);
            // Another's page, as a card with a confused table of its blocks gives it, or nothing.
            let content = if n % 2 == 0 { bytes[other * PAGE..][..PAGE].to_vec() } else { vec![0; PAGE] };
            bytes[page * PAGE..][..PAGE].copy_from_slice(&content);
        }
        format!("try {n}")
    })
    .await;
}

/// Zeroes the first page in whose place a gap comes up; returns the store that has it.
async fn with_a_gap(directory: &Path) -> Storage<Text> {
    let path = directory.join("state.redb");
    let whole = std::fs::read(&path).unwrap();
    for page in 1..whole.len() / PAGE {
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let report = crate::check(&path, Some(&directory.join("mark")), |_, _, _| Ok(())).unwrap();
        if !report.gaps.is_empty() {
            assert!(report.is_damaged);
            let storage = Storage::open(&in_directory(directory), Text).unwrap();
            assert_eq!(storage.gaps(), report.gaps);
            return storage;
        }
    }
    panic!("no page has entries");
}

#[tokio::test]
async fn a_gap_holds_what_may_be_lost_until_the_damaged_file_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let before = fill(directory.path()).await;
    let storage = with_a_gap(directory.path()).await;
    let now: BTreeMap<_, _> = listing(&storage, None).unwrap().into_iter().map(|(i, r, _)| (i, r)).collect();
    let lost: Vec<&String> = before.iter().map(|(item, ..)| item).filter(|item| !now.contains_key(*item)).collect();
    assert!((1..30).contains(&lost.len()), "{lost:?}");
    assert!(lost.iter().all(|item| storage.may_be_lost(COLLECTION, item)));
    assert!(!storage.may_be_lost(COLLECTION, now.keys().next().unwrap()), "what is there is not lost");
    assert!(!storage.may_be_lost(COLLECTION, "zzz"), "nor is what lies outside");
    assert!(storage.gap_in(COLLECTION, "").is_some() && storage.gap_in("core/others", "").is_none());
    // What was written anew and deleted is known to be absent.
    write(&storage, put(lost[0], Expect::Absent, "x"), Durability::Strict).await.unwrap();
    assert!(!storage.is_set_aside(COLLECTION, lost[0]));
    write(&storage, delete(lost[0], Expect::Present), Durability::Strict).await.unwrap();
    assert!(!storage.is_set_aside(COLLECTION, lost[0]));
    storage.close().await.unwrap();

    let again = Storage::open(&in_directory(directory.path()), Text).unwrap();
    assert!(again.may_be_lost(COLLECTION, lost[0]), "it is remembered");
    again.close().await.unwrap();
    std::fs::remove_file(directory.path().join("state.redb.damaged")).unwrap();
    for _ in 0..2 {
        let storage = Storage::open(&in_directory(directory.path()), Text).unwrap();
        assert_eq!((storage.gaps(), storage.set_aside()), (vec![], vec![]));
        assert!(!storage.is_set_aside(COLLECTION, lost[0]));
        storage.close().await.unwrap();
        // Even if there is another such file later.
        std::fs::write(directory.path().join("state.redb.damaged"), b"").unwrap();
    }
}

/// The bookkeeping and the header at once, or nearly everything: then nothing proves itself.
#[tokio::test]
async fn a_store_of_which_little_proves_itself_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let path = directory.path().join("state.redb");
    let whole = std::fs::read(&path).unwrap();
    let cases = [(0..whole.len() / 2, "header"), (PAGE..whole.len() * 3 / 4, "objects can be read")];
    for (range, said) in cases {
        let mut bytes = whole.clone();
        bytes[range.clone()].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let error = Storage::open(&in_directory(directory.path()), Text).unwrap_err();
        assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains(said)), "{range:?}: {error}");
        assert!(error.is_final());
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was written");
    }
}
