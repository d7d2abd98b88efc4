//! A node of its own for each test, with a busybox image, and everything removed afterwards.

use std::fs;
use std::future::Future;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use runtime::{
    ContainerConfig, ContainerState, ContainerStatus, LogLimit, Registries, Runtime, RuntimeConfig, SandboxConfig,
    SandboxStatus,
};
use sha2::{Digest, Sha256};

pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// This binary by that name makes shims that speak the first version of the protocol alone.
pub(crate) const FIRST_RELEASE: &str = "first-release";

const BUSYBOX: &str = "/bin/busybox";
/// No step of any test takes nearly as long on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Why these tests cannot run here.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("containers take root".to_owned());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("{BUSYBOX} is missing (apt-get install busybox-static)"));
    }
    None
}

/// Runs one test on a fresh node; false when it failed.
pub(crate) fn run(name: &str, test: fn(&mut Node) -> Outcome<'_>) -> bool {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let passed = executor.block_on(async {
        let mut node = Node::new(name).await;
        let result = AssertUnwindSafe(async {
            node.import().await;
            test(&mut node).await;
        });
        let result = result.catch_unwind().await;
        node.remove().await;
        result.is_ok()
    });
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    runtime: Option<Arc<Runtime>>,
    pub(crate) image_id: String,
    /// Parent of all cgroups of this node.
    pub(crate) cgroup: String,
}

impl Node {
    async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = open(dir.path()).await;
        let cgroup = format!("coracle-test-{}-{name}", std::process::id());
        Self { dir, runtime: Some(runtime), image_id: String::new(), cgroup }
    }

    async fn import(&mut self) {
        let archive = self.dir.path().join("busybox.tar");
        write_archive(&archive, "busybox:test", &busybox_layer(), &serde_json::json!({"Cmd": ["sh"]}));
        self.image_id = self.runtime().import_tarball(&archive).await.unwrap().remove(0).id;
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.as_ref().unwrap()
    }

    /// The daemon dies and another one starts.
    pub(crate) async fn restart(&mut self) {
        self.stop_daemon();
        self.start_daemon().await;
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.runtime = None;
    }

    pub(crate) async fn start_daemon(&mut self) {
        self.runtime = Some(open(self.dir.path()).await);
    }

    /// The daemon's new shims are as the first release made them.
    pub(crate) async fn use_first_shims(&mut self) {
        let config = config_of(self.dir.path());
        let exe = self.dir.path().join(FIRST_RELEASE);
        std::os::unix::fs::symlink(&config.exe, &exe).unwrap();
        self.stop_daemon();
        self.use_runtime(Runtime::open(RuntimeConfig { exe, ..config }).await.unwrap());
    }

    /// The daemon comes back with another configuration.
    pub(crate) fn use_runtime(&mut self, runtime: Arc<Runtime>) {
        self.runtime = Some(runtime);
    }

    pub(crate) fn sandbox_config(&self, uid: &str) -> SandboxConfig {
        SandboxConfig {
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            name: uid.to_owned(),
            hostname: uid.to_owned(),
            cgroup_parent: format!("{}/pod{uid}", self.cgroup),
            log_dir: self.dir.path().join("logs"),
            ..SandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self, uid: &str) -> SandboxStatus {
        self.runtime().run_sandbox(self.sandbox_config(uid)).await.unwrap()
    }

    /// A container that runs a shell script.
    pub(crate) fn shell(&self, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: "main".to_owned(),
            image: "busybox:test".to_owned(),
            image_id: self.image_id.clone(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: self.dir.path().join("logs/main/0.log"),
            ..ContainerConfig::default()
        }
    }

    /// Creates and starts; the container's id.
    pub(crate) async fn start(&self, uid: &str, config: ContainerConfig) -> String {
        let id = self.runtime().create_container(uid, config).await.unwrap();
        self.runtime().start_container(&id).await.unwrap();
        id
    }

    /// Runs a script to its end in a sandbox that exists.
    pub(crate) async fn run(&self, uid: &str, config: ContainerConfig) -> (ContainerStatus, String) {
        let log = config.log_path.clone();
        let _ = fs::remove_file(&log);
        let id = self.start(uid, config).await;
        let status = self.ended(&id).await;
        (status, plain(&log))
    }

    pub(crate) async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events = self.runtime().subscribe();
        let wait = async {
            loop {
                let status = self.runtime().container_status(id).unwrap();
                if status.state == ContainerState::Exited {
                    return status;
                }
                events.recv().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container ends in time")
    }

    /// Standard output of a command in a container, which must succeed.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> String {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let result = self.runtime().exec_sync(id, command, PATIENCE).await.unwrap();
        assert_eq!(result.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&result.stderr));
        String::from_utf8(result.stdout).unwrap().trim().to_owned()
    }

    async fn remove(mut self) {
        let runtime = self.runtime.take().unwrap();
        for sandbox in runtime.list_sandboxes() {
            runtime.remove_sandbox(&sandbox.uid).await.unwrap();
        }
        drop(runtime);
        let run = self.dir.path().join("run/sandboxes");
        nix::mount::umount2(&run, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup));
        }
        let mark = self.dir.path().to_str().unwrap();
        let of_node = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(mark))
        };
        let left = fs::read_dir("/proc").unwrap().flatten().filter(of_node).map(|entry| entry.path());
        assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "processes are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left = mounts.lines().filter(|line| line.contains(self.dir.path().to_str().unwrap())).collect::<Vec<_>>();
        assert!(left.is_empty(), "mounts are left: {left:?}");
    }
}

pub(crate) fn config_of(dir: &Path) -> RuntimeConfig {
    RuntimeConfig {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        exe: PathBuf::from("/proc/self/exe").canonicalize().unwrap(),
        registries: Registries::default(),
        log_limit: LogLimit::default(),
        shim_timeout: PATIENCE,
    }
}

pub(crate) async fn open_with(dir: &Path, registries: Registries) -> Arc<Runtime> {
    Runtime::open(RuntimeConfig { registries, ..config_of(dir) }).await.unwrap()
}

async fn open(dir: &Path) -> Arc<Runtime> {
    open_with(dir, Registries::default()).await
}

/// The lines of a log without times.
pub(crate) fn plain(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n";
    text.lines().map(line).collect()
}

/// A layer of files that anybody may read and run, and of directories where a path ends in a slash.
pub(crate) fn layer_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn busybox_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind, path: &str, link: &str, mode, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, path, content).unwrap();
        } else {
            tar.append_link(&mut header, path, link).unwrap();
        }
    };
    for dir in ["bin/", "etc/", "root/", "home/web/"] {
        add(tar::EntryType::Directory, dir, "", 0o755, b"");
    }
    add(tar::EntryType::Directory, "tmp/", "", 0o1777, b"");
    add(tar::EntryType::Symlink, "sbin", "bin", 0o777, b"");
    add(tar::EntryType::Regular, "bin/busybox", "", 0o755, &fs::read(BUSYBOX).unwrap());
    for applet in APPLETS.split_whitespace() {
        add(tar::EntryType::Symlink, &format!("bin/{applet}"), "busybox", 0o777, b"");
    }
    add(
        tar::EntryType::Regular,
        "etc/passwd",
        "",
        0o644,
        b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n",
    );
    add(tar::EntryType::Regular, "etc/group", "", 0o644, b"root:x:0:\nweb:x:34:\nlog:x:4:web\n");
    tar.into_inner().unwrap()
}

const APPLETS: &str = "sh cat echo sleep id ls mknod mount dd head tail stty tty hostname env pwd grep readlink \
                       ps kill true false touch date seq wc ip unshare trap tr cut chmod mkdir";

/// An image as `docker save` writes it.
pub(crate) fn write_archive(path: &Path, name: &str, layer: &[u8], config: &serde_json::Value) {
    write_layers(path, name, &[layer], config);
}

/// The same with several layers, lowest first.
pub(crate) fn write_layers(path: &Path, name: &str, layers: &[&[u8]], config: &serde_json::Value) {
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let names = (0..layers.len()).map(|n| format!("layer{n}.tar")).collect::<Vec<_>>();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).to_string();
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let documents = [("config.json", config.as_slice()), ("manifest.json", manifest.as_bytes())];
    let layers = names.iter().map(String::as_str).zip(layers.iter().copied());
    for (name, content) in documents.into_iter().chain(layers) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap().flush().unwrap();
}
