//! Commands in containers, terminals, attach.

use std::time::Duration;

use runtime::{AttachRequest, Error, ExecRequest, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Node, PATIENCE};

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

pub(crate) async fn commands(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let result = node.runtime().exec_sync(&id, shell("echo out; echo err >&2; exit 9"), PATIENCE).await.unwrap();
    assert_eq!(
        (result.stdout.as_slice(), result.stderr.as_slice(), result.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 9)
    );
    let flood = shell("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 4");
    let flood = node.runtime().exec_sync(&id, flood, PATIENCE).await.unwrap();
    assert_eq!((flood.stdout.len(), flood.stderr.len(), flood.exit_code), (10 << 10, 10 << 10, 4));
    let killed = node.runtime().exec_sync(&id, shell("kill -9 $$"), PATIENCE).await.unwrap();
    assert_eq!(killed.exit_code, 137);
    let late = node.runtime().exec_sync(&id, shell("sleep 1000"), Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::ExecTimeout { .. })), "{late:?}");

    let request = ExecRequest { command: shell("tr a-z A-Z"), stdin: true, stdout: true, ..ExecRequest::default() };
    let mut streams = node.runtime().exec(&id, request).await.unwrap();
    let input = "word ".repeat(50_000);
    let mut stdin = streams.stdin.take().unwrap();
    let mut output = String::new();
    let write = async {
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let mut stdout = streams.stdout.take().unwrap();
    let (_, read) = tokio::join!(write, stdout.read_to_string(&mut output));
    read.unwrap();
    assert_eq!(output, input.to_uppercase());
    assert_eq!(streams.exit.await.unwrap(), 0);
    assert_eq!(leftovers(node, &id), 0, "libcontainer's sockets are cleared away");
}

fn leftovers(node: &Node, id: &str) -> usize {
    let state = node.dir.path().join("run/sandboxes/p1/state").join(id);
    let names = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("tenant-")).count()
}

pub(crate) async fn terminals(node: &mut Node) {
    node.sandbox("p1").await;
    let mut config = node.shell("tty; stty size; read line; echo got $line; stty size");
    (config.tty, config.stdin) = (true, true);
    let log = config.log_path.clone();
    let id = node.start("p1", config).await;
    let request = AttachRequest { stdin: true, stdout: true, stderr: true };
    let mut streams = node.runtime().attach(&id, request).await.unwrap();
    assert!(streams.stderr.is_none());
    streams.resize.resize(TerminalSize { columns: 100, rows: 30 }).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    assert_eq!(node.ended(&id).await.exit_code, Some(0));
    let text = crate::fixture::plain(&log).replace('\r', "");
    assert!(text.contains("/dev/pts/0\n") && text.contains("got hello\n30 100\n"), "{text}");

    let id = node.start("p1", node.shell("sleep 1000")).await;
    let command = shell("read line; tty; stty size; echo $TERM; exit 4");
    let request = ExecRequest { command, tty: true, stdin: true, stdout: true, stderr: false };
    let mut streams = node.runtime().exec(&id, request).await.unwrap();
    streams.resize.resize(TerminalSize { columns: 111, rows: 44 }).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut output = String::new();
    streams.stdout.as_mut().unwrap().read_to_string(&mut output).await.unwrap();
    assert!(output.contains("/dev/pts/0\r\n44 111\r\nxterm\r\n"), "{output:?}");
    assert_eq!(streams.exit.await.unwrap(), 4);
}

pub(crate) async fn attach(node: &mut Node) {
    node.sandbox("p1").await;
    let mut config = node.shell("while read line; do echo out $line; echo err $line >&2; done; exit 6");
    (config.stdin, config.stdin_once) = (true, true);
    let log = config.log_path.clone();
    let id = node.start("p1", config).await;
    let request = AttachRequest { stdin: true, stdout: true, stderr: true };
    let mut streams = node.runtime().attach(&id, request).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    streams.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    streams.stderr.as_mut().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out one\nout two\n", "err one\nerr two\n"));
    assert_eq!(streams.exit.await.unwrap(), 6, "the end of the first client's input is the container's");
    assert_eq!(crate::fixture::plain(&log).lines().count(), 4);
    let refused = node.runtime().attach(&id, request).await;
    assert!(matches!(refused, Err(Error::NotRunning(_))), "{refused:?}");
}
