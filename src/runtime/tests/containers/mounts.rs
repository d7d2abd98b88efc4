//! Where mounts go, what is refused, and what a user reads of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use runtime::{ContainerState, Mount, Propagation, Resources};

use crate::fixture::{Node, busybox_layer, write_layers};

fn bind(host_path: &Path, container_path: &str) -> Mount {
    Mount {
        host_path: host_path.to_owned(),
        container_path: container_path.into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }
}

/// A layer of links: where they are, and where they lead.
fn links(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, target) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        tar.append_link(&mut header, path, target).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) async fn links_and_detours(node: &mut Node) {
    let archive = node.dir.path().join("links.tar");
    let layer = links(&[
        ("cache", "/nowhere/cache"),
        ("etc/resolv.conf", "../run/resolve/stub.conf"),
        ("var-data", "../../../../srv/data"),
        ("messages", "/gone/messages"),
    ]);
    let config = serde_json::json!({"Cmd": ["sh"], "Volumes": {"/var-data": {}}});
    write_layers(&archive, "links:1", &[&busybox_layer(), &layer], &config);
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    let host = node.dir.path().join("volume");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "content\n").unwrap();
    node.sandbox("p1").await;
    let mut config = node.shell(
        "cat /nowhere/cache/file /cache/file /run/resolve/stub.conf /etc/resolv.conf; touch /srv/data/x && ls /var-data; \
         echo last >/messages; cat /b/file /cache/below/file; ls -d /a 2>/dev/null || echo none",
    );
    config.image_id = image.id;
    config.mounts = vec![
        bind(&host.join("file"), "/etc/resolv.conf"),
        bind(&host, "/cache"),
        bind(&host, "/a/../b"),
        bind(&host, "/cache/below"),
        bind(&host.join("message"), "/messages"),
    ];
    fs::write(host.join("message"), "").unwrap();
    let (status, log) = node.run("p1", config).await;
    assert_eq!(log, format!("{}x\n{}none\n", "content\n".repeat(4), "content\n".repeat(2)), "{status:?}");
    assert_eq!(fs::read_to_string(host.join("message")).unwrap(), "last\n");
    for outside in ["/nowhere", "/gone", "/run/resolve", "/srv/data"] {
        assert!(!Path::new(outside).exists(), "{outside} was made on the host");
    }
}

/// What the start of a container with this mount fails with.
async fn failure(node: &Node, mount: Mount) -> String {
    let mut config = node.shell("true");
    config.mounts = vec![mount];
    let id = node.runtime().create_container("p1", config).await.unwrap();
    let error = node.runtime().start_container(&id).await.unwrap_err().to_string();
    let status = node.runtime().container_status(&id).unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, Some(128)));
    assert_eq!(status.error.as_deref(), Some(&*error));
    error
}

pub(crate) async fn refused(node: &mut Node) {
    let host = node.dir.path().join("volume");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "").unwrap();
    node.sandbox("p1").await;
    let start =
        format!("unable to start container process: error during container init: error mounting {host:?} to rootfs at");
    for (path, expected) in [
        ("/", "\"/\": create mountpoint for / mount: mountpoint \"/\" is on the top of rootfs"),
        ("/x/..", "\"/\": create mountpoint for / mount: mountpoint \"/\" is on the top of rootfs"),
        ("/proc", "\"/proc\": \"/proc\" cannot be mounted because it is not of type proc"),
        ("/proc/sys", "\"/proc/sys\": \"/proc/sys\" cannot be mounted because it is inside /proc"),
    ] {
        assert_eq!(failure(node, bind(&host, path)).await, format!("{start} {expected}"));
    }
    // A file over a directory.
    let text = failure(node, bind(&host.join("file"), "/etc")).await;
    assert!(text.starts_with("unable to start container process: "), "{text}");
    assert!(text.contains(&format!("{:?} to rootfs at \"/etc\"", host.join("file"))), "{text}");
    assert!(!text.contains('{') && !text.contains("Some(") && !text.contains("Errno"), "{text}");

    // The kernel's other places may be covered, as with other runtimes.
    for path in ["/sys", "/dev", "/dev/shm", "/sys/fs/cgroup"] {
        let mut config = node.shell(&format!("[ -e {path}/file ] && echo seen"));
        config.mounts = vec![bind(&host, path)];
        let (status, log) = node.run("p1", config).await;
        assert_eq!(log, "seen\n", "{path}: {status:?}");
    }
}

pub(crate) async fn too_little_memory(node: &mut Node) {
    let expected = "unable to start container process: container init was OOM-killed (memory limit too low?)";
    let limited = Resources { memory_limit_bytes: Some(64), ..Resources::default() };
    // As with all containers of the pod limited, and with one alone.
    for (uid, of_pod) in [("p1", limited.clone()), ("p2", Resources::default())] {
        let mut sandbox = node.sandbox_config(uid);
        sandbox.resources = of_pod;
        node.runtime().run_sandbox(sandbox).await.unwrap();
        let mut config = node.shell("true");
        config.resources = limited.clone();
        let id = node.runtime().create_container(uid, config).await.unwrap();
        let error = node.runtime().start_container(&id).await.unwrap_err().to_string();
        assert_eq!(error, expected, "{uid}");
        assert_eq!(node.runtime().container_status(&id).unwrap().error.as_deref(), Some(expected), "{uid}");
    }
}

pub(crate) async fn pinned_images(node: &mut Node) {
    let id = node.image_id.clone();
    assert!(node.runtime().pinned_images().is_empty());
    node.runtime().pin_images(BTreeSet::from([id.clone()]));
    assert_eq!(node.runtime().pinned_images(), BTreeSet::from([id]));
}
