//! Connections to shims that break or are not answered while the pods run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, UnixAddr, getpeername, shutdown};
use nix::unistd::Pid;
use runtime::{Error, Event, EventReceiver, Runtime, RuntimeConfig, SandboxState, Scope};
use tokio::time::Instant;

use crate::fixture::{Node, PATIENCE, config_of};
use crate::restart::running;
use crate::upgrade::{check_left_alone, check_runs, pid_of};

/// Ends at once when it is asked to.
const POLITE: &str = "trap exit TERM; while true; do sleep 0.05; done";

fn socket(node: &Node) -> PathBuf {
    node.dir.path().join("run/sandboxes/p1/shim.sock")
}

/// Breaks the daemon's connection, which is in this process, to the only shim.
fn break_connection() {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.file_name());
    let fds = fds.map(|name| name.to_str().unwrap().parse::<i32>().unwrap());
    // Listeners are bound by a short name of their directory, whose end alone is known.
    let named = |address: UnixAddr| address.path().is_some_and(|path| path.ends_with("shim.sock"));
    let to_shim = |fd: &i32| getpeername::<UnixAddr>(*fd).is_ok_and(named);
    let found = fds.filter(to_shim).collect::<Vec<_>>();
    let [fd] = found[..] else { panic!("{} connections", found.len()) };
    shutdown(fd, Shutdown::Both).unwrap();
}

/// A link that leads to itself: the shim lives, and nobody can say so.
fn put_out_of_reach(socket: &Path) {
    fs::rename(socket, socket.with_extension("aside")).unwrap();
    std::os::unix::fs::symlink(socket, socket).unwrap();
}

fn put_back(socket: &Path) {
    fs::remove_file(socket).unwrap();
    fs::rename(socket.with_extension("aside"), socket).unwrap();
}

async fn gone(mut events: EventReceiver) {
    let gone = async { while events.recv().await != Some(Event::SandboxGone { sandbox_uid: "p1".to_owned() }) {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

pub(crate) async fn broken_connection(node: &mut Node) {
    let before = node.sandbox("p1").await;
    let id = node.start("p1", node.shell("until [ -e /tmp/go ]; do sleep 0.02; done; exit 11")).await;
    let pid = pid_of(node, &id);
    break_connection();
    let command = || ["echo", "there"].map(str::to_owned).to_vec();
    let answers = async {
        while node.runtime().exec_sync(&id, command(), PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, answers).await.expect("it is reached again");
    check_runs(node, &id, pid, "reached again");
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().shim_pid, before.shim_pid);
    node.exec(&id, "touch /tmp/go").await;
    assert_eq!(node.ended(&id).await.exit_code, Some(11), "its end is told");
}

pub(crate) async fn out_of_reach(node: &mut Node) {
    let socket = socket(node);
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell(POLITE)).await;
    let pid = pid_of(node, &id);
    put_out_of_reach(&socket);
    let events = node.runtime().subscribe();
    break_connection();
    gone(events).await;
    check_left_alone(node, pid);
    // Nobody waits for an end that nobody tells, and nothing is taken from under its feet.
    node.runtime().stop_container(&id, Duration::from_secs(3600), Scope::Container).await.unwrap();
    let refused = node.runtime().remove_container(&id).await.unwrap_err();
    assert!(matches!(&refused, Error::SandboxUnknown { .. }), "{refused}");
    node.runtime().recover_sandbox("p1").await.unwrap_err();
    check_left_alone(node, pid);
    put_back(&socket);
    node.runtime().recover_sandbox("p1").await.unwrap();
    check_runs(node, &id, pid, "recovered");

    put_out_of_reach(&socket);
    let events = node.runtime().subscribe();
    break_connection();
    gone(events).await;
    check_left_alone(node, pid);
    tokio::time::timeout(PATIENCE, node.runtime().remove_sandbox("p1")).await.unwrap().unwrap();
    assert!(!running(pid));
    assert!(node.runtime().list_sandboxes().is_empty());
}

/// As when somebody cleans up below /run.
pub(crate) async fn missing_socket(node: &mut Node) {
    let socket = socket(node);
    let shim = node.sandbox("p1").await.shim_pid;
    let id = node.start("p1", node.shell(POLITE)).await;
    let pid = pid_of(node, &id);
    fs::remove_file(&socket).unwrap();
    node.restart().await;
    check_left_alone(node, pid);
    let told = node.runtime().recover_sandbox("p1").await.unwrap_err().to_string();
    let reason = format!(
        "sandbox \"p1\" is left alone: its shim cannot be reached: process {shim} lives and does not listen at {}; \
         delete the pod to have it ended",
        socket.display()
    );
    assert_eq!(told, reason);
    let refused = node.runtime().run_sandbox(node.sandbox_config("p1")).await.unwrap_err();
    assert!(matches!(&refused, Error::SandboxUnknown { .. }), "nothing is started beside it: {refused}");
    assert!(running(pid) && running(shim));
    tokio::time::timeout(PATIENCE, node.runtime().remove_sandbox("p1")).await.unwrap().unwrap();
    assert!(!running(pid) && !running(shim), "it can be deleted");

    let shim = node.sandbox("p1").await.shim_pid;
    let id = node.start("p1", node.shell(POLITE)).await;
    let pid = pid_of(node, &id);
    let events = node.runtime().subscribe();
    fs::remove_file(&socket).unwrap();
    break_connection();
    gone(events).await;
    check_left_alone(node, pid);
    assert!(running(shim), "also where the connection breaks");
}

/// As when each of them waits for a slow disk.
pub(crate) async fn hanging_shims(node: &mut Node) {
    const SHIMS: u32 = 8;
    let shim_timeout = Duration::from_secs(2);
    let mut shims = Vec::new();
    for number in 1..=SHIMS {
        shims.push(Pid::from_raw(node.sandbox(&format!("p{number}")).await.shim_pid.cast_signed()));
    }
    let id = node.start("p1", node.shell(POLITE)).await;
    let pid = pid_of(node, &id);
    node.stop_daemon();
    for shim in &shims {
        kill(*shim, Signal::SIGSTOP).unwrap();
    }
    let began = Instant::now();
    let config = RuntimeConfig { shim_timeout, ..config_of(node.dir.path()) };
    node.use_runtime(Runtime::open(config).await.unwrap());
    let took = began.elapsed();
    assert!(took < shim_timeout * SHIMS, "not one after the other: {took:?}");
    check_left_alone(node, pid);
    let states = node.runtime().list_sandboxes().into_iter().map(|sandbox| sandbox.state).collect::<Vec<_>>();
    assert_eq!(states, [SandboxState::Unknown; SHIMS as usize]);
    assert!(shims.iter().all(|shim| running(shim.as_raw().unsigned_abs())), "none was killed");
    kill(shims[0], Signal::SIGCONT).unwrap();
    node.runtime().recover_sandbox("p1").await.unwrap();
    check_runs(node, &id, pid, "its shim goes on");
    // One that hangs forever does not keep its pod from being deleted.
    tokio::time::timeout(PATIENCE, node.runtime().remove_sandbox("p2")).await.unwrap().unwrap();
    assert!(!running(shims[1].as_raw().unsigned_abs()));
}

/// As when it waits for a slow card, or the machine was frozen.
pub(crate) async fn silent_shim(node: &mut Node) {
    node.stop_daemon();
    let config = RuntimeConfig { shim_timeout: Duration::from_secs(1), ..config_of(node.dir.path()) };
    node.use_runtime(Runtime::open(config).await.unwrap());
    let shim = node.sandbox("p1").await.shim_pid;
    let mut healthy = node.shell("exec sleep 1000");
    healthy.name = "healthy".to_owned();
    healthy.log_path = node.dir.path().join("logs/healthy/0.log");
    let healthy = node.start("p1", healthy).await;
    let id = node.start("p1", node.shell("exec sleep 1000")).await;
    let (sick, well) = (pid_of(node, &id), pid_of(node, &healthy));
    let shim_is = |signal| kill(Pid::from_raw(shim.cast_signed()), signal).unwrap();
    shim_is(Signal::SIGSTOP);
    let stopped = node.runtime().stop_container(&id, Duration::from_millis(50), Scope::Container).await;
    assert!(matches!(stopped, Err(Error::StopTimeout(_))), "{stopped:?}");
    assert!(!running(sick), "killed past the shim");
    assert!(running(well) && running(shim), "the others run on");
    shim_is(Signal::SIGCONT);
    assert_eq!(node.ended(&id).await.exit_code, Some(137), "told when the shim goes on");
    assert_eq!(pid_of(node, &healthy), well);

    shim_is(Signal::SIGSTOP);
    let stopped = node.runtime().stop_container(&healthy, Duration::ZERO, Scope::Pod);
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
    assert!(!running(well) && !running(shim), "a pod that is to end does not wait for its shim");
}
