//! What daemon and shim say to each other: JSON in whole packets, descriptors beside them.
//!
//! The first call on a connection is `Hello`; its answer names the version that both speak. A
//! daemon speaks to the shims of the previous release, so a version is only dropped a release after
//! its successor came. `golden` holds what each version says, byte by byte.
//!
//! Version 2 adds `Records`, takes real-time signals, and starts containers from records below the run
//! directory.

use serde::{Deserialize, Serialize};

use crate::contract::records::Exit;
use crate::types::TerminalSize;

pub(crate) const OLDEST_VERSION: u32 = 1;
pub(crate) const NEWEST_VERSION: u32 = 2;
/// The first one that sends signals without a name.
pub(crate) const REAL_TIME_SINCE: u32 = 2;
/// The first one that looks for what it starts below the run directory.
pub(crate) const START_RECORD_SINCE: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Chosen by the daemon; the reply repeats it.
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The versions that the daemon speaks, oldest and newest.
    Hello {
        oldest: u32,
        newest: u32,
    },
    /// All containers that were started.
    State,
    /// The records that the shim holds: they come as a descriptor (see `held`).
    Records,
    /// Makes and starts the process of the container whose record is on disk.
    Start {
        container: String,
    },
    /// Sends a signal to a container's first process, or to a command run in it.
    Signal {
        container: String,
        exec: Option<u64>,
        signal: i32,
    },
    /// Runs a command. Descriptors for the named streams come along in their order, unless there is
    /// a terminal: then the answer brings its master. The end is told as `ExecExited`.
    Exec {
        container: String,
        exec: u64,
        command: Vec<String>,
        tty: bool,
        streams: Streams,
    },
    /// Copies between a container's streams and the descriptors that come along.
    Attach {
        container: String,
        streams: Streams,
    },
    Resize {
        container: String,
        size: TerminalSize,
    },
    /// Forgets a container that has ended.
    Forget {
        container: String,
    },
    /// Ends the shim, and with it the pod's namespaces.
    Shutdown,
}

impl Request {
    /// The first version that knows it; a shim lets go of a daemon that says anything else.
    pub(crate) fn since(&self) -> u32 {
        match self {
            Self::Hello { .. }
            | Self::State
            | Self::Start { .. }
            | Self::Signal { .. }
            | Self::Exec { .. }
            | Self::Attach { .. }
            | Self::Resize { .. }
            | Self::Forget { .. }
            | Self::Shutdown => 1,
            Self::Records => 2,
        }
    }
}

/// Which of a process's streams are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply {
        id: u64,
        result: Result<Answer, Failure>,
    },
    ContainerExited {
        container: String,
        exit: Exit,
    },
    /// Only to the connection that asked for the command.
    ExecExited {
        exec: u64,
        code: i32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Hello {
        version: u32,
    },
    State {
        containers: Vec<ContainerNow>,
    },
    Records,
    Started {
        pid: i32,
        at_ns: i64,
    },
    /// A terminal's master comes along where one was asked for.
    Exec {
        pid: i32,
    },
    Done,
}

/// A container as its shim knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerNow {
    pub id: String,
    pub pid: i32,
    pub started_at_ns: i64,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound,
    NotRunning,
    AlreadyStarted,
    /// No version is common to both.
    Version,
    /// The process could not be made; the text says why.
    Start(String),
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such container",
            Self::NotRunning => "the container is not running",
            Self::AlreadyStarted => "the container is already started",
            Self::Version => "no common version",
            Self::Start(text) | Self::Other(text) => text,
        })
    }
}
