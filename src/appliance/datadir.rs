//! The data directory: one coracle at a time, and what in it tells that it was used before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::machine;

/// Held for as long as a coracle uses the directory.
pub(crate) struct Lock(#[expect(dead_code, reason = "its drop gives the directory free")] Flock<File>);

/// Takes the directory, or says that another coracle has it.
///
/// # Errors
/// When it is taken, or cannot be made.
pub(crate) fn lock(data_dir: &Path) -> anyhow::Result<Lock> {
    lock_after(data_dir, machine::pause)
}

fn lock_after(data_dir: &Path, pause: impl FnMut()) -> anyhow::Result<Lock> {
    make_private(data_dir)?;
    match machine::wait_for_handover(|| try_lock(data_dir), pause)? {
        Some(lock) => Ok(lock),
        None => bail!("another coracle is running on this directory: {}", data_dir.display()),
    }
}

/// `None` when another process has it.
pub(crate) fn try_lock(data_dir: &Path) -> anyhow::Result<Option<Lock>> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Lock(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// A directory that only root may enter; one that is there is closed.
pub(crate) fn make_private(path: &Path) -> anyhow::Result<()> {
    statefile::make_dir(path).with_context(|| format!("creating the directory {}", path.display()))
}

/// Makes the directories of the server and the node. What an earlier release left open below the server's,
/// keys and objects among it, is closed.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn prepare(data_dir: &Path) -> anyhow::Result<()> {
    for path in ["server", "server/tls", "server/db", "agent"] {
        make_private(&data_dir.join(path))?;
    }
    let server = data_dir.join("server");
    statefile::close_tree(&server).with_context(|| format!("closing the directory {}", server.display()))
}

/// The database of all objects.
pub(crate) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("server/db/state.redb")
}

/// What says, outside the database's own directory, that there is one.
pub(crate) fn store_marker(data_dir: &Path) -> PathBuf {
    data_dir.join("server/store")
}

/// Refuses an empty cluster beside pods: a directory of a version without markers, too, must not take
/// a store that is gone for one that never was.
///
/// # Errors
/// When pods are there and no store.
pub(crate) fn check_store_of(data_dir: &Path) -> anyhow::Result<()> {
    let database = database(data_dir);
    if ["server/store-a", "server/store-b"].iter().any(|marker| data_dir.join(marker).exists()) {
        // The store itself knows better what is missing.
        return Ok(());
    }
    let is_there = std::fs::metadata(&database).is_ok_and(|m| m.len() > 0);
    let pods = data_dir.join("agent/kubelet/pods");
    let has_pods = std::fs::read_dir(&pods).is_ok_and(|mut entries| entries.next().is_some());
    if !is_there && has_pods {
        bail!(
            "the store {} is missing or empty, but {} has pods of a cluster: an empty cluster does not take its \
             place. Put the store or a copy of it there; to begin anew and give all objects up, remove {}",
            database.display(),
            pods.display(),
            data_dir.join("agent").display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_coracle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let first = lock(&path).unwrap();
        let error = lock_after(&path, || ()).err().unwrap().to_string();
        assert!(error.starts_with("another coracle is running on this directory"), "{error}");
        let mut before = Some(first);
        lock_after(&path, || before = None).unwrap();
    }

    #[test]
    fn pods_without_a_store_are_not_a_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let (data, database) = (directory.path(), database(directory.path()));
        check_store_of(data).unwrap();
        std::fs::create_dir_all(data.join("agent/kubelet/pods/u")).unwrap();
        assert!(check_store_of(data).unwrap_err().to_string().contains("missing or empty"));
        std::fs::create_dir_all(database.parent().unwrap()).unwrap();
        std::fs::write(&database, b"").unwrap();
        assert!(check_store_of(data).is_err());
        std::fs::write(&database, b"x").unwrap();
        check_store_of(data).unwrap();
    }
}
