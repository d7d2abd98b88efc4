//! Records that are older, newer or damaged when a daemon starts, and pods that nobody can look into.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{ContainerConfig, ContainerState, Error, Runtime, SandboxState, Scope};
use serde_json::Value;

use crate::fixture::{Node, PATIENCE, config_of};
use crate::restart::running;

/// Keeps of `value` what `form` has, too.
fn cut_to(value: &mut Value, form: &Value) {
    if let (Value::Object(fields), Value::Object(form)) = (value, form) {
        fields.retain(|key, _| form.contains_key(key));
        for (key, field) in fields {
            cut_to(field, &form[key]);
        }
    }
}

fn rewrite(path: &Path, form: &str) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    if let Some(record) = value.get_mut("record").map(Value::take) {
        value = record;
    }
    cut_to(&mut value, &serde_json::from_str(form).unwrap());
    assert!(value.get("version").is_none());
    fs::write(path, value.to_string()).unwrap();
}

fn sandbox_dir(node: &Node) -> PathBuf {
    node.dir.path().join("data/sandboxes/p1")
}

pub(crate) fn pid_of(node: &Node, id: &str) -> u32 {
    node.runtime().container_status(id).unwrap().pid.unwrap()
}

#[track_caller]
pub(crate) fn check_runs(node: &Node, id: &str, pid: u32, when: &str) {
    let found = node.runtime().list_containers();
    let found = found.iter().map(|c| (c.id.as_str(), c.state, c.pid)).collect::<Vec<_>>();
    assert_eq!(found, [(id, ContainerState::Running, Some(pid))], "{when}");
    assert!(running(pid), "{when}");
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::Ready, "{when}");
}

const SECRET: &str = "correct-horse-battery";

fn with_secret(node: &Node, script: &str) -> ContainerConfig {
    let mut config = node.shell(script);
    config.env = vec![("TOKEN".to_owned(), SECRET.to_owned())];
    config
}

fn record_of(node: &Node, id: &str) -> PathBuf {
    sandbox_dir(node).join(id).join("container.json")
}

/// Starts a container and leaves its record as the first release did: whole.
async fn start_as_then(node: &Node, script: &str) -> String {
    let id = node.runtime().create_container("p1", with_secret(node, script)).await.unwrap();
    let whole = fs::read(record_of(node, &id)).unwrap();
    node.runtime().start_container(&id).await.unwrap();
    assert_eq!(files_with_secret(node), Vec::<PathBuf>::new(), "a start takes it off the disk");
    fs::write(record_of(node, &id), whole).unwrap();
    id
}

/// Every file on the data disk that holds it, images aside.
fn files_with_secret(node: &Node) -> Vec<PathBuf> {
    let files = listing(&node.dir.path().join("data/sandboxes")).into_iter().map(|(path, _)| path);
    let holds = |path: &PathBuf| {
        let found = path.symlink_metadata().unwrap().is_file().then(|| fs::read(path).unwrap());
        found.is_some_and(|bytes| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()))
    };
    files.filter(holds).collect()
}

/// Records and shims as the first release left them: the shims speak the first version of the protocol alone.
pub(crate) async fn first_release(node: &mut Node) {
    node.use_first_shims().await;
    let sandbox = node.sandbox("p1").await;
    let ended = start_as_then(node, "exit 3").await;
    node.ended(&ended).await;
    // Its start takes care of its own record alone.
    let whole = fs::read(record_of(node, &ended)).unwrap();
    fs::remove_file(record_of(node, &ended)).unwrap();
    let id = start_as_then(node, "sleep 1000").await;
    fs::write(record_of(node, &ended), whole).unwrap();
    let waiting = node.runtime().create_container("p1", with_secret(node, "sleep 1000")).await.unwrap();
    let pid = pid_of(node, &id);
    let dir = sandbox_dir(node);
    rewrite(&dir.join("sandbox.json"), include_str!("../../contract/golden/sandbox-1.json"));
    for id in [&id, &ended, &waiting] {
        rewrite(&record_of(node, id), include_str!("../../contract/golden/container-1.json"));
    }
    rewrite(&dir.join(&ended).join("exit.json"), include_str!("../../contract/golden/exit-1.json"));
    assert_eq!(files_with_secret(node).len(), 3);

    node.restart().await;
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().shim_pid, sandbox.shim_pid);
    let status = node.runtime().container_status(&ended).unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, Some(3)));
    node.runtime().remove_container(&ended).await.unwrap();
    assert_eq!(node.exec(&id, "echo $TOKEN").await, SECRET, "a command knows what its container knows");
    assert_eq!(node.runtime().container_status(&waiting).unwrap().state, ContainerState::Created);
    assert_eq!(files_with_secret(node), [record_of(node, &waiting)], "only this one is still to be read");
    node.runtime().start_container(&waiting).await.unwrap();
    assert_eq!(node.exec(&waiting, "echo $TOKEN").await, SECRET);
    assert_eq!(files_with_secret(node), Vec::<PathBuf>::new());

    node.restart().await;
    node.runtime().stop_container(&waiting, Duration::ZERO, Scope::Container).await.unwrap();
    node.runtime().remove_container(&waiting).await.unwrap();
    check_runs(node, &id, pid, "a shim of the first release");
    // Such a shim cannot make up for a record.
    let whole = fs::read(record_of(node, &id)).unwrap();
    fs::write(record_of(node, &id), "").unwrap();
    node.restart().await;
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::Unknown);
    fs::write(record_of(node, &id), whole).unwrap();
    node.runtime().recover_sandbox("p1").await.unwrap();
    check_runs(node, &id, pid, "its record is back");
    node.runtime().remove_sandbox("p1").await.unwrap();
    assert!(!running(pid) && !running(sandbox.shim_pid));
}

/// What is left of a file; `None` when it is not there any more.
type Damage = fn(&[u8]) -> Option<Vec<u8>>;

pub(crate) async fn damaged_records(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let pid = pid_of(node, &id);
    let files = [sandbox_dir(node).join("sandbox.json"), sandbox_dir(node).join(&id).join("container.json")];
    let whole = files.clone().map(|file| fs::read(file).unwrap());
    let damages: [(&str, Damage); 6] = [
        ("with a flipped bit in a text", |bytes| {
            let mut bytes = bytes.to_vec();
            let at = bytes.windows(4).position(|word| word == b"\"p1\"").unwrap();
            bytes[at + 1] ^= 1;
            Some(bytes)
        }),
        ("empty", |_| Some(vec![])),
        ("half", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("garbage", |_| Some(b"\0\xffgarbage".to_vec())),
        ("without a field that is required", |bytes| {
            let text = std::str::from_utf8(bytes).unwrap();
            Some(text.replacen("\"created_at_ns\"", "\"made_at_ns\"", 1).into_bytes())
        }),
        ("gone", |_| None),
    ];
    for (name, damage) in damages {
        for which in [&[0][..], &[1], &[0, 1]] {
            for &n in which {
                match damage(&whole[n]) {
                    Some(bytes) => fs::write(&files[n], bytes).unwrap(),
                    None => fs::remove_file(&files[n]).unwrap(),
                }
            }
            node.restart().await;
            check_runs(node, &id, pid, name);
            assert_eq!(node.sandbox("p1").await.state, SandboxState::Ready);
            assert_eq!(files.clone().map(|file| fs::read(file).unwrap()), whole, "{name}: written again");
        }
    }
    assert_eq!(node.exec(&id, "ps | grep -c '[s]leep 1000'").await, "1");
}

pub(crate) async fn newer_records(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let ended = node.start("p1", node.shell("exit 3")).await;
    node.ended(&ended).await;
    let pid = pid_of(node, &id);
    let data = node.dir.path().join("data");
    let dir = sandbox_dir(node);
    for path in [
        dir.join("sandbox.json"),
        dir.join(&id).join("container.json"),
        dir.join(&ended).join("exit.json"),
        data.join("imagestore/index.json"),
    ] {
        let whole = fs::read(&path).unwrap();
        fs::write(&path, r#"{"version":99,"otherwise":[]}"#).unwrap();
        let before = listing(&data);
        let error = Runtime::open(config_of(node.dir.path())).await.unwrap_err();
        assert!(matches!(error, Error::NewerRecord { found: 99, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("written by a newer coracle"), "{text}");
        assert_eq!(listing(&data), before, "nothing is changed");
        assert!(running(pid));
        fs::write(&path, whole).unwrap();
    }
    node.restart().await;
    assert_eq!(pid_of(node, &id), pid);
}

/// Every path below `dir` with its length.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
        found.push((path, metadata.len()));
    }
    found.sort();
    found
}

#[track_caller]
pub(crate) fn check_left_alone(node: &Node, pid: u32) {
    assert_eq!(node.runtime().sandbox_status("p1").unwrap().state, SandboxState::Unknown);
    assert!(node.runtime().list_containers().iter().all(|c| c.state == ContainerState::Unknown));
    assert!(running(pid));
}

pub(crate) async fn left_alone(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("trap 'echo bye; exit' TERM; while true; do sleep 0.05; done")).await;
    let pid = pid_of(node, &id);
    let socket = node.dir.path().join("run/sandboxes/p1/shim.sock");
    let aside = socket.with_extension("aside");

    // A socket that cannot be reached, though the shim lives.
    fs::rename(&socket, &aside).unwrap();
    std::os::unix::fs::symlink(&socket, &socket).unwrap();
    node.restart().await;
    check_left_alone(node, pid);
    let refused = node.runtime().run_sandbox(node.sandbox_config("p1")).await.unwrap_err();
    assert!(
        matches!(&refused, Error::SandboxUnknown { reason, .. } if reason.contains("cannot be reached")),
        "{refused}"
    );
    node.runtime().recover_sandbox("p1").await.unwrap_err();
    node.runtime().remove_image(&node.image_id).await.unwrap();
    assert!(fs::read_dir(node.dir.path().join("data/imagestore/layers")).unwrap().next().is_some(), "it may be in use");
    fs::remove_file(&socket).unwrap();
    fs::rename(&aside, &socket).unwrap();
    node.runtime().recover_sandbox("p1").await.unwrap();
    check_runs(node, &id, pid, "recovered");

    // No record, no shim, but a container that lives.
    let shim = node.runtime().sandbox_status("p1").unwrap().shim_pid;
    let runtime = Arc::downgrade(node.runtime());
    node.stop_daemon();
    assert!(runtime.upgrade().is_none());
    kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL).unwrap();
    fs::write(sandbox_dir(node).join("sandbox.json"), "").unwrap();
    node.start_daemon().await;
    check_left_alone(node, pid);
    node.runtime().run_sandbox(node.sandbox_config("p1")).await.unwrap_err();
    tokio::time::timeout(PATIENCE, node.runtime().remove_sandbox("p1")).await.unwrap().unwrap();
    assert!(!running(pid));
    assert!(node.runtime().list_sandboxes().is_empty());
    assert!(!sandbox_dir(node).exists());
}
