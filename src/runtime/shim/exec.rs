//! Runs a command in a running container: in a child of the shim, which ends when it runs.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;

use super::executor::Launcher;
use super::launch::{Console, Launch, Stdio, capability_sets, set_oom_score, start_error};
use crate::contract::records::{ContainerRecord, SandboxPaths};
use crate::durable::{self, Durability};
use crate::error::{Error, IoContext, Result};

pub(super) struct Command<'a> {
    /// Unique among the commands that this shim runs at a time.
    pub name: &'a str,
    pub command: Vec<String>,
    pub tty: bool,
}

pub(super) struct Running {
    pub pid: i32,
    pub terminal: Option<OwnedFd>,
}

/// libcontainer leaves sockets in the container's state directory after each command, so each gets
/// a copy of that directory to litter.
pub(super) fn exec(
    paths: &SandboxPaths,
    record: &ContainerRecord,
    command: Command<'_>,
    stdio: Stdio,
) -> Result<Running> {
    let scratch = paths.run.join(command.name);
    let state = scratch.join(&record.id);
    fs::create_dir_all(&state).at("create", &state)?;
    let result = run(paths, record, command, stdio, &scratch);
    durable::remove_tree(&scratch)?;
    result
}

fn run(
    paths: &SandboxPaths,
    record: &ContainerRecord,
    command: Command<'_>,
    stdio: Stdio,
    scratch: &Path,
) -> Result<Running> {
    // Inherited by the command.
    set_oom_score("self", record.config.oom_score_adj);
    let container = paths.container(&record.id);
    let from = paths.state_root().join(&record.id).join("state.json");
    fs::copy(&from, scratch.join(&record.id).join("state.json")).at("copy", &from)?;
    let process = scratch.join("process.json");
    write_process(&container.bundle().join("config.json"), &process, command.command, command.tty)?;
    let launch = durable::read::<Launch>(&container.launch())?;
    let filter = crate::seccomp::filter(&record.config.security.seccomp, &launch.capabilities);
    let launcher = Launcher {
        filter: filter.map_err(|error| Error::Start(error.to_string()))?,
        capabilities: capability_sets(&launch.capabilities)?,
        no_new_privileges: record.config.security.no_new_privileges,
        propagation: vec![],
        dev: None,
    };
    let mut builder = ContainerBuilder::new(record.id.clone(), SyscallType::default())
        .with_root_path(scratch)
        .map_err(|error| start_error(&error))?
        .with_executor(launcher);
    let console = command.tty.then(|| Console::listen(scratch)).transpose()?;
    match &console {
        Some(console) => builder = builder.with_console_socket(Some(&console.path)),
        None => builder = stdio.apply(builder)?,
    }
    let built = builder.as_tenant().with_detach(true).with_process(Some(&process)).build();
    let pid = built.map_err(|error| start_error(&error))?.as_raw();
    Ok(Running { pid, terminal: console.map(Console::receive).transpose()? })
}

/// The container's own process description with another command line.
fn write_process(config: &Path, to: &Path, command: Vec<String>, tty: bool) -> Result<()> {
    let spec = Spec::load(config).map_err(|error| start_error(&error))?;
    let mut process = spec.process().clone().ok_or_else(|| Error::Start("no process".to_owned()))?;
    process.set_args(Some(command)).set_terminal(Some(tty));
    let mut env = process.env().clone().unwrap_or_default();
    if tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
        process.set_env(Some(env));
    }
    durable::write_foreign(to, &process, Durability::Atomic)
}
