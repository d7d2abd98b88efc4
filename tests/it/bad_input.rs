//! What clients get wrong, and the status, reason and message that upstream answers.

use std::process::Output;

use crate::cluster::{Cluster, binary};
use crate::machine::text;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("bad_input_is_refused_in_upstreams_words", manifests),
    ("bad_input_by_raw_requests", raw),
    ("bad_credentials_are_refused", credentials),
    ("bad_expired_certificates_are_refused", expired),
    ("bad_second_server_is_told", second_server),
    ("bad_images_are_told_apart", images),
];

#[track_caller]
fn refused(c: &Cluster, args: &[&str], manifest: &str, expected: &str) {
    let out = c.kubectl_stdin(args, manifest);
    assert!(!out.status.success(), "it was accepted: {}", text(&out));
    assert!(text(&out).contains(expected), "{expected}\nis not in\n{}", text(&out));
}

fn manifests(c: &Cluster) {
    c.namespace("b1");
    let create: &[&str] = &["create", "-nb1", "-f", "-"];
    refused(c, create, "apiVersion: v1\nkind: Pod\nmetadata: [\n", "error converting YAML to JSON");
    let unknown =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i, imagee: x}]}\n";
    refused(
        c,
        create,
        unknown,
        "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\"",
    );
    let warned = c.kubectl_stdin(&["create", "-nb1", "--validate=warn", "--dry-run=server", "-f", "-"], unknown);
    assert!(
        warned.status.success() && text(&warned).contains("Warning: unknown field \"spec.containers[0].imagee\""),
        "{}",
        text(&warned)
    );
    refused(
        c,
        create,
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec: {replicas: many}\n",
        "ReplicaSet in version \"v1\" cannot be handled as a ReplicaSet: json: cannot unmarshal string into Go struct field ReplicaSetSpec.spec.replicas of type int32",
    );
    refused(
        c,
        create,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n",
        "The Pod \"p\" is invalid: spec.containers[0].image: Required value",
    );
    refused(
        c,
        create,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: My_Pod}\nspec: {containers: [{name: c, image: i}]}\n",
        "The Pod \"My_Pod\" is invalid: metadata.name: Invalid value: \"My_Pod\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    refused(
        c,
        create,
        "apiVersion: v9\nkind: Pod\nmetadata: {name: p}\n",
        "no matches for kind \"Pod\" in version \"v9\"",
    );
    refused(
        c,
        &["create", "-n", "nowhere", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n",
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found",
    );
    let missing = c.kubectl_fails(&["patch", "-nb1", "pod", "ghost", "-p", "{}"]);
    assert!(missing.contains("Error from server (NotFound): pods \"ghost\" not found"), "{missing}");
    assert_eq!(c.kubectl(&["get", "pods,rs", "-nb1", "-o", "name"]), "", "nothing is half-written");
    c.kubectl(&["delete", "namespace", "b1", "--wait=false"]);
}

/// `curl` with the administrator's certificate: the status code on the last line.
fn curl(c: &Cluster, args: &[&str]) -> (String, u16) {
    let directory = "/var/lib/coracle/server/tls";
    let mut call = c.machine.command("curl");
    call.args(["-sS", "-w", "\n%{http_code}", "--cacert", &format!("{directory}/ca.crt")]);
    call.args(["--cert", &format!("{directory}/admin.crt"), "--key", &format!("{directory}/admin.key")]);
    let out = call.args(args).output().unwrap();
    let Some((body, code)) = split(&out) else { panic!("{args:?}: {}", text(&out)) };
    assert_ne!(code, 0, "{args:?}: {}", text(&out));
    (body, code)
}

/// What `curl -w '\n%{http_code}'` printed. What it says on standard error is for people.
fn split(out: &Output) -> Option<(String, u16)> {
    let all = String::from_utf8_lossy(&out.stdout);
    let (body, code) = all.rsplit_once('\n')?;
    Some((body.to_owned(), code.parse().ok()?))
}

const API: &str = "https://127.0.0.1:6443";

fn raw(c: &Cluster) {
    c.namespace("b2");
    let maps = format!("{API}/api/v1/namespaces/b2/configmaps");
    let json = ["-H", "Content-Type: application/json"];
    let (body, code) = curl(c, &[&json[..], &["-d", "{\"kind\":", &maps]].concat());
    assert_eq!(code, 400, "{body}");
    assert!(body.contains("\"reason\":\"BadRequest\""), "{body}");

    let big = c.machine.directory().join("var-lib/big.json");
    let value = "x".repeat(2 << 20);
    std::fs::write(
        &big,
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"big"}},"data":{{"k":"{value}"}}}}"#),
    )
    .unwrap();
    let (body, code) = curl(c, &[&json[..], &["--data-binary", "@/var/lib/big.json", &maps]].concat());
    assert_eq!(code, 422, "{body}");
    assert!(body.contains("Too long: may not be more than 1048576 bytes"), "{body}");

    let rules = format!("{API}/apis/rbac.authorization.k8s.io/v1/namespaces/b2/roles");
    let role = format!(
        r#"{{"metadata":{{"name":"big"}},"rules":[{{"apiGroups":[""],"resources":["{value}"],"verbs":["get"]}}]}}"#
    );
    std::fs::write(&big, role).unwrap();
    let (body, code) = curl(c, &[&json[..], &["--data-binary", "@/var/lib/big.json", &rules]].concat());
    assert_eq!((code, body.contains("trying to send message larger than max")), (500, true), "{body}");

    std::fs::write(&big, "x".repeat(4 << 20)).unwrap();
    let (body, code) = curl(c, &[&json[..], &["--data-binary", "@/var/lib/big.json", &maps]].concat());
    assert_eq!(code, 413, "{body}");
    assert!(body.contains("RequestEntityTooLarge"), "{body}");

    let (body, code) = curl(c, &[&format!("{API}/api/v1/namespaces/b2/ghosts")]);
    assert_eq!((code, body.contains("the server could not find the requested resource")), (404, true), "{body}");
    let (body, code) = curl(c, &["-X", "PUT", &maps]);
    assert_eq!((code, body.contains("MethodNotAllowed")), (405, true), "{body}");
    let (body, code) = curl(c, &["-H", "Accept: text/csv", &maps]);
    let told = body.contains("only the following media types are accepted: application/json");
    assert_eq!((code, told), (406, true), "{body}");
    let (body, code) = curl(c, &["-H", "Content-Type: text/csv", "-d", "a,b", &maps]);
    assert_eq!((code, body.contains("UnsupportedMediaType")), (415, true), "{body}");
    c.kubectl(&["create", "configmap", "-nb2", "kept", "--from-literal=a=b"]);
    let stale = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept","resourceVersion":"1"}}"#;
    let (body, code) = curl(c, &[&json[..], &["-X", "PUT", "-d", stale, &format!("{maps}/kept")]].concat());
    assert_eq!(code, 409, "{body}");
    assert!(body.contains("Operation cannot be fulfilled on configmaps \\\"kept\\\": the object has been modified; please apply your changes to the latest version and try again"), "{body}");
    assert_eq!(
        c.kubectl(&["get", "configmap", "-nb2", "-o", "name"]).matches("configmap/").count(),
        2,
        "kept and the root CA"
    );
    c.kubectl(&["delete", "namespace", "b2", "--wait=false"]);
}

fn credentials(c: &Cluster) {
    let pods = format!("{API}/api/v1/pods");
    let wrong = ["-sk", "-w", "\n%{http_code}", "-H", "Authorization: Bearer wrong", &pods];
    let (body, code) = split(&c.machine.command("curl").args(wrong).output().unwrap()).unwrap();
    assert_eq!(code, 401, "{body}");
    assert!(body.contains("\"message\":\"Unauthorized\"") && body.contains("\"reason\":\"Unauthorized\""), "{body}");
    let anonymous = c.machine.command("curl").args(["-sk", &format!("{API}/api/v1/pods")]).output().unwrap();
    assert!(text(&anonymous).contains("Unauthorized"), "{}", text(&anonymous));
    assert_eq!(c.machine.run("curl", &["-sk", &format!("{API}/livez")]), "ok");
    let forbidden = c.kubectl_fails(&["get", "pods", "--as=system:serviceaccount:default:default"]);
    assert!(
        forbidden.contains("Error from server (Forbidden): pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""),
        "{forbidden}"
    );
}

/// Two certificates that the cluster's own CA signed: the time of one is over.
fn expired(c: &Cluster) {
    const TLS: &str = "/var/lib/coracle/server/tls";
    let config = "[ca]\ndefault_ca=c\n[c]\ndatabase=/tmp/index\nnew_certs_dir=/tmp\nunique_subject=no\ndefault_md=sha256\n\
        rand_serial=yes\npolicy=p\nx509_extensions=e\n[p]\norganizationName=optional\ncommonName=supplied\n\
        [e]\nextendedKeyUsage=clientAuth\n";
    std::fs::write(c.machine.directory().join("var-lib/ca.cnf"), config).unwrap();
    let get = |until: &str| {
        let script = format!(
            "set -e; : > /tmp/index
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=system:masters/CN=kubernetes-admin \\
               -keyout /tmp/user.key -out /tmp/user.csr
             openssl ca -batch -notext -config /var/lib/ca.cnf -cert {TLS}/ca.crt -keyfile {TLS}/ca.key \\
               -startdate 20200101000000Z -enddate {until} -in /tmp/user.csr -out /tmp/user.crt"
        );
        c.machine.run("bash", &["-c", &script]);
        let mut call = c.machine.command("curl");
        call.args(["-s", "-w", "\n%{http_code}", "--cacert", &format!("{TLS}/ca.crt"), "--cert", "/tmp/user.crt"]);
        call.args(["--key", "/tmp/user.key", &format!("{API}/api/v1/namespaces")]);
        split(&call.output().unwrap()).unwrap()
    };
    let (body, code) = get("20210101000000Z");
    assert_eq!((code, body.contains("\"message\":\"Unauthorized\"")), (401, true), "{body}");
    let (body, code) = get("20490101000000Z");
    assert_eq!(code, 200, "{body}");
}

/// A second server on the machine says what is wrong, leaves the first alone, and nothing behind.
fn second_server(c: &Cluster) {
    let second = [
        "server",
        "--data-dir=/var/lib/second",
        "--write-kubeconfig=/var/lib/second.yaml",
        "--https-port=7443",
        "--node-name=b",
    ];
    let out = c.machine.command(&binary()).args(second).output().unwrap();
    let said = text(&out);
    assert!(!out.status.success(), "{said}");
    assert!(
        said.contains("another coracle is running on this machine (process ") && said.contains("it has the node"),
        "{said}"
    );
    let left = c.machine.command("ls").args(["/var/lib/second", "/var/lib/second.yaml"]).output().unwrap();
    assert_eq!(text(&left).matches("No such file").count(), 2, "{}", text(&left));
    assert!(c.node_is_ready());
}

fn images(c: &Cluster) {
    c.namespace("b4");
    c.kubectl(&["run", "-nb4", "ghost", "--image=no-such-image"]);
    // kubectl run would refuse the name itself.
    c.apply(
        "b4",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec: {containers: [{name: c, image: 'Not//An@Image'}]}\n",
    );
    c.wait("the image that is not there", |c| {
        let described = c.kubectl(&["describe", "pod", "-nb4", "ghost"]);
        described.contains("Failed to pull image \"no-such-image\"") && described.contains("Error: ErrImagePull")
    });
    c.wait("it backs off", |c| c.kubectl(&["get", "pod", "-nb4", "ghost"]).contains("ImagePullBackOff"));
    c.wait("the name that is none", |c| c.kubectl(&["get", "pod", "-nb4", "wrong"]).contains("InvalidImageName"));
    c.kubectl(&["delete", "namespace", "b4", "--wait=false"]);
}
