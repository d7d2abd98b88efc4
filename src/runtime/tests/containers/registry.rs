//! Pulls from a real registry (Debian's `docker-registry`) on a loopback port.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use runtime::{PullError, Registries, Runtime};
use sha2::{Digest, Sha256};

use crate::fixture::{Node, PATIENCE, busybox_layer, layer_of, open_with};

const REGISTRY: &str = "/usr/bin/docker-registry";

/// A registry process, ended with the test.
struct Registry {
    process: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    #[expect(clippy::disallowed_methods, reason = "the registry is an independent witness")]
    async fn start(dir: &Path) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            dir.display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new(REGISTRY)
            .args(["serve".as_ref(), file.as_os_str()])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let registry = Self { process: process.unwrap(), port };
        let up = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the registry answers");
        registry
    }

    /// One HTTP exchange: status and headers.
    fn request(&self, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let host =
            format!("Host: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", self.port, body.len());
        stream.write_all(format!("{head}\r\n{host}").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{head}: {answer}");
        answer
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let answer = self.request(&format!("POST /v2/{repository}/blobs/uploads/ HTTP/1.1"), b"");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        let path = location.split_once("/v2/").unwrap().1;
        let digest = digest(bytes);
        self.request(
            &format!("PUT /v2/{path}&digest={digest} HTTP/1.1\r\nContent-Type: application/octet-stream"),
            bytes,
        );
        digest
    }

    fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        kind: &str,
        json: &serde_json::Value,
    ) -> (String, usize) {
        let bytes = serde_json::to_vec(json).unwrap();
        self.request(&format!("PUT /v2/{repository}/manifests/{reference} HTTP/1.1\r\nContent-Type: {kind}"), &bytes);
        (digest(&bytes), bytes.len())
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A multi-platform image of two layers, gzip and zstd, with an empty one between them as often as build tools
/// put it there.
fn push_image(registry: &Registry, repository: &str, tag: &str) -> String {
    let layer = busybox_layer();
    let mut second = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(6);
    second.append_data(&mut header, "etc/motd", &b"hello\n"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    second.append_data(&mut header, "etc/.wh.group", &b""[..]).unwrap();
    let second = second.into_inner().unwrap();
    let empty = layer_of(&[]);
    let gzip = |layer: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(layer).unwrap();
        gzip.finish().unwrap()
    };
    let blobs = [gzip(&layer), gzip(&empty), zstd::encode_all(second.as_slice(), 1).unwrap()];
    let diff_ids = [&layer, &empty, &empty, &second, &empty].map(|layer| digest(layer));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh", "-c", "cat /etc/motd; ls /etc"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let described = |bytes: &[u8], kind: &str| {
        serde_json::json!({
            "mediaType": kind, "digest": registry.push_blob(repository, bytes), "size": bytes.len(),
        })
    };
    let bottom = described(&blobs[0], "application/vnd.oci.image.layer.v1.tar+gzip");
    let between = described(&blobs[1], "application/vnd.oci.image.layer.v1.tar+gzip");
    let top = described(&blobs[2], "application/vnd.oci.image.layer.v1.tar+zstd");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": described(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": [bottom, between, between, top, between],
    });
    let (of_manifest, size) = registry.push_manifest(repository, "platform", MANIFEST, &manifest);
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": of_manifest, "size": size,
            "platform": {"architecture": arch, "os": "linux"},
        }],
    });
    registry.push_manifest(repository, tag, INDEX, &index).0
}

async fn runtime_with(dir: &Path, yaml: &str) -> Arc<Runtime> {
    let file = dir.join("registries.yaml");
    fs::write(&file, yaml).unwrap();
    open_with(dir, Registries::load(&file).unwrap()).await
}

pub(crate) async fn images_come_from_mirrors(node: &mut Node) {
    if !Path::new(REGISTRY).exists() {
        println!("  skipped: {REGISTRY} is missing (apt-get install docker-registry)");
        return;
    }
    let storage = node.dir.path().join("registry");
    fs::create_dir(&storage).unwrap();
    let registry = Registry::start(&storage).await;
    let of_index = push_image(&registry, "base/web", "v1");
    let port = registry.port;
    let yaml = format!(
        "mirrors:\n  docker.io:\n    endpoint: ['http://127.0.0.1:{port}']\n    rewrite: {{'^library/(.*)': 'base/$1'}}\n"
    );
    node.use_runtime(runtime_with(node.dir.path(), &yaml).await);
    let runtime = Arc::clone(node.runtime());
    let (one, two) =
        tokio::join!(runtime.pull_image("web:v1", None), runtime.pull_image("docker.io/library/web:v1", None));
    let image = one.unwrap();
    assert_eq!(image, two.unwrap());
    assert_eq!(image.tags, ["docker.io/library/web:v1"]);
    assert_eq!(image.digests, [format!("docker.io/library/web@{of_index}")]);
    assert_eq!(runtime.image_status("web:v1").unwrap().id, image.id);

    node.sandbox("p1").await;
    let mut config = node.shell("");
    config.command.clear();
    config.image_id.clone_from(&image.id);
    let (_, log) = node.run("p1", config.clone()).await;
    assert_eq!(log, "hello\nmotd\npasswd\n", "layers lie on each other and deletions hold");
    runtime.remove_image(&image.id).await.unwrap();
    assert!(runtime.image_status("web:v1").is_none());
    let pinned = runtime.pull_image(&format!("web@{of_index}"), None).await.unwrap();
    assert_eq!((pinned.id, pinned.tags.len()), (image.id, 0));

    let direct = runtime.pull_image(&format!("127.0.0.1:{port}/base/web:v1"), None).await.unwrap();
    assert_eq!(direct.tags, [format!("127.0.0.1:{port}/base/web:v1")]);
    let name = format!("127.0.0.1:{port}/base/web:none");
    let missing = runtime.pull_image(&name, None).await.unwrap_err();
    assert!(matches!(missing, PullError::NotFound { .. }), "{missing:?}");
    let expected = format!(
        "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
    );
    assert_eq!(missing.to_string(), expected);
    let invalid = runtime.pull_image("UPPER case", None).await.unwrap_err();
    assert!(matches!(invalid, PullError::InvalidName { .. }), "{invalid:?}");
    drop(registry);
    let unreachable = runtime.pull_image(&format!("127.0.0.1:{port}/base/web:v1"), None).await.unwrap_err();
    assert!(matches!(unreachable, PullError::Network { .. }), "{unreachable:?}");
}
