//! The pod's shim: a small process of one thread that owns what must outlive the daemon.
//!
//! It holds the pod's network, IPC and UTS namespaces by living in them, is the parent of the
//! containers' processes (`PR_SET_CHILD_SUBREAPER`) and so learns how they end, writes their logs,
//! and serves the daemon on a socket. libcontainer changes process-wide state and forks in ways
//! that threads do not survive, so each of its calls runs in a forked child of this process.

mod children;
mod container;
mod destinations;
mod exec;
mod executor;
mod launch;
mod log;
mod pause;
mod server;
mod trace;
mod volumes;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{pipe2, sethostname, setsid};

use crate::contract::protocol::NEWEST_VERSION;
use crate::contract::records::{SandboxPaths, SandboxRecord};
use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::sys::process;
use crate::types::SandboxConfig;

/// As for every pod that other runtimes make: low ports and ping need no capability.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The kernel should kill containers long before the process that reports on them.
const OOM_SCORE: &str = "-999";

/// Runs a pod's shim: `shim <data directory> <run directory>` of the sandbox. Returns the exit code
/// of the starting process once the shim is ready, having told failures on stderr.
///
/// Must be called before any thread exists.
pub fn shim_main(args: &[OsString]) -> i32 {
    shim_main_of(args, NEWEST_VERSION)
}

/// The same as by a release whose newest version of the protocol with the daemon was `version`: tests meet
/// what a daemon meets after an upgrade.
pub fn shim_main_of(args: &[OsString], version: u32) -> i32 {
    let [data, run] = args else {
        return report("usage: shim DATA-DIR RUN-DIR");
    };
    let paths = SandboxPaths { data: PathBuf::from(data), run: PathBuf::from(run) };
    match start(&paths, version) {
        Ok(()) => 0,
        Err(error) => report(&error.to_string()),
    }
}

fn report(message: &str) -> i32 {
    let _ = writeln!(io::stderr(), "{message}");
    1
}

/// Forks the shim proper and waits until it is ready, so that whoever started us is not its parent.
fn start(paths: &SandboxPaths, version: u32) -> Result<()> {
    let (ready, told) = pipe2(OFlag::O_CLOEXEC).at("make a pipe for", &paths.run)?;
    let forked = process::fork_child(|| {
        let ready_end = fs::File::from(told);
        match serve(paths, version, ready_end) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    });
    forked.at("fork the shim of", &paths.run)?;
    let mut message = String::new();
    fs::File::from(ready).read_to_string(&mut message).at("wait for the shim of", &paths.run)?;
    match message.strip_prefix("ready") {
        Some(_) => Ok(()),
        None => Err(Error::Start(message)),
    }
}

/// The shim's life. Failures up to the point of readiness go to the starting process.
fn serve(paths: &SandboxPaths, version: u32, mut starter: fs::File) -> Result<()> {
    let mut server = match prepare(paths, version) {
        Ok(server) => server,
        Err(error) => {
            let _ = write!(starter, "{error}");
            return Err(error);
        }
    };
    let _ = starter.write_all(b"ready");
    drop(starter);
    server.run()
}

fn prepare(paths: &SandboxPaths, version: u32) -> Result<server::Server> {
    let record = durable::read::<SandboxRecord>(&paths.record())?;
    setsid().at("leave the session of", &paths.run)?;
    nix::sys::prctl::set_child_subreaper(true).at("become subreaper for", &paths.run)?;
    // Without the capability it stays as it is.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // Containers inherit it; what other runtimes give them.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    detach_stdio()?;
    let shim_dir = Path::new("/");
    std::env::set_current_dir(shim_dir).at("enter", shim_dir)?;
    make_namespaces(&record.config)?;
    server::Server::new(record, paths.clone(), version)
}

fn detach_stdio() -> Result<()> {
    let path = Path::new("/dev/null");
    let null: OwnedFd = fs::File::options().read(true).write(true).open(path).at("open", path)?.into();
    nix::unistd::dup2_stdin(&null).at("redirect to", path)?;
    nix::unistd::dup2_stdout(&null).at("redirect to", path)?;
    nix::unistd::dup2_stderr(&null).at("redirect to", path)
}

/// A pod on the host's network shares its host name too, as with other runtimes.
fn make_namespaces(config: &SandboxConfig) -> Result<()> {
    let mut flags = CloneFlags::empty();
    if !config.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !config.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    let proc = Path::new("/proc/self/ns");
    unshare(flags).at("make namespaces in", proc)?;
    if !config.host_network {
        process::loopback_up().at("bring up the loopback interface in", proc)?;
        sethostname(&config.hostname).at("set the host name in", proc)?;
        for (name, value) in DEFAULT_SYSCTLS {
            // Absent without IPv4.
            let _ = fs::write(sysctl_path(name), value);
        }
    }
    for (name, value) in &config.sysctls {
        let path = sysctl_path(name);
        fs::write(&path, value).at("set", &path)?;
    }
    Ok(())
}

/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same: the
/// separator that comes first is the one between directories.
fn sysctl_path(name: &str) -> PathBuf {
    let swap = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let relative = if swap { name.chars().map(swapped).collect() } else { name.to_owned() };
    Path::new("/proc/sys").join(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_found_in_both_spellings() {
        let expected = Path::new("/proc/sys/net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), expected);
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), expected);
        assert_eq!(sysctl_path("kernel.shm_rmid_forced"), Path::new("/proc/sys/kernel/shm_rmid_forced"));
    }
}
