//! What a container may not do.

use runtime::{Mount, Propagation, Seccomp};

use crate::fixture::{Node, PATIENCE};

/// The first block device of this machine.
fn block_device() -> Option<(String, u32, u32)> {
    let name = std::fs::read_dir("/sys/class/block").ok()?.flatten().next()?.file_name().into_string().ok()?;
    let numbers = std::fs::read_to_string(format!("/sys/class/block/{name}/dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((name, major.parse().ok()?, minor.parse().ok()?))
}

pub(crate) async fn block_devices(node: &mut Node) {
    let Some((name, major, minor)) = block_device() else {
        println!("skipped: this machine has no block device");
        return;
    };
    node.sandbox("p1").await;
    // Inside a volume there may already be a device node: opening it must fail too.
    let host = node.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    let node_path = host.join("disk");
    let numbers = nix::sys::stat::makedev(major.into(), minor.into());
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&node_path, nix::sys::stat::SFlag::S_IFBLK, mode, numbers).unwrap();
    let script = format!(
        "mknod /tmp/disk b {major} {minor} 2>/dev/null && echo made; \
         head -c 1 /volume/disk >/dev/null 2>&1 && echo read; \
         dd if=/dev/zero of=/volume/disk bs=1 count=0 2>/dev/null && echo written; \
         mknod /tmp/null c 1 3 && echo x > /tmp/null && head -c 1 /dev/urandom >/dev/null && echo usual; \
         mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem 2>/dev/null >/dev/null && echo memory; echo done"
    );
    let mut config = node.shell(&script);
    config.mounts = vec![Mount {
        host_path: host,
        container_path: "/volume".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }];
    let (_, log) = node.run("p1", config.clone()).await;
    assert_eq!(log, "usual\ndone\n", "{name}");
    config.command = vec!["sleep".to_owned(), "1000".to_owned()];
    let id = node.start("p1", config).await;
    assert_eq!(node.exec(&id, &script).await, "usual\ndone", "commands are confined alike");
}

pub(crate) async fn seccomp(node: &mut Node) {
    node.sandbox("p1").await;
    let script = "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null && echo unshared; echo done";
    let mut config = node.shell(script);
    let (_, log) = node.run("p1", config.clone()).await;
    assert!(log.starts_with("Seccomp:\t0\n"), "unconfined unless asked: {log}");
    config.security.seccomp = Seccomp::RuntimeDefault;
    let (_, log) = node.run("p1", config.clone()).await;
    assert_eq!(log, "Seccomp:\t2\ndone\n");
    config.security.no_new_privileges = true;
    config.security.run_as_user = Some(1000);
    let (_, log) = node.run("p1", config.clone()).await;
    assert_eq!(log, "Seccomp:\t2\ndone\n");
    config.command = vec!["sleep".to_owned(), "1000".to_owned()];
    let id = node.start("p1", config).await;
    assert_eq!(node.exec(&id, script).await, "Seccomp:\t2\ndone");
    assert_eq!(node.exec(&id, "grep CapBnd /proc/self/status").await, "CapBnd:\t00000000a80425fb");

    let profile = node.dir.path().join("profile.json");
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&profile, json).unwrap();
    let mut config = node.shell("mkdir /tmp/x");
    config.security.seccomp = Seccomp::Localhost(profile);
    let (_, log) = node.run("p1", config).await;
    assert_eq!(log, "mkdir: can't create directory '/tmp/x': No space left on device\n");
}

pub(crate) async fn privileged(node: &mut Node) {
    node.sandbox("p1").await;
    let mut config = node.shell(
        "ls /dev/null /dev/kmsg; touch /proc/sys/kernel/hostname && echo rw; mount -t tmpfs t /tmp && echo mounted",
    );
    config.security.privileged = true;
    let (status, log) = node.run("p1", config.clone()).await;
    assert_eq!(log, "/dev/kmsg\n/dev/null\nrw\nmounted\n", "{status:?}");
    config.command = ["sh", "-c", "ls -d /dev/pts /dev/kmsg"].map(str::to_owned).to_vec();
    config.mounts = vec![Mount {
        host_path: "/dev".into(),
        container_path: "/dev".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }];
    let (status, log) = node.run("p1", config).await;
    assert_eq!(log, "/dev/kmsg\n/dev/pts\n", "{status:?}");
    let id = node.start("p1", node.shell("sleep 1000")).await;
    let failed = node.runtime().exec_sync(&id, vec!["nope".to_owned()], PATIENCE).await.unwrap_err().to_string();
    assert!(failed.ends_with("exec: \"nope\": executable file not found in $PATH"), "{failed}");
}
