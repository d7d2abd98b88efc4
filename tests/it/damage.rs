//! The store, a port or the right to run is missing: what the server says, and what runs on.

use std::process::Output;

use crate::cluster::{Cluster, binary};
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("damage_of_the_store_is_told_and_ends_no_pod", store),
    ("damage_of_one_object_leaves_the_others", object),
    ("damage_ports_of_others_are_waited_for", ports),
];

const DATABASE: &str = "/var/lib/coracle/server/db/state.redb";

/// A server that must end by itself.
fn server(c: &Cluster) -> Output {
    let args = ["server", "--node-ip", "192.168.77.2", "--node-name", "pi"];
    c.machine.command(&binary()).args(args).output().unwrap()
}

#[track_caller]
fn refused(c: &Cluster, sentence: &str, code: i32) {
    let out = server(c);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(code), "{said}");
    assert_eq!(said.matches(sentence).count(), 1, "{said}");
}

fn web(name: &str) -> (Cluster, String, String) {
    let c = Cluster::start(name);
    c.kubectl(&["run", "web", "--image=nginx:alpine"]);
    wait_for_pods(&c, "default", "run=web", 1);
    let id = c.value("default", "pod/web", "{.status.containerStatuses[0].containerID}");
    let url = format!("http://{}", c.value("default", "pod/web", "{.status.podIP}"));
    (c, id, url)
}

fn store() {
    let (mut c, id, url) = web("damage");
    refused(&c, "another coracle is running on this machine", 1);
    let other = ["server", "--data-dir=/tmp/none", "--node-ip=192.168.77.2", "--disable-agent"];
    let second = |more: &[&str]| {
        let out = c.machine.command(&binary()).args(other).args(more).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        assert!(
            !c.machine.command("test").args(["-e", "/tmp/none"]).status().unwrap().success(),
            "nothing was written"
        );
        text(&out)
    };
    let taken = second(&[]);
    assert_eq!(taken.matches("it has the kubeconfig /etc/coracle/kubeconfig.yaml").count(), 1, "{taken}");
    let taken = second(&["--write-kubeconfig=/tmp/none.yaml"]);
    assert_eq!(taken.matches("cannot listen on 0.0.0.0:6443").count(), 1, "{taken}");
    assert!(taken.contains("--https-port"), "{taken}");
    let others = ["--reuid=65534", "--regid=65534", "--clear-groups", "/tmp/coracle", "server", "--data-dir=/tmp/none"];
    c.machine.run("cp", &[&binary(), "/tmp/coracle"]);
    let unprivileged = c.machine.command("setpriv").args(others).output().unwrap();
    assert_eq!(text(&unprivileged).matches("needs root").count(), 1, "{}", text(&unprivileged));
    assert!(!c.machine.command("test").args(["-e", "/tmp/none"]).status().unwrap().success(), "nothing was written");
    c.machine.run("rm", &["/tmp/coracle"]);

    c.end_daemon("KILL");
    c.machine.run("mv", &[DATABASE, "/var/lib/kept"]);
    refused(&c, "is missing or empty, but there was one", 78);
    assert!(!c.machine.command("test").args(["-e", DATABASE]).status().unwrap().success(), "nothing was written");
    let check = c.machine.command(&binary()).arg("check").output().unwrap();
    assert!(!check.status.success() && text(&check).contains("is missing or empty"), "{}", text(&check));
    c.machine.run("touch", &[DATABASE]);
    refused(&c, "is missing or empty, but there was one", 78);
    c.machine.run("cp", &["/var/lib/kept", DATABASE]);
    c.machine.run("truncate", &["-s", "20000", DATABASE]);
    refused(&c, "is damaged and cannot be read whole", 78);
    assert!(c.fetch(&url).is_some_and(|page| page.contains("nginx")), "the pod runs on");

    c.machine.run("mv", &["/var/lib/kept", DATABASE]);
    let check = c.machine.run(&binary(), &["check"]);
    assert!(check.contains("objects can be read") && check.contains("belong together"), "{check}");
    c.start_daemon();
    c.wait("the node is ready again", |c| c.node_is_ready());
    assert_eq!(c.value("default", "pod/web", "{.status.containerStatuses[0].containerID}"), id);

    c.end_daemon("TERM");
    c.machine.run("mv", &["/var/lib/coracle/server/tls/ca.key", "/var/lib/kept"]);
    refused(&c, "ca.key is missing, without which no certificate can be issued", 78);
    c.machine.run("mv", &["/var/lib/kept", "/var/lib/coracle/server/tls/ca.key"]);
    c.machine.run("rm", &["/var/lib/coracle/server/tls/ca.crt"]);
    c.start_daemon();
    assert_eq!(c.value("default", "pod/web", "{.status.containerStatuses[0].containerID}"), id);
}

/// Bytes of one object are overwritten, as a bad block would.
fn object() {
    let (mut c, id, url) = web("object");
    c.kubectl(&["create", "configmap", "doomed", "--from-literal=key=DAMAGE-THIS-VALUE"]);
    c.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]);
    c.end_daemon("TERM");
    c.machine.run("sed", &["-i", "s/DAMAGE-THIS-VALUE/################ /", DATABASE]);
    let check = c.machine.command(&binary()).arg("check").output().unwrap();
    let name = "/registry/core/configmaps/default/doomed";
    assert!(!check.status.success() && text(&check).contains(name), "{}", text(&check));
    c.start_daemon();
    c.wait("the node is ready again", |c| c.node_is_ready());
    let said = c.kubectl_fails(&["get", "configmap", "doomed"]);
    assert!(said.contains("InternalError") && said.contains("is damaged in the store"), "{said}");
    assert_eq!(c.value("default", "configmap/kept", "{.data.key}"), "value");
    c.wait("an event names it", |c| c.kubectl(&["get", "events", "-A"]).contains(name));
    let log = std::fs::read_to_string(c.machine.directory().join("coracle.log")).unwrap();
    assert!(log.contains(name) && !log.contains("panicked"), "{log}");
    assert_eq!(c.value("default", "pod/web", "{.status.containerStatuses[0].containerID}"), id);
    assert!(c.fetch(&url).is_some_and(|page| page.contains("nginx")));
    c.kubectl(&["create", "configmap", "doomed", "--from-literal=key=anew"]);
    assert_eq!(c.value("default", "configmap/doomed", "{.data.key}"), "anew");
}

/// Everything but the first page is overwritten while the server runs. It finds out when it needs a page that it has
/// not in its cache, ends, and does not start on what is left.
fn ports() {
    let (mut c, _, _) = web("ports");
    c.end_daemon("TERM");
    let mut others: Vec<_> = [("10250", "0.0.0.0"), ("53", "0.0.0.0")]
        .into_iter()
        .map(|(port, address)| {
            let args = ["-m", "http.server", "--bind", address, "--directory", "/var/lib/coracle/images", port];
            c.machine.command("python3").args(args).spawn().unwrap()
        })
        .collect();
    // Both: what asks for a port after the daemon's start comes too late.
    c.wait("somebody else has the ports", |c| {
        let sockets = c.machine.run("cat", &["/proc/net/tcp"]);
        ["280A", "0035"].iter().all(|port| sockets.contains(&format!(" 00000000:{port} 00000000:0000 0A ")))
    });
    c.start_daemon();
    c.wait("the node is ready without them", |c| c.node_is_ready());
    let condition =
        r#"{.status.conditions[?(@.type=="PartFailed")].status} {.status.conditions[?(@.type=="PartFailed")].message}"#;
    c.wait("the node says what is wrong", |c| {
        let said = c.value("default", "node/pi", condition);
        said.starts_with("True") && said.contains("10250") && said.contains("dns: cannot bind")
    });
    c.wait("an event says it, too", |c| c.kubectl(&["get", "events", "-A"]).contains("PartFailed"));
    c.kubectl(&["run", "more", "--image=nginx:alpine"]);
    wait_for_pods(&c, "default", "run=more", 1);
    for other in others.drain(..) {
        crate::cluster::end(other);
    }
    c.wait("the parts work again", |c| c.value("default", "node/pi", condition).starts_with("False"));
    assert!(c.kubectl(&["logs", "web"]).contains("start worker process"));
}
