//! The OCI runtime specification of one container, as a pure function of its configuration.
//!
//! A container is started from inside its pod's network, IPC and UTS namespaces (the shim lives in
//! them), so the specification names only the namespaces that are its own. Limits and device rules
//! are set through `cgroup`, not here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::capabilities::{Available, during_set_up, granted};
pub(crate) use super::environment::command_line;
use super::environment::{Identity, environment};
use super::mounts::{CgroupView, MASKED_PATHS, OciMount, READ_ONLY_PATHS, mounts, propagation};
use super::user::User;
use crate::cgroup::Version;
use crate::contract::records::ContainerRecord;
use crate::error::Result;
use crate::types::{ContainerConfig, Propagation};

/// Soft and hard limit of open files, as systemd gives them to services.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// What the container is put into.
pub(crate) struct Surroundings<'a> {
    pub rootfs: &'a Path,
    pub shm: &'a Path,
    pub hostname: &'a str,
    pub pid_namespace: PidNamespace<'a>,
    pub cgroup_version: Version,
    pub v1_hierarchies: &'a [PathBuf],
    pub cgroup_path: &'a str,
    pub user: &'a User,
    pub available: Available,
    /// The most open files that this process may allow.
    pub open_files_max: u64,
    /// Device nodes of the host, for a privileged container.
    pub host_devices: Vec<Device>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PidNamespace<'a> {
    Own,
    Pod(&'a Path),
    Host,
}

/// A specification and what has to be done beside it.
pub(crate) struct Plan {
    pub spec: Spec,
    /// What the process keeps once it is set up; the specification holds more.
    pub capabilities: Vec<String>,
    pub propagation: Vec<(PathBuf, Propagation)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    oci_version: &'static str,
    pub process: Process,
    root: Root,
    mounts: Vec<OciMount>,
    linux: Linux,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    terminal: bool,
    user: OciUser,
    pub args: Vec<String>,
    env: Vec<String>,
    pub cwd: PathBuf,
    capabilities: CapabilitySets,
    rlimits: [Rlimit; 1],
    /// Left out unless true: its mere presence changes when libcontainer sets up seccomp.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_new_privileges: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OciUser {
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
}

/// Inheritable and ambient sets stay empty: a program gets what its user and file grant.
#[derive(Debug, Serialize)]
struct CapabilitySets {
    bounding: Vec<String>,
    effective: Vec<String>,
    permitted: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: &'static str,
    soft: u64,
    hard: u64,
}

#[derive(Debug, Serialize)]
struct Root {
    path: PathBuf,
    readonly: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: String,
    rootfs_propagation: &'static str,
    masked_paths: Vec<&'static str>,
    readonly_paths: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

/// A device node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub major: i64,
    pub minor: i64,
    pub file_mode: u32,
    pub uid: u32,
    pub gid: u32,
}

pub(crate) fn plan(record: &ContainerRecord, around: Surroundings<'_>) -> Result<Plan> {
    let config = &record.config;
    let capabilities = granted(&config.security, around.available)?;
    let (tree, propagation) = propagation(&config.mounts);
    let process = process(record, &around, &capabilities)?;
    let view = match around.cgroup_version {
        Version::V2 => CgroupView::V2,
        Version::V1 => CgroupView::V1 { hierarchies: around.v1_hierarchies, path: around.cgroup_path },
    };
    let privileged = config.security.privileged;
    let mut readonly_paths = hidden(config, &READ_ONLY_PATHS);
    if around.cgroup_version == Version::V1 && !privileged {
        // The tmpfs that the hierarchies are mounted on.
        readonly_paths.push("/sys/fs/cgroup");
    }
    let spec = Spec {
        oci_version: "1.0.2",
        process,
        root: Root { path: around.rootfs.to_owned(), readonly: config.security.read_only_rootfs },
        mounts: mounts(&config.mounts, privileged, around.shm, &view),
        linux: Linux {
            namespaces: namespaces(&around),
            cgroups_path: around.cgroup_path.to_owned(),
            rootfs_propagation: match tree {
                Propagation::Private => "private",
                Propagation::HostToContainer => "slave",
                Propagation::Bidirectional => "shared",
            },
            masked_paths: hidden(config, &MASKED_PATHS),
            readonly_paths,
            devices: around.host_devices,
        },
    };
    Ok(Plan { spec, capabilities, propagation })
}

fn hidden(config: &ContainerConfig, paths: &[&'static str]) -> Vec<&'static str> {
    if config.security.privileged || config.security.unmasked_proc { vec![] } else { paths.to_vec() }
}

fn process(record: &ContainerRecord, around: &Surroundings<'_>, capabilities: &[String]) -> Result<Process> {
    let config = &record.config;
    let during = during_set_up(capabilities);
    Ok(Process {
        terminal: config.tty,
        user: OciUser { uid: around.user.uid, gid: around.user.gid, additional_gids: around.user.groups.clone() },
        args: command_line(config, &record.defaults)?,
        env: environment(config, &record.defaults, &Identity { hostname: around.hostname, home: &around.user.home }),
        cwd: working_dir(record),
        capabilities: CapabilitySets { bounding: during.clone(), effective: during.clone(), permitted: during },
        rlimits: [Rlimit {
            kind: "RLIMIT_NOFILE",
            soft: OPEN_FILES.0.min(around.open_files_max),
            hard: OPEN_FILES.1.min(around.open_files_max),
        }],
        no_new_privileges: config.security.no_new_privileges.then_some(true),
    })
}

/// The pod's working directory, else the image's, else the root.
pub(crate) fn working_dir(record: &ContainerRecord) -> PathBuf {
    let wish = record.config.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let dir = wish.unwrap_or(&record.defaults.working_dir);
    Path::new("/").join(dir)
}

fn namespaces(around: &Surroundings<'_>) -> Vec<Namespace> {
    let own = |kind| Namespace { kind, path: None };
    let mut namespaces = vec![own("mount")];
    match around.pid_namespace {
        PidNamespace::Own => namespaces.push(own("pid")),
        PidNamespace::Pod(path) => namespaces.push(Namespace { kind: "pid", path: Some(path.to_owned()) }),
        PidNamespace::Host => {}
    }
    if around.cgroup_version == Version::V2 {
        namespaces.push(own("cgroup"));
    }
    namespaces
}

#[cfg(test)]
mod tests;
