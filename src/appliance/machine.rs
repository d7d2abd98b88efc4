//! What a machine has once: its node, and the kubeconfig of its administrator. One coracle at a time has them.
//!
//! A machine is a network namespace here. The links and rules of pods are of one, and so are abstract sockets:
//! the kernel gives such a name to one process at a time, and takes it back when that ends, however it ends.
//! Taking a name writes nothing.

use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use ring::digest::{SHA256, digest};

use crate::config::ServerConfig;

/// For the end of a process that has just been told to end: it gives its names back last.
const HANDOVER_LOOKS: u32 = 40;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Held for as long as the process runs.
pub(crate) struct Claim(#[expect(dead_code, reason = "its drop gives the names free")] Vec<UnixListener>);

/// Takes for this process what its configuration needs of the machine.
///
/// # Errors
/// Names what another coracle has.
pub(crate) fn claim(config: &ServerConfig) -> anyhow::Result<Claim> {
    claim_after(config, pause)
}

fn claim_after(config: &ServerConfig, mut pause: impl FnMut()) -> anyhow::Result<Claim> {
    let mut names = Vec::new();
    if config.run_agent {
        names.push(Name {
            socket: "coracle/node".to_owned(),
            what: "the node (links, addresses and rules of pods, cgroups, the run directory)".to_owned(),
            help: "end it, or run this one without a node by --disable-agent".to_owned(),
        });
    }
    names.push(kubeconfig(&config.write_kubeconfig)?);
    let mut held = Vec::new();
    for name in &names {
        match wait_for_handover(|| name.take(), &mut pause)? {
            Some(listener) => held.push(listener),
            None => {
                bail!("another coracle is running on this machine{}: it has {}; {}", name.owner(), name.what, name.help)
            }
        }
    }
    Ok(Claim(held))
}

/// A restart may begin before the process before has given everything back.
pub(crate) fn wait_for_handover<T>(
    mut take: impl FnMut() -> anyhow::Result<Option<T>>,
    mut pause: impl FnMut(),
) -> anyhow::Result<Option<T>> {
    for _ in 0..HANDOVER_LOOKS {
        match take()? {
            None => pause(),
            taken => return Ok(taken),
        }
    }
    take()
}

pub(crate) fn pause() {
    #[expect(clippy::disallowed_methods, reason = "nothing else runs yet")]
    std::thread::sleep(LOOK_EVERY);
}

/// A name in the network namespace that stands for something of the machine.
struct Name {
    socket: String,
    what: String,
    help: String,
}

/// By digest: a path may be longer than the name of a socket.
fn kubeconfig(path: &Path) -> anyhow::Result<Name> {
    let path = resolved(path).with_context(|| format!("--write-kubeconfig {}", path.display()))?;
    let digest = digest(&SHA256, path.as_os_str().as_encoded_bytes());
    let digest = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(Name {
        socket: format!("coracle/kubeconfig/{digest}"),
        what: format!("the kubeconfig {}", path.display()),
        help: "end it, or choose another file with --write-kubeconfig".to_owned(),
    })
}

/// Two ways to one file are one file, as far as its directory is there.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(directory)), Some(name)) => Ok(directory.join(name)),
        _ => Ok(path),
    }
}

impl Name {
    /// `None` when another process has it.
    fn take(&self) -> anyhow::Result<Option<UnixListener>> {
        let address = SocketAddr::from_abstract_name(&self.socket).context("naming a socket")?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Some(listener)),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e).with_context(|| format!("taking the name @{}", self.socket)),
        }
    }

    /// Which process has it, where the kernel says so: none of another process namespace.
    fn owner(&self) -> String {
        let ask = || -> nix::Result<i32> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            socket::connect(socket.as_raw_fd(), &UnixAddr::new_abstract(self.socket.as_bytes())?)?;
            Ok(socket::getsockopt(&socket, sockopt::PeerCredentials)?.pid())
        };
        ask().ok().filter(|pid| *pid > 0).map_or_else(String::new, |pid| format!(" (process {pid})"))
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs a test on a machine of its own; says so and passes when that is not permitted.
    fn on_a_machine(test: impl FnOnce() + Send) {
        let run = || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(e) => println!("skipped: a network namespace needs root ({e})"),
        };
        let outcome = std::thread::scope(|scope| scope.spawn(run).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn config(directory: &Path, kubeconfig: &str, run_agent: bool) -> ServerConfig {
        ServerConfig {
            write_kubeconfig: directory.join(kubeconfig),
            run_agent,
            ..crate::services::fixtures::config(&directory.join("data"))
        }
    }

    fn refused(config: &ServerConfig) -> String {
        claim_after(config, || ()).err().unwrap().to_string()
    }

    #[test]
    fn a_machine_has_one_node_and_a_second_one_says_so_and_writes_nothing() {
        on_a_machine(|| {
            let directory = tempfile::tempdir().unwrap();
            let first = claim(&config(directory.path(), "first.yaml", true)).unwrap();
            let said = refused(&config(directory.path(), "second.yaml", true));
            let owner =
                format!("another coracle is running on this machine (process {}): it has the node", std::process::id());
            assert!(said.starts_with(&owner) && said.contains("--disable-agent"), "{said}");
            let _beside = claim(&config(directory.path(), "second.yaml", false)).unwrap();
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
            // Another machine on the same kernel.
            on_a_machine(|| drop(claim(&config(directory.path(), "first.yaml", true)).unwrap()));
            drop(first);
            claim(&config(directory.path(), "first.yaml", true)).unwrap();
        });
    }

    #[test]
    fn a_kubeconfig_has_one_writer_by_whatever_path() {
        on_a_machine(|| {
            let directory = tempfile::tempdir().unwrap();
            let link = directory.path().join("link");
            std::os::unix::fs::symlink(directory.path(), &link).unwrap();
            let _first = claim(&config(directory.path(), "kubeconfig.yaml", false)).unwrap();
            for at in [directory.path(), &link] {
                let said = refused(&config(at, "kubeconfig.yaml", false));
                let what = format!("it has the kubeconfig {}", directory.path().join("kubeconfig.yaml").display());
                assert!(said.contains(&what) && said.contains("--write-kubeconfig"), "{said}");
            }
        });
    }

    #[test]
    fn a_restart_waits_for_the_end_of_the_process_before() {
        on_a_machine(|| {
            let directory = tempfile::tempdir().unwrap();
            let config = config(directory.path(), "kubeconfig.yaml", true);
            let mut before = Some(claim(&config).unwrap());
            let mut pauses = 0;
            let now = claim_after(&config, || {
                pauses += 1;
                if pauses == 3 {
                    before = None;
                }
            });
            assert!(now.is_ok() && before.is_none());
        });
    }
}
