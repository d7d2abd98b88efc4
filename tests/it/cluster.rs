//! A machine with a registry and a Coracle server on it, and kubectl to talk to it.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::Duration;

use crate::machine::{Machine, succeed, text, top};

/// Every wait of the tests ends here at the latest.
const DEADLINE: Duration = Duration::from_secs(60);
const REGISTRY: &str = "127.0.0.1:5055";

/// The clients that the tests know, in `target/tools`: one of the server's release and the next.
pub(crate) const KUBECTL: &str = "kubectl";
pub(crate) const NEWER_KUBECTL: &str = "kubectl-1.37";

pub(crate) struct Cluster {
    /// The kubectl in use.
    pub client: Cell<&'static str>,
    daemon: Option<Child>,
    registry: Option<Child>,
    /// Last: dropping it ends whatever still runs.
    pub machine: Machine,
}

impl Cluster {
    /// A fresh machine with a registry that has the test images, and a server that is ready.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, |_| {})
    }

    /// The same, on a machine to which something was done before anything ran.
    pub(crate) fn start_with(name: &str, prepare: impl FnOnce(&Machine)) -> Self {
        build_images();
        let machine = Machine::up(name);
        prepare(&machine);
        let mut cluster = Self { client: Cell::new(KUBECTL), daemon: None, registry: None, machine };
        cluster.start_registry();
        let etc = cluster.machine.directory().join("etc");
        let mirrors = format!("mirrors:\n  docker.io:\n    endpoint:\n      - http://{REGISTRY}\n");
        std::fs::write(etc.join("registries.yaml"), mirrors).unwrap();
        cluster.start_daemon();
        cluster.wait("the node is ready", |c| c.node_is_ready());
        cluster.wait("the default service account exists", |c| {
            c.try_kubectl(&["get", "serviceaccount", "default"]).status.success()
        });
        cluster
    }

    pub(crate) fn node_is_ready(&self) -> bool {
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        self.kubectl(&["get", "nodes", "-o", ready]) == "True"
    }

    pub(crate) fn start_registry(&mut self) {
        let config = self.machine.directory().join("registry.yml");
        let storage = top().join("target/registry");
        let yaml = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY}\n",
            storage.display()
        );
        std::fs::write(&config, yaml).unwrap();
        let log = File::create(self.machine.directory().join("registry.log")).unwrap();
        let mut serve = self.machine.command("docker-registry");
        serve.arg("serve").arg(&config).stdout(log.try_clone().unwrap()).stderr(log);
        self.registry = Some(serve.spawn().unwrap());
        let url = format!("http://{REGISTRY}/v2/");
        self.wait("the registry answers", |c| {
            c.machine.command("curl").args(["-sf", &url]).output().unwrap().status.success()
        });
        let build = top().join("tests/images/build.py");
        let images = top().join("target/images");
        self.machine.run("python3", &[build.to_str().unwrap(), "push", images.to_str().unwrap(), REGISTRY]);
    }

    /// Starts the daemon and waits until the API server is ready.
    pub(crate) fn start_daemon(&mut self) {
        let log = File::options().create(true).append(true).open(self.machine.directory().join("coracle.log")).unwrap();
        // As a login shell would start it.
        let mut server = self.machine.command("prlimit");
        server.args(["--nofile=1024:", &binary(), "server", "--node-ip", "192.168.77.2", "--node-name", "pi"]);
        server.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(server.spawn().unwrap());
        self.wait("the API server is ready", |c| {
            c.kubeconfig().exists() && c.try_kubectl(&["get", "--raw", "/readyz"]).status.success()
        });
    }

    /// The daemon's pid as the host sees it: `tests/machine run` became nsenter, which forks once to
    /// enter the machine's processes.
    pub(crate) fn daemon_pid(&self) -> u32 {
        let outer = self.daemon.as_ref().expect("the daemon runs").id();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
        children.trim().parse().unwrap_or(outer)
    }

    /// Sends the daemon a signal and waits for its end, which is in order when it was asked for.
    pub(crate) fn end_daemon(&mut self, signal: &str) {
        let pid = self.daemon_pid().to_string();
        succeed(crate::machine::command("kill").args(["-s", signal, &pid]));
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let status = daemon.wait().unwrap();
        assert!(signal == "KILL" || status.success(), "{status} after {signal}\n{}", self.log_tail());
    }

    /// A pulled plug.
    pub(crate) fn power_off(&mut self) {
        self.machine.power_off();
        for child in [self.daemon.take(), self.registry.take()].into_iter().flatten() {
            reap(child);
        }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.machine.directory().join("etc/kubeconfig.yaml")
    }

    fn kubectl_command(&self) -> Command {
        let program = top().join("target/tools").join(self.client.get());
        let mut c = self.machine.command(program.to_str().unwrap());
        c.arg("--kubeconfig=/etc/coracle/kubeconfig.yaml").env("HOME", self.machine.directory());
        c
    }

    /// Standard output of a kubectl call that must succeed.
    #[track_caller]
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        succeed(self.kubectl_command().args(args))
    }

    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_command().args(args).output().unwrap()
    }

    /// A kubectl that goes on beside the test.
    pub(crate) fn spawn_kubectl(&self, args: &[&str]) -> Child {
        self.kubectl_command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What a call that must fail says.
    #[track_caller]
    pub(crate) fn kubectl_fails(&self, args: &[&str]) -> String {
        let out = self.try_kubectl(args);
        assert!(!out.status.success(), "kubectl {args:?} succeeded: {}", text(&out));
        text(&out)
    }

    /// Calls kubectl with a manifest on its standard input.
    pub(crate) fn kubectl_stdin(&self, args: &[&str], manifest: &str) -> Output {
        let mut command = self.kubectl_command();
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn apply(&self, namespace: &str, manifest: &str) -> String {
        let out = self.kubectl_stdin(&["apply", "-n", namespace, "-f", "-"], manifest);
        assert!(out.status.success(), "apply: {}", text(&out));
        text(&out)
    }

    /// A namespace for one test, without what another run of it left.
    pub(crate) fn namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=90s"]);
        self.kubectl(&["create", "namespace", name]);
        self.wait("the namespace has its service account", |c| {
            c.try_kubectl(&["get", "serviceaccount", "default", "-n", name]).status.success()
        });
    }

    /// Runs a test; when it fails, what it left goes, so that the next ones find room.
    pub(crate) fn cleanly(&self, test: &fn(&Self)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(self)));
        if let Err(failure) = outcome {
            let namespaces = self.kubectl(&["get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"]);
            let left = namespaces.split_whitespace().filter(|n| *n != "default" && !n.starts_with("kube-"));
            let delete = ["delete", "namespace", "--ignore-not-found", "--timeout=90s"];
            self.try_kubectl(&delete.into_iter().chain(left).collect::<Vec<_>>());
            resume_unwind(failure);
        }
    }

    /// One value of an object by JSONPath, empty when there is none.
    #[track_caller]
    pub(crate) fn value(&self, namespace: &str, what: &str, path: &str) -> String {
        self.kubectl(&["get", "-n", namespace, what, "-o", &format!("jsonpath={path}")])
    }

    /// Waits for a condition; panics with the state of the cluster when it does not come.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.wait_within(DEADLINE, what, condition);
    }

    /// The same for what takes longer than a test usually may.
    #[track_caller]
    pub(crate) fn wait_within(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}\n{}", self.state());
            pause();
        }
    }

    /// What a person would look at when something hangs.
    fn state(&self) -> String {
        let mut out = String::new();
        for args in [&["get", "pods,deploy,rs,svc", "-A", "-o", "wide"][..], &["get", "events", "-A"]] {
            out.push_str(&text(&self.try_kubectl(args)));
        }
        out.push_str(&self.log_tail());
        out
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.machine.directory().join("coracle.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The body that a URL answers on the machine, if it does.
    pub(crate) fn fetch(&self, url: &str) -> Option<String> {
        answer(self.machine.command("curl").args(["-sf", "-m", "5", url]))
    }

    /// The same from the other end of the cable.
    pub(crate) fn fetch_from_lan(&self, url: &str) -> Option<String> {
        answer(self.machine.lan("curl").args(["-sf", "-m", "5", url]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.machine.power_off();
        for child in [self.daemon.take(), self.registry.take()].into_iter().flatten() {
            reap(child);
        }
    }
}

/// Ends a program on the machine that would go on for ever, and gives what it printed.
pub(crate) fn end(child: Child) -> String {
    // The child entered the machine's processes by forking: the program is its own child.
    let pid = child.id();
    let inner = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    succeed(crate::machine::command("kill").args(["-s", "TERM"]).args(inner.split_whitespace()));
    text(&child.wait_with_output().unwrap())
}

/// Its processes ended with the machine.
fn reap(mut child: Child) {
    child.wait().unwrap();
}

fn answer(curl: &mut Command) -> Option<String> {
    let out = curl.output().unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Between two looks at a condition that nothing announces.
fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the condition lives in another process; there is nothing to wait on"
    )]
    std::thread::sleep(Duration::from_millis(100));
}

pub(crate) fn binary() -> String {
    std::env::var("CORACLE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_coracle").to_owned())
}

fn build_images() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let build = top().join("tests/images/build.py");
        succeed(crate::machine::command("python3").arg(build).arg("build").arg(top().join("target/images")));
    });
}
