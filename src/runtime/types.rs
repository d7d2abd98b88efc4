//! The plain types that the kubelet and the runtime exchange: what CRI covers, without gRPC.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a pod's shim is started with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The pod's UID; it names the sandbox.
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub hostname: String,
    /// Kubernetes labels that a listing gives back.
    pub labels: BTreeMap<String, String>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// One pid namespace for all containers (`shareProcessNamespace`).
    pub share_pid: bool,
    pub sysctls: BTreeMap<String, String>,
    /// The pod's cgroup, relative to each hierarchy's root, e.g. `kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Limits of the pod's own cgroup.
    pub resources: Resources,
    /// Where container logs go: `/var/log/pods/<ns>_<name>_<uid>`.
    pub log_dir: PathBuf,
}

/// cgroup settings; absent means unlimited or the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// In v1's scale (2-262144); translated for v2.
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    pub hugepage_limits: BTreeMap<String, u64>,
}

/// A bind mount into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub read_only: bool,
    /// What is mounted below it is read-only too.
    #[serde(default)]
    pub recursive_read_only: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// Seccomp as a pod asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// An absolute path below the kubelet's seccomp directory.
    Localhost(PathBuf),
}

/// Who a container's process runs as.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Security {
    pub privileged: bool,
    /// Numeric user; absent means the image's `USER`.
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: the image's /etc/group adds none.
    pub strict_supplemental_groups: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub read_only_rootfs: bool,
    pub seccomp: Seccomp,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
}

/// What one container is made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name in the pod.
    pub name: String,
    /// How often this container was started before.
    pub attempt: u32,
    /// The image as the pod names it; only given back in the status.
    pub image: String,
    /// The image's id (digest of its configuration), as `ImageStatus` gives it.
    pub image_id: String,
    /// Entrypoint override; empty means the image's.
    pub command: Vec<String>,
    /// Arguments override; with both empty the image's `CMD` is used, as upstream does.
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    /// Later entries win over the image's and over earlier ones.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    /// The container of this pod whose processes this one sees, in its pid namespace.
    #[serde(default)]
    pub processes_of: Option<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub security: Security,
    pub resources: Resources,
    pub oom_score_adj: i32,
    /// `<log_dir>/<container>/<attempt>.log`, in the CRI format.
    pub log_path: PathBuf,
    /// Signal that stops the container when neither pod nor image names one: SIGTERM.
    pub stop_signal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    /// Its shim has gone: stopped, killed or lost in a reboot.
    NotReady,
    /// Something of it may run, but nobody can say what: it is left alone.
    Unknown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub state: SandboxState,
    pub created_at_ns: i64,
    pub shim_pid: u32,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    /// The shim died before it could say how the container ended.
    Unknown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// 64 hex digits, unique over the life of the node.
    pub id: String,
    pub sandbox_uid: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub pid: Option<u32>,
    /// The image as the kubelet asked for it, and its id.
    pub image: String,
    pub image_id: String,
    pub created_at_ns: i64,
    pub started_at_ns: Option<i64>,
    pub finished_at_ns: Option<i64>,
    /// 128 + signal when a signal ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Why it could not be created or started, in the runtime's words.
    pub error: Option<String>,
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// `docker.io/library/nginx:alpine` and the like.
    pub tags: Vec<String>,
    /// `docker.io/library/nginx@sha256:…`.
    pub digests: Vec<String>,
    pub size_bytes: u64,
    /// Numeric user of the image, when it names one by number.
    pub uid: Option<u32>,
    /// User of the image, when it names one that is not a number.
    pub username: Option<String>,
    /// The image's `StopSignal`.
    pub stop_signal: Option<String>,
}

/// Credentials for one pull.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
    /// A bearer token used instead of name and password.
    pub identity_token: Option<String>,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Something happened to a container or a sandbox; the receiver asks for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    ContainerStarted {
        sandbox_uid: String,
        container_id: String,
    },
    ContainerExited {
        sandbox_uid: String,
        container_id: String,
    },
    SandboxGone {
        sandbox_uid: String,
    },
    /// Events were dropped because nobody read them; list everything again.
    Lagged,
}

/// Resource use at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub timestamp_ns: i64,
    pub cpu_usage_ns: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    /// Anonymous memory.
    pub memory_rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// Absent where the kernel does not count swap by cgroup.
    pub swap_usage_bytes: Option<u64>,
    pub pids: u64,
}

/// When a container's log file is put aside, and how many files are kept in all.
///
/// `0.log` is the current one, `0.log.1` the one before it, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimit {
    pub max_bytes: u64,
    pub max_files: u32,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// A command to run in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    /// Never with a terminal, which has only one output.
    pub stderr: bool,
}

/// Which streams of a running container to connect to.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What a command printed and returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// How full the images' file system is, for garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    /// What the images themselves take.
    pub used_bytes: u64,
}
