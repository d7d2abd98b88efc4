//! A first start, cut short at each of the files that it makes.

use std::fs;
use std::path::Path;

use super::super::fixtures;
use crate::datadir::{Found, Start, begin};

/// Names of all files below a directory.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Where a file is written before it gets its name.
fn beside(name: &str) -> String {
    let ending = if name.starts_with("server/tls") || name == "first-start" { "tmp" } else { "new" };
    format!("{name}.{ending}")
}

#[tokio::test]
async fn the_next_start_goes_on_wherever_the_first_one_was_cut_short() {
    let whole = tempfile::tempdir().unwrap();
    fixtures::start(whole.path()).await.unwrap();
    let all = files(whole.path());
    let made = all.iter().map(String::as_str).chain(["first-start"]);
    let mut cut_after = Vec::new();
    for name in made.filter(|name| !name.ends_with(".reserve") && !name.ends_with("store-b")) {
        let directory = tempfile::tempdir().unwrap();
        // It cannot be written: all that is written before it is there, and nothing else.
        let blocker = directory.path().join(beside(name));
        fs::create_dir_all(&blocker).unwrap();
        fixtures::start(directory.path()).await.expect_err(name);
        fs::remove_dir(&blocker).unwrap();
        let there = files(directory.path());
        assert_eq!(there.iter().any(|file| file == "first-start"), name != "first-start", "{name}: {there:?}");
        cut_after.push(there.len());
        assert!(Found::look(directory.path()).unwrap().missing().is_empty(), "{name}: {there:?}");
        fixtures::start(directory.path()).await.expect(name);
        assert_eq!(files(directory.path()), all, "{name}");
        assert_eq!(begin(directory.path()).unwrap(), Start::Later, "{name}");
    }
    // Each was cut short at another point: the ten of certificates and the other key, the store, its marker.
    cut_after.sort_unstable();
    assert_eq!(cut_after, (0..cut_after.len()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_first_start_that_did_not_note_its_end_is_noted_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    fixtures::start(directory.path()).await.unwrap();
    let authority = fs::read(directory.path().join("server/tls/ca.crt")).unwrap();
    fs::write(directory.path().join("first-start"), "").unwrap();
    fixtures::start(directory.path()).await.unwrap();
    assert_eq!(fs::read(directory.path().join("server/tls/ca.crt")).unwrap(), authority);
    assert_eq!(begin(directory.path()).unwrap(), Start::Later);
}
