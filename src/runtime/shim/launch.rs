//! Makes a container: runs in a child of the shim, which ends when the container is started.
//!
//! The child has a mount namespace of its own, in which it mounts the container's root; the
//! container's namespace is a copy of it, and nothing is left behind in the host's.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::LinuxCapabilities;
use serde::{Deserialize, Serialize};

use super::executor::Launcher;
use super::{destinations, volumes};
use crate::cgroup::{Cgroups, Version};
use crate::contract::records::{ContainerPaths, ContainerRecord, SandboxPaths, cgroup_path};
use crate::durable::{self, Durability, Record};
use crate::error::{Error, IoContext, Result};
use crate::oci::capabilities::Available;
use crate::oci::spec::{self, Device, PidNamespace, Plan, Surroundings};
use crate::oci::user::Accounts;
use crate::sys::mount::Overlay;
use crate::sys::{mount, packet, rootdir::RootDir};
use crate::types::SandboxConfig;

/// The pod that a container belongs to.
pub(super) struct Pod<'a> {
    pub config: &'a SandboxConfig,
    pub paths: &'a SandboxPaths,
    pub cgroups: &'a Cgroups,
    pub pid_namespace: Option<&'a Path>,
}

/// The container's ends of its pipes; none with a terminal.
#[derive(Default)]
pub(super) struct Stdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    pub(super) fn raw(&self) -> impl Iterator<Item = i32> {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd)
    }

    pub(super) fn apply(self, mut builder: ContainerBuilder) -> Result<ContainerBuilder> {
        let null = || fs::File::options().read(true).write(true).open("/dev/null").at("open", Path::new("/dev/null"));
        builder = builder.with_stdin(self.stdin.map_or_else(|| null().map(OwnedFd::from), Ok)?);
        builder = builder.with_stdout(self.stdout.map_or_else(|| null().map(OwnedFd::from), Ok)?);
        Ok(builder.with_stderr(self.stderr.map_or_else(|| null().map(OwnedFd::from), Ok)?))
    }
}

pub(super) struct Launched {
    pub pid: i32,
    /// The terminal's master, where the container has one.
    pub terminal: Option<OwnedFd>,
}

/// `launch.json`: what later commands need to know.
#[derive(Serialize, Deserialize)]
pub(super) struct Launch {
    pub capabilities: Vec<String>,
}

impl Record for Launch {
    const VERSION: u32 = 1;
}

pub(super) fn launch(pod: &Pod<'_>, record: &ContainerRecord, stdio: Stdio) -> Result<Launched> {
    let paths = pod.paths.container(&record.id);
    let cgroup = cgroup_path(pod.config, &record.id);
    mount_root(record, &paths)?;
    let mut placed = record.clone();
    // As if the pod had asked for them.
    placed.config.mounts.extend(volumes::make(record, &paths)?);
    placed.config.mounts = destinations::resolve(placed.config.mounts, &paths.rootfs())?;
    let record = &placed;
    create_working_dir(record, &paths.rootfs())?;
    let plan = plan(pod, record, &paths, &cgroup)?;
    let launcher = launcher(record, &plan)?;
    write_bundle(&paths, &plan)?;
    let mut builder = ContainerBuilder::new(record.id.clone(), SyscallType::default())
        .with_root_path(pod.paths.state_root())
        .map_err(|error| start_error(&error))?
        .with_executor(launcher);
    let console = record.config.tty.then(|| Console::listen(&paths.run)).transpose()?;
    match &console {
        Some(console) => builder = builder.with_console_socket(Some(&console.path)),
        None => builder = stdio.apply(builder)?,
    }
    let built = builder.as_init(paths.bundle()).with_systemd(false).with_detach(true).build();
    let mut container = built.map_err(|error| start_error(&error))?;
    let outcome = finish(&mut container, console, record.config.oom_score_adj, || {
        pod.cgroups.confine(&cgroup, &record.config.resources, record.config.security.privileged)
    });
    if outcome.is_err() {
        // The process waits for a start that will not come.
        let _ = container.delete(true);
    }
    outcome
}

/// Confines the waiting process, then lets it run.
fn finish(
    container: &mut Container,
    console: Option<Console>,
    oom_score: i32,
    confine: impl FnOnce() -> Result<()>,
) -> Result<Launched> {
    confine()?;
    let terminal = console.map(Console::receive).transpose()?;
    let pid = container.pid().ok_or_else(|| Error::Start("the container has no process".to_owned()))?;
    set_oom_score(&pid.to_string(), oom_score);
    container.start().map_err(|error| start_error(&error))?;
    Ok(Launched { pid: pid.as_raw(), terminal })
}

/// In libcontainer's words, without the wrapping that says nothing.
pub(super) fn start_error(error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    let inner = text.split_once("error in executing process : ").map(|(_, inner)| inner.to_owned());
    let text = inner.map(|inner| format!("error during container init: {inner}")).unwrap_or(text);
    Error::Start(format!("unable to start container process: {text}"))
}

/// Lowering it takes a capability that the node may lack; then the process keeps the shim's.
pub(super) fn set_oom_score(process: &str, score: i32) {
    let _ = fs::write(Path::new("/proc").join(process).join("oom_score_adj"), score.to_string());
}

fn mount_root(record: &ContainerRecord, paths: &ContainerPaths) -> Result<()> {
    let rootfs = paths.rootfs();
    for dir in [&rootfs, &paths.bundle(), &paths.upper(), &paths.work()] {
        fs::create_dir_all(dir).at("create", dir)?;
    }
    unshare(CloneFlags::CLONE_NEWNS).at("make a mount namespace for", &rootfs)?;
    let overlay =
        Overlay { layer_dir: &record.layer_dir, layers: &record.layers, upper: &paths.upper(), work: &paths.work() };
    overlay.mount(&rootfs).at("mount the container's root at", &rootfs)
}

/// A missing working directory is made, also inside a volume, unless that is read-only.
fn create_working_dir(record: &ContainerRecord, rootfs: &Path) -> Result<()> {
    let dir = spec::working_dir(record);
    let volume = record
        .config
        .mounts
        .iter()
        .filter(|mount| dir.starts_with(&mount.container_path) && mount.host_path.is_dir())
        .max_by_key(|mount| mount.container_path.components().count());
    let (root, below, read_only) = match volume {
        Some(mount) => {
            let below = dir.strip_prefix(&mount.container_path).unwrap_or(&dir);
            (mount.host_path.as_path(), below, mount.read_only)
        }
        None => (rootfs, dir.strip_prefix("/").unwrap_or(&dir), false),
    };
    if below.as_os_str().is_empty() {
        return Ok(());
    }
    let made = RootDir::open(root).and_then(|root| root.dir(below, !read_only).map(drop));
    if read_only && made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Err(Error::Start(format!("mkdir {}: read-only file system", dir.display())));
    }
    made.map_err(|error| Error::Start(format!("mkdir {}: {error}", dir.display())))
}

fn plan(pod: &Pod<'_>, record: &ContainerRecord, paths: &ContainerPaths, cgroup: &str) -> Result<Plan> {
    let user = Accounts::read(&paths.rootfs())?.resolve(&record.config.security, &record.defaults.user)?;
    let pid_namespace = match pod.pid_namespace {
        _ if pod.config.host_pid => PidNamespace::Host,
        Some(path) => PidNamespace::Pod(path),
        None => PidNamespace::Own,
    };
    let hierarchies = match pod.cgroups.version() {
        Version::V1 => pod.cgroups.v1_hierarchies(),
        Version::V2 => vec![],
    };
    let (_, open_files_max) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| Error::Start(error.to_string()))?;
    let hostname = if pod.config.host_network { host_name() } else { pod.config.hostname.clone() };
    let shm = if pod.config.host_ipc { PathBuf::from("/dev/shm") } else { pod.paths.shm() };
    let host_devices = if record.config.security.privileged { host_devices(Path::new("/dev")) } else { vec![] };
    // A container that is given the host's whole /dev gets it last, see `launcher`.
    let mut record = record.clone();
    record.config.mounts.retain(|mount| mount.container_path != Path::new("/dev"));
    let around = Surroundings {
        rootfs: &paths.rootfs(),
        shm: &shm,
        hostname: &hostname,
        pid_namespace,
        cgroup_version: pod.cgroups.version(),
        v1_hierarchies: &hierarchies,
        cgroup_path: cgroup,
        user: &user,
        available: Available::of_this_process(),
        open_files_max,
        host_devices,
    };
    spec::plan(&record, around)
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// libcontainer fills `/dev` with nodes and links and fails where they exist, so a volume for `/dev`
/// itself is moved over the finished one.
fn launcher(record: &ContainerRecord, plan: &Plan) -> Result<Launcher> {
    let config = &record.config;
    let dev = config.mounts.iter().find(|mount| mount.container_path == Path::new("/dev"));
    let dev = dev.map(|mount| mount::copy_tree(&mount.host_path).at("copy the mounts of", &mount.host_path));
    let filter = crate::seccomp::filter(&config.security.seccomp, &plan.capabilities);
    Ok(Launcher {
        filter: filter.map_err(|error| Error::Start(error.to_string()))?,
        capabilities: capability_sets(&plan.capabilities)?,
        no_new_privileges: config.security.no_new_privileges,
        propagation: plan.propagation.clone(),
        dev: dev.transpose()?.map(Rc::new),
    })
}

/// The same names in the three sets that are used; inheritable and ambient stay empty.
pub(super) fn capability_sets(names: &[String]) -> Result<LinuxCapabilities> {
    let sets = serde_json::json!({
        "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [],
    });
    serde_json::from_value(sets).map_err(|error| Error::Start(format!("capabilities: {error}")))
}

fn write_bundle(paths: &ContainerPaths, plan: &Plan) -> Result<()> {
    durable::write_foreign(&paths.bundle().join("config.json"), &plan.spec, Durability::Atomic)?;
    let launch = Launch { capabilities: plan.capabilities.clone() };
    durable::write(&paths.launch(), &launch, Durability::Atomic)
}

/// Every device node of the host but terminals and what containers have of their own.
fn host_devices(dir: &Path) -> Vec<Device> {
    const OWN: [&str; 13] =
        ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "stdout", "stderr", "core", "log", ".udev", ".lxc"];
    let mut devices = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        if kind.is_dir() {
            devices.extend(host_devices(&path));
        } else if kind.is_block_device() || kind.is_char_device() {
            devices.push(Device {
                path,
                kind: if kind.is_block_device() { "b" } else { "c" },
                major: i64::from(libc::major(metadata.rdev())),
                minor: i64::from(libc::minor(metadata.rdev())),
                file_mode: metadata.mode() & 0o777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
    devices
}

/// The socket over which libcontainer hands out a new terminal's master.
pub(super) struct Console {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Console {
    /// Listens below `dir`; libcontainer reaches the socket by a link of its own.
    pub(super) fn listen(dir: &Path) -> Result<Self> {
        let path = dir.join("console.sock");
        durable::remove_file(&path)?;
        // Changes the directory because socket names are short; nothing else runs in this process.
        std::env::set_current_dir(dir).at("enter", dir)?;
        let listener = UnixListener::bind("console.sock").at("listen on", &path)?;
        Ok(Self { listener, path })
    }

    pub(super) fn receive(self) -> Result<OwnedFd> {
        let (connection, _) = self.listener.accept().at("accept on", &self.path)?;
        let received = packet::receive(connection.as_fd(), &mut [0; 256]).at("receive a terminal on", &self.path)?;
        durable::remove_file(&self.path)?;
        let fd = received.and_then(|received| received.fds.into_iter().next());
        fd.ok_or_else(|| Error::Start("no terminal was handed over".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_of_all_releases_are_read() {
        let launch = crate::contract::check_forms::<Launch>(&[include_str!("../contract/golden/launch-1.json")]);
        assert!(launch[0].capabilities.contains(&"CAP_NET_ADMIN".to_owned()));
    }
}
