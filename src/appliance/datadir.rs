//! The data directory: one coracle at a time, and what in it tells that it was used before.
//!
//! A cluster is its authority and its store, and neither is made anew where there was one. So a first start says
//! that it is one, in a file that is there before anything else and goes when both are complete: whatever the plug
//! leaves of a first start, the next one goes on with it. Without that file each thing that is there is proof of those
//! that are not.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::exit::Final;
use crate::{machine, pki};

const LOCK: &str = "lock";
const FIRST_START: &str = "first-start";
const FIRST_START_TEXT: &[u8] =
    b"As long as this file is here, a start makes the certificate authority and the store if they are missing.\n";

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
fn try_lock(data_dir: &Path) -> anyhow::Result<Option<Lock>> {
    let path = data_dir.join(LOCK);
    take(&path, statefile::open_or_make(&path))
}

/// Whether a server uses the directory, found out without a write: a card may be read-only.
pub(crate) enum Use {
    /// Nobody does, or can while this is held. There is nothing to hold where no server has ever been.
    Free(#[expect(dead_code, reason = "its drop gives the directory free")] Option<Lock>),
    Taken,
}

/// # Errors
/// When the file system does not say.
pub(crate) fn look_at_use(data_dir: &Path) -> anyhow::Result<Use> {
    let path = data_dir.join(LOCK);
    match statefile::open_file(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Use::Free(None)),
        file => Ok(take(&path, file)?.map_or(Use::Taken, |lock| Use::Free(Some(lock)))),
    }
}

fn take(path: &Path, file: std::io::Result<File>) -> anyhow::Result<Option<Lock>> {
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

/// The directory of certificates and keys.
pub(crate) fn tls(data_dir: &Path) -> PathBuf {
    data_dir.join("server/tls")
}

/// What a start may do about an authority and a store that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It makes them: nothing was here, or no first start has come to its end, or somebody wants it so.
    First,
    /// It does not.
    Later,
}

/// What must not be lost, and is. It is never made anew on our own account.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error(
        "the store {} is missing or empty, but {} is of a cluster that had one: an empty cluster does not take its \
         place. Put the store or a copy of it there; to begin anew and give all objects up, create the empty file {}",
        database.display(), proof.display(), first_start.display()
    )]
    Store { database: PathBuf, proof: PathBuf, first_start: PathBuf },
    #[error(
        "{} is missing, without which no certificate can be issued, but {} is of a cluster that had it. Put it and \
         ca.crt back; to go on with a new authority, which none of the kubeconfigs and certificates of this cluster \
         know, create the empty file {}",
        key.display(), proof.display(), first_start.display()
    )]
    Authority { key: PathBuf, proof: PathBuf, first_start: PathBuf },
}

/// What lies in a data directory, as far as it tells what was here before.
#[derive(Debug)]
pub(crate) struct Found {
    data_dir: PathBuf,
    /// A first start has not come to its end.
    pub(crate) first_start: bool,
    pub(crate) authority: bool,
    /// Something that an authority has made.
    made_by_authority: Option<PathBuf>,
    pub(crate) database: bool,
    /// What says outside the database that there is one. The store itself knows what is missing then.
    pub(crate) marker: Option<PathBuf>,
    pods: Option<PathBuf>,
}

impl Found {
    /// # Errors
    /// When the file system does not say what is there.
    pub(crate) fn look(data_dir: &Path) -> anyhow::Result<Self> {
        let remains = pki::remains(&tls(data_dir))?;
        let mut marker = None;
        for name in ["server/store-a", "server/store-b"] {
            let path = data_dir.join(name);
            if marker.is_none() && is_there(&path)? {
                marker = Some(path);
            }
        }
        Ok(Self {
            data_dir: data_dir.to_owned(),
            first_start: is_there(&data_dir.join(FIRST_START))?,
            authority: remains.key,
            made_by_authority: remains.other,
            database: has_content(&database(data_dir))?,
            marker,
            pods: pods(data_dir)?,
        })
    }

    /// What must not be lost, and is.
    pub(crate) fn missing(&self) -> Vec<Missing> {
        if self.first_start {
            return Vec::new();
        }
        let (key, database) = (tls(&self.data_dir).join("ca.key"), database(&self.data_dir));
        let first_start = self.data_dir.join(FIRST_START);
        let by_authority = self.made_by_authority.clone().or_else(|| self.authority.then(|| key.clone()));
        let of_store = self.marker.clone().or_else(|| self.database.then(|| database.clone()));
        let mut missing = Vec::new();
        if !self.database && self.marker.is_none() {
            let proof = self.pods.clone().or(by_authority.clone());
            missing.extend(proof.map(|proof| Missing::Store { database, proof, first_start: first_start.clone() }));
        }
        if !self.authority {
            let proof = self.made_by_authority.clone().or(of_store).or(self.pods.clone());
            missing.extend(proof.map(|proof| Missing::Authority { key, proof, first_start }));
        }
        missing
    }

    /// Nothing is here that a start has to take over.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.authority && !self.database && self.marker.is_none() && self.missing().is_empty()
    }
}

/// Tells a first start from a later one, and notes that it is one before it makes anything.
///
/// # Errors
/// When something is missing that was here.
pub(crate) fn begin(data_dir: &Path) -> anyhow::Result<Start> {
    let found = Found::look(data_dir)?;
    if let Some(missing) = found.missing().into_iter().next() {
        return Err(Final(missing.into()).into());
    }
    if found.first_start {
        return Ok(Start::First);
    }
    if !found.is_nothing() {
        return Ok(Start::Later);
    }
    pki::write_private(&data_dir.join(FIRST_START), FIRST_START_TEXT)?;
    Ok(Start::First)
}

/// From here on authority and store are never made anew.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn end_first_start(data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join(FIRST_START);
    let removed = match std::fs::remove_file(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| File::open(data_dir)?.sync_all()),
    };
    removed.with_context(|| format!("removing {}", path.display()))
}

/// Whether there is anything of this name.
pub(crate) fn is_there(path: &Path) -> anyhow::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true).with_context(|| format!("looking at {}", path.display())),
    }
}

/// A pulled plug or a full disk may leave a file of no bytes.
fn has_content(path: &Path) -> anyhow::Result<bool> {
    let length = statefile::length(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(length.is_some_and(|length| length > 0))
}

/// The directory of pods, if there are any.
fn pods(data_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = data_dir.join("agent/kubelet/pods");
    match std::fs::read_dir(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        entries => {
            let mut entries = entries.with_context(|| format!("looking at {}", path.display()))?;
            Ok(entries.next().is_some().then_some(path))
        }
    }
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

    fn put(data_dir: &Path, name: &str, content: &str) {
        let path = data_dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn what_is_there_is_proof_of_what_is_missing() {
        const FIRST: &[&str] = &[];
        let pods = "agent/kubelet/pods/u/etc-hosts";
        let (key, database) = ("server/tls/ca.key", "server/db/state.redb");
        for (there, missing) in [
            (&[][..], FIRST),
            (&[key, database], FIRST),
            (&[key, database, "server/store-a", pods], FIRST),
            // The store says what is missing of it.
            (&[key, "server/store-b"], FIRST),
            (&[pods], &["state.redb is missing", "ca.key is missing"]),
            (&[key, pods], &["state.redb is missing"]),
            (&[key], &["state.redb is missing"]),
            (&[database], &["ca.key is missing"]),
            (&["server/store-a"], &["ca.key is missing"]),
            (&[database, "server/tls/ca.crt"], &["ca.key is missing"]),
            (&[database, "server/tls/admin.crt"], &["ca.key is missing"]),
            (&["server/tls/kubelet.key"], &["state.redb is missing", "ca.key is missing"]),
            (&["server/tls/service-account.key"], &["state.redb is missing", "ca.key is missing"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            there.iter().for_each(|name| put(directory.path(), name, "x"));
            let found = Found::look(directory.path()).unwrap();
            let said: Vec<String> = found.missing().iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), missing.len(), "{there:?}: {said:?}");
            for (said, word) in said.iter().zip(missing) {
                let said = said.replace(" or empty", "");
                assert!(said.contains(word) && said.contains("first-start"), "{there:?}: {said}");
            }
            let begun = begin(directory.path()).map_err(|e| e.is::<Final>());
            let first = if there.is_empty() { Start::First } else { Start::Later };
            assert_eq!(begun, if missing.is_empty() { Ok(first) } else { Err(true) }, "{there:?}");
            assert_eq!(is_there(&directory.path().join(FIRST_START)).unwrap(), there.is_empty(), "{there:?}");
            // On purpose.
            put(directory.path(), FIRST_START, "");
            assert_eq!(begin(directory.path()).unwrap(), Start::First, "{there:?}");
            end_first_start(directory.path()).unwrap();
            end_first_start(directory.path()).unwrap();
        }
    }

    #[test]
    fn an_empty_store_is_none() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "server/tls/ca.key", "x");
        put(directory.path(), "server/db/state.redb", "");
        assert!(begin(directory.path()).unwrap_err().to_string().contains("state.redb is missing or empty"));
    }
}
