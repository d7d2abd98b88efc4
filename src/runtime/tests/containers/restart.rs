//! The daemon goes and comes back; shims die.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{ContainerState, Event, SandboxState};
use tokio::time::Instant;

use crate::fixture::{Node, PATIENCE};

pub(crate) async fn a_new_daemon_takes_over(node: &mut Node) {
    let before = node.sandbox("p1").await;
    let running = node
        .start("p1", node.shell("read x < /tmp/go 2>/dev/null; until [ -e /tmp/go ]; do sleep 0.02; done; exit 11"))
        .await;
    let mut quick = node.shell("until [ -e /volume/end ]; do sleep 0.02; done; exit 12");
    quick.name = "quick".to_owned();
    let volume = node.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    quick.mounts = vec![runtime::Mount {
        host_path: volume.clone(),
        container_path: "/volume".into(),
        read_only: true,
        recursive_read_only: false,
        propagation: runtime::Propagation::Private,
    }];
    let quick = node.start("p1", quick).await;
    let pid = node.runtime().container_status(&running).unwrap().pid.unwrap();
    node.restart().await;
    let after = node.runtime().sandbox_status("p1").unwrap();
    assert_eq!((after.state, after.shim_pid), (SandboxState::Ready, before.shim_pid));
    let status = node.runtime().container_status(&running).unwrap();
    assert_eq!((status.state, status.pid), (ContainerState::Running, Some(pid)));
    fs::write(volume.join("end"), "").unwrap();
    assert_eq!(node.ended(&quick).await.exit_code, Some(12));
    node.exec(&running, "touch /tmp/go").await;
    assert_eq!(node.ended(&running).await.exit_code, Some(11));
    node.restart().await;
    let status = node.runtime().container_status(&running).unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, Some(11)), "ends are remembered");
}

pub(crate) async fn a_dead_shim_is_noticed(node: &mut Node) {
    let sandbox = node.sandbox("p1").await;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let pid = node.runtime().container_status(&id).unwrap().pid.unwrap();
    let mut events = node.runtime().subscribe();
    kill(Pid::from_raw(sandbox.shim_pid.cast_signed()), Signal::SIGKILL).unwrap();
    let gone = async { while events.recv().await != Some(Event::SandboxGone { sandbox_uid: "p1".to_owned() }) {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::NotReady);
    assert_eq!(node.runtime().container_status(&id).unwrap().state, ContainerState::Unknown);
    assert!(!running(pid), "nobody watches it, so it is ended");

    let again = node.sandbox("p1").await;
    assert_eq!(again.state, SandboxState::Ready);
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let pid = node.runtime().container_status(&id).unwrap().pid.unwrap();
    kill(Pid::from_raw(again.shim_pid.cast_signed()), Signal::SIGKILL).unwrap();
    node.restart().await;
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::NotReady);
    assert!(!running(pid), "also when the shim died while there was no daemon");
    assert_eq!(node.runtime().list_containers().len(), 2, "their records stay until they are removed");
}

/// The pause process of a pod whose containers share their processes, by its name and its parent.
fn pause_of(shim: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "pause\n");
    children.split_whitespace().map(|pid| pid.parse().unwrap()).find(named).unwrap()
}

/// As by the kernel for want of memory.
pub(crate) async fn pause_killed(node: &mut Node) {
    let mut config = node.sandbox_config("p1");
    config.share_pid = true;
    let shim = node.runtime().run_sandbox(config.clone()).await.unwrap().shim_pid;
    let mut other = node.shell("sleep 1000");
    other.name = "other".to_owned();
    let ids = [node.start("p1", node.shell("sleep 1000")).await, node.start("p1", other).await];
    let mut events = node.runtime().subscribe();
    kill(Pid::from_raw(pause_of(shim).cast_signed()), Signal::SIGKILL).unwrap();
    let gone = async { while events.recv().await != Some(Event::SandboxGone { sandbox_uid: "p1".to_owned() }) {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("the sandbox ends with it");
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::NotReady);
    for id in &ids {
        let status = node.runtime().container_status(id).unwrap();
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, Some(137)), "its end is known");
    }

    node.runtime().run_sandbox(config.clone()).await.unwrap();
    let (status, log) = node.run("p1", node.shell("echo there")).await;
    assert_eq!((status.exit_code, log.as_str()), (Some(0), "there\n"), "a new one serves");

    let shim = node.runtime().sandbox_status("p1").unwrap().shim_pid;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    node.stop_daemon();
    kill(Pid::from_raw(pause_of(shim).cast_signed()), Signal::SIGKILL).unwrap();
    node.start_daemon().await;
    let ended = async {
        while node.runtime().sandbox_status("p1").unwrap().state != SandboxState::NotReady {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("also while there is no daemon");
    assert_eq!(node.runtime().container_status(&id).unwrap().exit_code, Some(137));
}

pub(crate) async fn verdict_goes_on(node: &mut Node) {
    node.runtime().note_verdict("p1", "too early".to_owned()).await.unwrap();
    node.sandbox("p1").await;
    assert_eq!(node.runtime().verdict("p1").await.unwrap(), None, "there was nothing to end");
    node.runtime().note_verdict("p1", "evicted".to_owned()).await.unwrap();
    node.restart().await;
    assert_eq!(node.runtime().verdict("p1").await.unwrap().as_deref(), Some("evicted"));
    node.runtime().stop_sandbox("p1").await.unwrap();
    assert_eq!(node.runtime().verdict("p1").await.unwrap().as_deref(), Some("evicted"), "until its end is told");
    node.runtime().remove_sandbox("p1").await.unwrap();
    assert_eq!(node.runtime().verdict("p1").await.unwrap(), None);
}

pub(crate) async fn stopping_goes_on(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let began = Instant::now();
    assert_eq!(node.runtime().stopping_for("p1", None).await.unwrap(), Duration::ZERO);
    let begun = Instant::now();
    node.restart().await;
    let restarted = Instant::now();
    let pod = node.runtime().stopping_for("p1", None).await.unwrap();
    assert!(pod >= restarted - begun && pod <= began.elapsed(), "{pod:?}");
    let container = node.runtime().stopping_for("p1", Some(&id)).await.unwrap();
    assert_eq!(container, Duration::ZERO, "its pod's clock is another one");
    assert!(node.runtime().stopping_for("p1", Some(&id)).await.unwrap() > Duration::ZERO);
    node.runtime().remove_sandbox("p1").await.unwrap();
    assert_eq!(node.runtime().stopping_for("p1", None).await.unwrap(), Duration::ZERO);
    node.sandbox("p1").await;
    assert_eq!(node.runtime().stopping_for("p1", None).await.unwrap(), Duration::ZERO, "a new sandbox is not stopped");
}

/// Neither gone nor a zombie that nobody has buried yet.
pub(crate) fn running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
