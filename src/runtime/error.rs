//! What can go wrong between the kubelet and a container, named by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failed runtime operation. The text is what a user sees in an Event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sandbox {0:?} not found")]
    SandboxNotFound(String),
    #[error("container {0:?} not found")]
    ContainerNotFound(String),
    #[error("image {0:?} not found")]
    ImageNotFound(String),
    /// The pod's shim is gone; the pod has to be made anew.
    #[error("sandbox {0:?} is not ready")]
    SandboxNotReady(String),
    #[error("container {0:?} is not running")]
    NotRunning(String),
    #[error("container {0:?} is already started")]
    AlreadyStarted(String),
    /// The configuration can never work as it stands, e.g. `no command specified`.
    #[error("{0}")]
    Invalid(String),
    /// The container's process could not be made, e.g. because the command is not in the image.
    #[error("{0}")]
    Start(String),
    #[error("command '{}' timed out", command.join(" "))]
    ExecTimeout { command: Vec<String> },
    #[error("container {0:?} did not end in time")]
    StopTimeout(String),
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("read {}: {source}", path.display())]
    Record { path: PathBuf, source: statefile::Damage },
    #[error(
        "{} is of version {found}, written by a newer coracle; this one knows versions up to {known} and leaves \
         everything as it is",
        path.display()
    )]
    NewerRecord { path: PathBuf, found: u32, known: u32 },
    /// Its processes may run, but what it is cannot be found out: it is left alone.
    #[error("sandbox {uid:?} is left alone: {reason}")]
    SandboxUnknown { uid: String, reason: String },
    #[error("the shim of sandbox {uid:?}: {message}")]
    Shim { uid: String, message: String },
    #[error(transparent)]
    Disk(#[from] crate::DiskError),
    #[error(transparent)]
    Image(#[from] crate::PullError),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the path and the attempt that an I/O error belongs to.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(io::Error::from).at(action, path)
    }
}
