//! The cgroups of pods and their containers, on v1 (also hybrid) and v2 alike.
//!
//! Paths are relative to each hierarchy's root, e.g. `kubepods/burstable/pod<uid>/<container>`.
//! libcontainer makes the containers' own cgroups; this module makes their parents, changes limits
//! in place, reads use and out-of-memory kills, and removes what is left.

mod devices;
mod limits;
mod usage;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use crate::error::{Error, IoContext, Result};
use crate::types::{Resources, Stats};

const ROOT: &str = "/sys/fs/cgroup";
/// v1 hierarchies that hold a pod's limits and counters.
const V1_CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "hugetlb"];
/// v1 controllers that libcontainer puts containers into, by the names of their hierarchies.
const V1_CONTAINER_CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];
/// Where a nested v2 root's own processes go, as its inner nodes may hold none.
const V2_LEAF: &str = "init";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Also hybrid: its v2 hierarchy has no controllers.
    V1,
    V2,
}

#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    version: Version,
    root: PathBuf,
}

impl Cgroups {
    pub(crate) fn detect() -> Result<Self> {
        let root = PathBuf::from(ROOT);
        let kind = statfs(&root).at("inspect", &root)?.filesystem_type();
        let version = if kind == CGROUP2_SUPER_MAGIC { Version::V2 } else { Version::V1 };
        Ok(Self { version, root })
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Makes a v2 root that is itself somebody's child cgroup able to delegate controllers: its
    /// processes (a container's init, this daemon) move into a leaf.
    pub(crate) fn prepare(&self) -> Result<()> {
        // Only a non-root cgroup has a type.
        if self.version == Version::V1 || !self.root.join("cgroup.type").exists() {
            return Ok(());
        }
        let leaf = self.root.join(V2_LEAF);
        create_dir(&leaf)?;
        for pid in processes(&self.root)? {
            match fs::write(leaf.join("cgroup.procs"), pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).at("move processes to", &leaf);
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The directories of one cgroup, one a hierarchy on v1.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        match self.version {
            Version::V2 => vec![self.root.join(path)],
            Version::V1 => self.v1_hierarchies().into_iter().map(|hierarchy| hierarchy.join(path)).collect(),
        }
    }

    /// The v1 hierarchies that hold containers, under their directories' names.
    pub(crate) fn v1_hierarchies(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.root).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| vec![]);
        let mut found = entries
            .into_iter()
            .map(|entry| entry.path())
            // `cpu` is often a link to `cpu,cpuacct`.
            .filter(|path| !path.is_symlink() && path.join("tasks").exists() && holds_containers(path))
            .collect::<Vec<_>>();
        found.sort();
        found
    }

    fn v1(&self, controller: &str, path: &str) -> PathBuf {
        self.root.join(controller).join(path.trim_start_matches('/'))
    }

    /// Makes a cgroup with its parents and sets its limits; one that exists is updated.
    pub(crate) fn create(&self, path: &str, resources: &Resources) -> Result<()> {
        match self.version {
            Version::V1 => {
                for controller in V1_CONTROLLERS {
                    if self.root.join(controller).exists() {
                        let dir = self.v1(controller, path);
                        fs::create_dir_all(&dir).at("create", &dir)?;
                    }
                }
            }
            Version::V2 => {
                let mut dir = self.root.clone();
                delegate(&dir);
                for part in Path::new(path.trim_start_matches('/')) {
                    dir.push(part);
                    create_dir(&dir)?;
                    delegate(&dir);
                }
            }
        }
        self.update(path, resources)
    }

    /// Changes limits in place; absent ones stay as they are.
    pub(crate) fn update(&self, path: &str, resources: &Resources) -> Result<()> {
        for (file, value) in limits::settings(self.version, resources) {
            let target = match self.version {
                Version::V1 => self.v1(file.controller, path).join(&file.name),
                Version::V2 => self.root.join(path.trim_start_matches('/')).join(&file.name),
            };
            fs::write(&target, value).at("write", &target)?;
        }
        Ok(())
    }

    /// What the processes of one cgroup use.
    pub(crate) fn stats(&self, path: &str, now_ns: i64) -> Result<Stats> {
        match self.version {
            Version::V1 => {
                usage::v1(&self.v1("cpuacct", path), &self.v1("memory", path), &self.v1("pids", path), now_ns)
            }
            Version::V2 => usage::v2(&self.root.join(path.trim_start_matches('/')), now_ns),
        }
    }

    /// How many processes of this cgroup the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let file = match self.version {
            Version::V1 => self.v1("memory", path).join("memory.oom_control"),
            Version::V2 => self.root.join(path.trim_start_matches('/')).join("memory.events"),
        };
        fs::read_to_string(file).ok().and_then(|text| usage::keyed(&text, "oom_kill")).unwrap_or(0)
    }

    /// Completes a container's cgroup, which libcontainer has made, before its program runs.
    pub(crate) fn confine(&self, path: &str, resources: &Resources, privileged: bool) -> Result<()> {
        self.update(path, resources)?;
        if self.version == Version::V2 {
            let dir = self.root.join(path.trim_start_matches('/'));
            // As the kubelet asks of every runtime: no swap, and a container dies of an
            // out-of-memory kill as a whole. Kernels without swap accounting lack the first file.
            let _ = fs::write(dir.join("memory.swap.max"), "0");
            let _ = fs::write(dir.join("memory.oom.group"), "1");
        }
        if privileged {
            return Ok(());
        }
        match self.version {
            Version::V1 => devices::restrict_v1(&self.v1("devices", path)),
            Version::V2 => devices::restrict_v2(&self.root.join(path.trim_start_matches('/'))),
        }
    }

    /// Sends `signal` to all processes in and below a cgroup; without one, to nobody.
    pub(crate) fn signal_all(&self, path: &str, signal: Signal) -> Result<()> {
        refuse_root(path)?;
        let dirs = self.directories(path);
        if self.version == Version::V2 && signal == Signal::SIGKILL {
            let file = dirs[0].join("cgroup.kill");
            if fs::write(&file, "1").is_ok() {
                return Ok(());
            }
        }
        for dir in dirs {
            for pid in processes_below(&dir)? {
                // It may have ended since the list was read.
                let _ = kill(pid, signal);
            }
        }
        Ok(())
    }

    /// Kills what still runs in a cgroup and removes it with everything below; idempotent.
    ///
    /// Blocks for up to a second while killed processes leave.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        refuse_root(path)?;
        for dir in self.directories(path) {
            remove_dir(&dir)?;
        }
        Ok(())
    }
}

/// A name that was lost must not stand for all processes of the machine.
fn refuse_root(path: &str) -> Result<()> {
    if path.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(Error::Invalid("the root cgroup is no pod's".to_owned()));
    }
    Ok(())
}

fn holds_containers(hierarchy: &Path) -> bool {
    let name = hierarchy.file_name().and_then(|name| name.to_str()).unwrap_or("");
    name.split(',').any(|controller| V1_CONTAINER_CONTROLLERS.contains(&controller))
}

fn create_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).at("create", dir),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Hands every controller that `dir` has to its children. One by one, because a controller that
/// cannot be enabled (v1 has it, or processes are in the way) must not take the others with it: a
/// limit that needs it fails when it is set.
fn delegate(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_else(|_| String::new());
    for controller in controllers.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn processes(dir: &Path) -> Result<Vec<Pid>> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()),
        Err(error) if gone(&error) => Ok(vec![]),
        Err(error) => Err(error).at("read", &file),
    }
}

fn processes_below(dir: &Path) -> Result<Vec<Pid>> {
    let mut pids = processes(dir)?;
    for child in children(dir) {
        pids.extend(processes_below(&child)?);
    }
    Ok(pids)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// A killed process leaves its cgroup a moment after the signal.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

#[expect(clippy::disallowed_methods, reason = "the kernel gives no event for an emptied v1 cgroup")]
fn remove_dir(dir: &Path) -> Result<()> {
    for child in children(dir) {
        remove_dir(&child)?;
    }
    for attempt in 1.. {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_ATTEMPTS => {
                for pid in processes(dir)? {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(error) => return Err(error).at("remove", dir),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
