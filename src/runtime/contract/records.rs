//! What is kept on disk about sandboxes and containers, and where.
//!
//! A form that changes gets the next version and a golden file in `golden`; the files of earlier
//! versions stay there and stay readable (ADR 6).
//!
//! Below the data directory lies what has to survive a reboot: configurations, exit codes, the
//! containers' own layers. Below the run directory, on a tmpfs, lies what only lives with the
//! kernel: sockets, mount points, libcontainer's state.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durable::Record;
use crate::image::config::ProcessDefaults;
use crate::types::{ContainerConfig, LogLimit, SandboxConfig};

/// `sandbox.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub config: SandboxConfig,
    pub created_at_ns: i64,
    pub log_limit: LogLimit,
}

impl Record for SandboxRecord {
    const VERSION: u32 = 1;
}

/// `container.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox_uid: String,
    pub config: ContainerConfig,
    pub created_at_ns: i64,
    /// Where the image's layers are, and their names there, the lowest first.
    pub layer_dir: PathBuf,
    pub layers: Vec<String>,
    pub defaults: ProcessDefaults,
    /// Without environment and command line: they may hold values of Secrets, and are only in the copy
    /// below the run directory, which the start takes away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
}

impl ContainerRecord {
    /// What may rest on the disk.
    pub(crate) fn bare(&self) -> Self {
        let mut bare = Self { bare: true, ..self.clone() };
        bare.config.env.clear();
        bare.config.command.clear();
        bare.config.args.clear();
        bare
    }
}

/// The second version knows the image's volumes.
impl Record for ContainerRecord {
    const VERSION: u32 = 2;
}

/// `exit.json`: how a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Absent when it never ran.
    pub started_at_ns: Option<i64>,
    pub finished_at_ns: i64,
    /// 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Why it never ran.
    pub error: Option<String>,
}

impl Record for Exit {
    const VERSION: u32 = 1;
}

/// `stopping.json`, below the run directory of a pod or a container: it is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopping {
    /// When it was asked first, on the clock that the kernel starts with.
    pub since: Duration,
}

impl Stopping {
    pub(crate) const FILE: &str = "stopping.json";
}

impl Record for Stopping {
    const VERSION: u32 = 1;
}

/// `verdict.json`: the pod is to end, and the kubelet's own words on why. It outlives the run directory, because
/// how the pod ended is told after its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxVerdict {
    pub words: String,
}

impl Record for SandboxVerdict {
    const VERSION: u32 = 1;
}

/// The files of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct SandboxPaths {
    pub data: PathBuf,
    pub run: PathBuf,
}

impl SandboxPaths {
    pub(crate) fn record(&self) -> PathBuf {
        self.data.join("sandbox.json")
    }

    pub(crate) fn verdict(&self) -> PathBuf {
        self.data.join("verdict.json")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("shim.sock")
    }

    pub(crate) fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }

    /// libcontainer's root: it keeps a directory per container there.
    pub(crate) fn state_root(&self) -> PathBuf {
        self.run.join("state")
    }

    pub(crate) fn container(&self, id: &str) -> ContainerPaths {
        ContainerPaths { data: self.data.join(id), run: self.run.join("containers").join(id) }
    }
}

/// The files of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPaths {
    pub data: PathBuf,
    pub run: PathBuf,
}

impl ContainerPaths {
    pub(crate) fn record(&self) -> PathBuf {
        self.data.join("container.json")
    }

    /// The whole record, until the container is started.
    pub(crate) fn start_record(&self) -> PathBuf {
        self.run.join("container.json")
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.data.join("exit.json")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.data.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.data.join("work")
    }

    /// Of the image's own volumes, by number.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// The OCI bundle: the generated specification.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// Where the root is mounted, seen only in the container's own mount namespace.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.run.join("rootfs")
    }

    /// What an exec needs to know of the container's start.
    pub(crate) fn launch(&self) -> PathBuf {
        self.run.join("launch.json")
    }
}

/// A container's cgroup, relative to each hierarchy's root.
pub(crate) fn cgroup_path(sandbox: &SandboxConfig, id: &str) -> String {
    format!("/{}/{id}", sandbox.cgroup_parent.trim_matches('/'))
}
