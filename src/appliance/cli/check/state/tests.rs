use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::exit;
use crate::services::fixtures;

/// A directory that a server has used.
async fn used() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // As `coracle server` does.
    drop(datadir::lock(directory.path()).unwrap());
    fixtures::start(directory.path()).await.unwrap();
    directory
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() { copy(&path, &to) } else { assert!(fs::copy(&path, &to).is_ok()) }
    }
}

/// Every file below a directory with what it holds.
fn content(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else if path.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// What is in order and what is not.
fn said(data_dir: &Path) -> (Vec<String>, Vec<String>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for Finding { what, result, .. } in findings(data_dir) {
        match result {
            Ok(said) => fit.push(format!("{what}: {said}")),
            Err(said) => unfit.push(format!("{what}: {said}")),
        }
    }
    (fit, unfit)
}

fn is_fit(data_dir: &Path) -> bool {
    let (fit, unfit) = said(data_dir);
    unfit.is_empty()
        && fit.iter().any(|f| f.contains("objects can be read"))
        && fit.iter().any(|f| f.contains("belong"))
}

#[tokio::test]
async fn what_is_lost_is_not_made_anew_and_check_says_so_as_the_start_does() {
    let whole = used().await;
    assert!(is_fit(whole.path()), "{:?}", said(whole.path()));
    let pods = "agent/kubelet/pods/u";
    let authority = ["server/tls/ca.key", "server/tls/ca.crt", "server/tls/kube-apiserver.crt"];
    let store = ["server/db", "server/store-a", "server/store-b"];
    for (lost, with_pods, word, on_purpose) in [
        (&["server/tls"][..], false, "ca.key is missing, without which no certificate can be issued", true),
        (&authority, false, "ca.key is missing, without which", true),
        (&authority[..1], false, "ca.key is missing, without which", true),
        (&store, false, "state.redb is missing or empty, but", true),
        (&store, true, "state.redb is missing or empty, but", true),
        (&["server"], true, "state.redb is missing or empty, but", true),
        (&store[..1], false, "state.redb is missing or empty, but there was one", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        copy(whole.path(), path);
        for name in lost {
            let name = path.join(name);
            if name.is_dir() { fs::remove_dir_all(name) } else { fs::remove_file(name) }.ok();
        }
        if with_pods {
            fs::create_dir_all(path.join(pods)).unwrap();
        }
        let before = content(path);
        let (_, unfit) = said(path);
        assert!(unfit.iter().any(|said| said.contains(word)), "{lost:?}: {unfit:?}");
        for _ in 0..2 {
            let error = fixtures::start(path).await.unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(word), "{lost:?}: {text}");
            let code = (format!("{:?}", exit::code(&error)), format!("{:?}", std::process::ExitCode::from(78)));
            assert_eq!(code.0, code.1, "{lost:?}");
            assert_eq!(content(path), before, "{lost:?}: nothing was written");
        }
        if on_purpose {
            fs::write(path.join("first-start"), "").unwrap();
            fixtures::start(path).await.unwrap();
            assert!(is_fit(path), "{lost:?}: {:?}", said(path));
        }
    }
}

#[tokio::test]
async fn nothing_is_found_where_no_server_was_and_a_first_start_is_told() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(said(directory.path()), (Vec::new(), Vec::new()));
    assert_eq!(said(&directory.path().join("none")), (Vec::new(), Vec::new()));
    assert_eq!(datadir::begin(directory.path()).unwrap(), Start::First);
    let (fit, unfit) = said(directory.path());
    assert!(unfit.is_empty() && fit.len() == 1 && fit[0].contains("first start has not come to its end"), "{fit:?}");
}

#[tokio::test]
async fn what_is_no_file_is_named_by_start_and_check_and_nobody_waits_for_it() {
    let whole = used().await;
    let files = content(&whole.path().join("server"));
    assert!(files.len() > 12, "{files:?}");
    for (file, _) in files {
        let name = file.strip_prefix(whole.path()).unwrap();
        if name.ends_with("state.redb.reserve") {
            continue;
        }
        for (is_fifo, word) in [(true, "is a FIFO"), (false, "is a directory")] {
            let directory = tempfile::tempdir().unwrap();
            copy(whole.path(), directory.path());
            let path = directory.path().join(name);
            fs::remove_file(&path).unwrap();
            if is_fifo {
                mkfifo(&path, Mode::S_IRWXU).unwrap()
            } else {
                fs::create_dir(&path).unwrap()
            }
            let word = format!("{} {word}, where a file belongs", path.display());
            let (_, unfit) = said(directory.path());
            assert!(unfit.iter().any(|said| said.contains(&word)), "{unfit:?}");
            let error = fixtures::start(directory.path()).await.unwrap_err();
            assert!(format!("{error:#}").contains(&word), "{error:#}");
            assert_eq!(
                format!("{:?}", exit::code(&error)),
                format!("{:?}", std::process::ExitCode::from(78)),
                "{word}"
            );
        }
    }
    let lock = whole.path().join("lock");
    fs::remove_file(&lock).unwrap();
    mkfifo(&lock, Mode::S_IRWXU).unwrap();
    let (_, unfit) = said(whole.path());
    assert!(unfit.len() == 1 && unfit[0].contains("lock is a FIFO"), "{unfit:?}");
    assert!(format!("{:#}", datadir::lock(whole.path()).err().unwrap()).contains("lock is a FIFO"));
}

#[tokio::test]
async fn a_store_in_use_is_looked_at_all_the_same() {
    let directory = used().await;
    let _lock = datadir::lock(directory.path()).unwrap();
    let (fit, unfit) = said(directory.path());
    assert_eq!(unfit, Vec::<String>::new());
    assert!(fit[0].starts_with("store: in use by a server; ") && fit[0].ends_with(" objects can be read"), "{fit:?}");
    let database = datadir::database(directory.path());
    let mut bytes = fs::read(&database).unwrap();
    let places: Vec<_> = (0..bytes.len() - 11).filter(|&at| &bytes[at..at + 11] == b"kube-public").collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at..at + 11].fill(b'#'));
    fs::write(&database, bytes).unwrap();
    assert!(!is_fit(directory.path()), "{:?}", said(directory.path()));
}

/// Looks at a card that is mounted read-only; passes where no mount can be made.
#[tokio::test]
async fn a_card_that_is_read_only_is_looked_at() {
    let directory = used().await;
    let (path, none) = (directory.path().to_owned(), None::<&str>);
    let look = move || {
        let here = Path::new("/");
        let mounted = unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, here, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| mount(Some(&path), &path, none, MsFlags::MS_BIND, none))
            .and_then(|()| mount(none, &path, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none));
        if let Err(e) = mounted {
            println!("skipped: a mount needs root ({e})");
            return;
        }
        assert!(fs::write(path.join("anything"), "").is_err());
        assert!(is_fit(&path), "{:?}", said(&path));
    };
    std::thread::spawn(look).join().unwrap();
    // Where nobody ever locked it nothing is made, either.
    fs::remove_file(directory.path().join("lock")).unwrap();
    assert!(is_fit(directory.path()));
    assert!(!directory.path().join("lock").exists());
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let dir = tempfile::tempdir().unwrap();
    assert!(findings(dir.path()).is_empty(), "no server has used it");
    let closed = dir.path().join("file");
    fs::write(&closed, "").unwrap();
    assert!(findings(&closed).iter().any(|finding| finding.result.is_err()));
    let problem = unseen("Permission denied").remove(0).result.unwrap_err();
    assert_eq!(problem, "could not be looked at (Permission denied); run it as root");
}
