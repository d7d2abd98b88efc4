//! From configuration to exit code.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use runtime::{ContainerState, Error, Mount, Propagation, Resources, SandboxState, Scope, Security};

use crate::fixture::{Node, PATIENCE, busybox_layer, layer_of, write_archive, write_layers};

pub(crate) async fn runs_logs_and_ends(node: &mut Node) {
    let sandbox = node.sandbox("p1").await;
    assert_eq!(sandbox.state, SandboxState::Ready);
    let namespace = node.runtime().network_namespace("p1").unwrap();
    let host = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_ne!(namespace.metadata().unwrap().ino(), host);
    let (status, log) = node.run("p1", node.shell("echo out; echo err >&2; printf rest; exit 7")).await;
    assert_eq!((status.exit_code, status.signal, status.oom_killed), (Some(7), None, false));
    let mut lines = log.lines().collect::<Vec<_>>();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out", "rest"]);
    let raw = fs::read_to_string(&status.log_path).unwrap();
    assert!(raw.lines().any(|line| line.contains("Z stderr F err")), "{raw}");
    assert!(raw.lines().any(|line| line.contains("Z stdout P rest")), "{raw}");
    node.runtime().remove_container(&status.id).await.unwrap();
    node.runtime().remove_container(&status.id).await.unwrap();
    assert!(matches!(node.runtime().container_status(&status.id), Err(Error::ContainerNotFound(_))));
    node.runtime().remove_sandbox("p1").await.unwrap();
    assert!(node.runtime().list_sandboxes().is_empty());
    assert!(!crate::restart::running(sandbox.shim_pid));
}

pub(crate) async fn image_defaults_apply(node: &mut Node) {
    let archive = node.dir.path().join("web.tar");
    let config = serde_json::json!({
        "User": "web", "Env": ["A=image", "B=image"], "WorkingDir": "/srv/made",
        "Entrypoint": ["sh", "-c"], "Cmd": ["id; pwd; echo $A $B $HOME $HOSTNAME $PATH; grep NoNewPrivs /proc/self/status"],
    });
    write_archive(&archive, "registry.example/web:1", &busybox_layer(), &config);
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    assert_eq!(
        (image.username.as_deref(), image.tags.as_slice()),
        (Some("web"), &["registry.example/web:1".to_owned()][..])
    );
    node.sandbox("p1").await;
    let mut config = node.shell("");
    config.image_id = image.id;
    config.command.clear();
    config.env = vec![("A".to_owned(), "pod".to_owned())];
    let (_, log) = node.run("p1", config).await;
    let expected = "uid=33(web) gid=34(web) groups=4(log),34(web)\n/srv/made\n\
                    pod image /home/web p1 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nNoNewPrivs:\t0\n";
    assert_eq!(log, expected);
    let mut config = node.shell("id; grep -E 'NoNewPrivs|CapEff' /proc/self/status");
    config.security = Security {
        run_as_user: Some(1234),
        run_as_group: Some(5),
        supplemental_groups: vec![77],
        no_new_privileges: true,
        ..Security::default()
    };
    let (_, log) = node.run("p1", config).await;
    assert_eq!(log, "uid=1234 gid=5 groups=5,77\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
}

pub(crate) async fn image_volumes(node: &mut Node) {
    let archive = node.dir.path().join("db.tar");
    let config = serde_json::json!({
        "User": "web", "Cmd": ["sh"], "Volumes": {"/home/web": {}, "/etc": {}, "/var/made": {}, "/own/": {}},
    });
    write_archive(&archive, "db:1", &busybox_layer(), &config);
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    node.sandbox("p1").await;
    let own = node.dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("file"), "").unwrap();
    let mut config = node.shell(
        "ls /own; touch /x 2>/dev/null || echo read-only; cat /etc/group | wc -l; ls -ld /var/made >/dev/null && echo made; \
         touch /etc/new 2>/dev/null || echo owned; until [ -e /own/go ]; do sleep 0.02; done",
    );
    config.image_id.clone_from(&image.id);
    config.security.read_only_rootfs = true;
    config.mounts = vec![Mount {
        host_path: own.clone(),
        container_path: "/own".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }];
    let id = node.start("p1", config.clone()).await;
    let mut root = config.clone();
    root.security.run_as_user = Some(0);
    root.command =
        ["sh", "-c", "touch /etc/new && ls /etc; touch /var/made/x && echo written"].map(str::to_owned).to_vec();
    root.log_path = node.dir.path().join("logs/root/0.log");
    let (_, log) = node.run("p1", root.clone()).await;
    assert_eq!(log, "group\nnew\npasswd\nwritten\n");
    let (_, log) = node.run("p1", root).await;
    assert_eq!(log, "group\nnew\npasswd\nwritten\n", "each container has volumes of its own");
    fs::write(own.join("go"), "").unwrap();
    let status = node.ended(&id).await;
    assert_eq!(crate::fixture::plain(&status.log_path), "file\nread-only\n3\nmade\nowned\n");
}

/// Above a base whose `/sbin` is a link: a layer that names none of its directories.
pub(crate) async fn layers_on_parents(node: &mut Node) {
    let mut second = tar::Builder::new(Vec::new());
    for (path, content) in [("tmp/new", "new\n"), ("sbin/tool", "#!/bin/sh\necho tool\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        second.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_mode(0o755);
    header.set_size(0);
    second.append_link(&mut header, "busybox-linked", "bin/busybox").unwrap();
    let second = second.into_inner().unwrap();
    let archive = node.dir.path().join("layers.tar");
    write_layers(&archive, "layers:1", &[&busybox_layer(), &second], &serde_json::json!({}));
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    node.sandbox("p1").await;
    let mut config =
        node.shell("ls -ld /tmp | cut -c1-10; cat /tmp/new; readlink /sbin; sbin/tool; /busybox-linked echo linked");
    config.image_id = image.id;
    let (_, log) = node.run("p1", config).await;
    assert_eq!(log, "drwxrwxrwt\nnew\nbin\ntool\nlinked\n");
    let again = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    assert_eq!(again.tags, ["docker.io/library/layers:1"]);
    assert_eq!(
        fs::read_dir(node.dir.path().join("data/imagestore/layers")).unwrap().count(),
        2,
        "nothing is unpacked twice"
    );
    assert_eq!(fs::read_dir(node.dir.path().join("data/imagestore/tmp")).unwrap().count(), 0);
}

/// Build tools put the same empty layer into an image time and again; what comes back hides what is below it.
pub(crate) async fn equal_layers(node: &mut Node) {
    let (empty, base) = (layer_of(&[]), busybox_layer());
    let (one, two) =
        (layer_of(&[("srv/", ""), ("srv/file", "one\n")]), layer_of(&[("srv/", ""), ("srv/file", "two\n")]));
    let onto_them = layer_of(&[("sbin/tool", "#!/bin/sh\necho tool\n")]);
    let archive = node.dir.path().join("equal.tar");
    let layers: [&[u8]; 8] = [&base, &empty, &one, &empty, &two, &one, &onto_them, &empty];
    write_layers(&archive, "equal:1", &layers, &serde_json::json!({}));
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    let unpacked = fs::read_dir(node.dir.path().join("data/imagestore/layers")).unwrap().count();
    assert_eq!(unpacked, 5, "each once");

    let shown = node.dir.path().join("shown");
    fs::create_dir(&shown).unwrap();
    assert!(!node.runtime().images_in_use().unwrap().contains(&image.id));
    node.runtime().mount_image(&image.id, &shown).await.unwrap();
    let (file, in_use) = (fs::read_to_string(shown.join("srv/file")), node.runtime().images_in_use().unwrap());
    nix::mount::umount2(&shown, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(file.unwrap(), "one\n");
    assert!(in_use.contains(&image.id), "{in_use:?}");

    node.sandbox("p1").await;
    let mut config = node.shell("cat /srv/file; readlink /sbin; tool");
    config.image_id = image.id;
    let (_, log) = node.run("p1", config).await;
    assert_eq!(log, "one\nbin\ntool\n");
}

pub(crate) async fn what_cannot_start_says_why(node: &mut Node) {
    node.sandbox("p1").await;
    let mut config = node.shell("");
    config.command = vec!["no-such-program".to_owned()];
    let id = node.runtime().create_container("p1", config).await.unwrap();
    let error = node.runtime().start_container(&id).await.unwrap_err();
    let expected = "unable to start container process: error during container init: \
                    exec: \"no-such-program\": executable file not found in $PATH";
    assert_eq!(error.to_string(), expected);
    let status = node.runtime().container_status(&id).unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, Some(128)));
    assert_eq!(status.error.as_deref(), Some(expected));

    let archive = node.dir.path().join("bare.tar");
    write_archive(&archive, "bare:1", &busybox_layer(), &serde_json::json!({}));
    let image = node.runtime().import_tarball(&archive).await.unwrap().remove(0);
    let mut config = node.shell("");
    config.command.clear();
    config.image_id = image.id;
    let error = node.runtime().create_container("p1", config).await.unwrap_err();
    assert_eq!(error.to_string(), "no command specified");

    let mut config = node.shell("true");
    config.security.add_capabilities = vec!["NONSENSE".to_owned()];
    let id = node.runtime().create_container("p1", config).await.unwrap();
    let error = node.runtime().start_container(&id).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown capability \"CAP_NONSENSE\" to add");
    let (status, _) = node.run("p1", node.shell("exit 3")).await;
    assert_eq!(status.exit_code, Some(3), "failures leave the sandbox usable");
}

pub(crate) async fn stop_asks_then_kills(node: &mut Node) {
    node.sandbox("p1").await;
    let polite = node.shell("trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.05; done");
    let id = node.start("p1", polite).await;
    wait_for_log(node, "up").await;
    node.runtime().stop_container(&id, PATIENCE, Scope::Container).await.unwrap();
    let status = node.runtime().container_status(&id).unwrap();
    assert_eq!((status.exit_code, status.signal), (Some(5), None));
    let id = node.start("p1", node.shell("trap '' TERM; while true; do sleep 0.05; done")).await;
    node.runtime().stop_container(&id, Duration::from_millis(200), Scope::Container).await.unwrap();
    let status = node.runtime().container_status(&id).unwrap();
    assert_eq!((status.exit_code, status.signal), (Some(137), Some(9)));
    node.runtime().stop_container(&id, PATIENCE, Scope::Container).await.unwrap();
    for (signal, expected) in [("SIGRTMIN+3", 37), ("64", 64), ("SIGRTMAX-1", 63), ("no such signal", 15)] {
        let mut config = node.shell("exec sleep 1000");
        // As the first process of a pid namespace it would not be hit by what it does not handle.
        config.processes_of = Some("other".to_owned());
        config.stop_signal = Some(signal.to_owned());
        let target = node.start("p1", other(node, "exec sleep 1000")).await;
        let id = node.start("p1", config).await;
        node.runtime().stop_container(&id, PATIENCE, Scope::Container).await.unwrap();
        let status = node.runtime().container_status(&id).unwrap();
        assert_eq!((status.exit_code, status.signal), (Some(128 + expected), Some(expected)), "{signal}");
        node.runtime().stop_container(&target, Duration::ZERO, Scope::Container).await.unwrap();
    }
}

async fn wait_for_log(node: &Node, text: &str) {
    let log = node.dir.path().join("logs/main/0.log");
    let appears = async {
        while !crate::fixture::plain(&log).contains(text) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, appears).await.unwrap();
}

pub(crate) async fn limits_and_oom(node: &mut Node) {
    let mut sandbox = node.sandbox_config("p1");
    sandbox.resources = Resources { memory_limit_bytes: Some(256 << 20), ..Resources::default() };
    node.runtime().run_sandbox(sandbox).await.unwrap();
    let mut config = node.shell("head -c 8388608 /dev/zero > /dev/shm/ballast; echo up; exec sleep 1000");
    config.resources = Resources {
        memory_limit_bytes: Some(32 << 20),
        cpu_shares: Some(256),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        pids_limit: Some(20),
        ..Resources::default()
    };
    let id = node.start("p1", config.clone()).await;
    wait_for_log(node, "up").await;
    let v1 = !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let file = |controller: &str, v1_name: &str, v2_name: &str| {
        let (root, name) = if v1 { (format!("{controller}/"), v1_name) } else { (String::new(), v2_name) };
        let path = format!("/sys/fs/cgroup/{root}{}/podp1/{id}/{name}", node.cgroup);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    };
    assert_eq!(file("memory", "memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    assert_eq!(file("pids", "pids.max", "pids.max"), "20");
    assert_eq!(file("cpu", "cpu.shares", "cpu.weight"), if v1 { "256" } else { "35" });
    assert_eq!(file("cpu", "cpu.cfs_quota_us", "cpu.max"), if v1 { "50000" } else { "50000 100000" });
    let more = Resources { memory_limit_bytes: Some(64 << 20), ..Resources::default() };
    node.runtime().update_container_resources(&id, more).await.unwrap();
    assert_eq!(file("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let stats = node.runtime().container_stats(&id).await.unwrap();
    assert!(stats.pids == 1 && stats.memory_usage_bytes >= 8 << 20, "{stats:?}");
    let stats = node.runtime().sandbox_stats("p1").await.unwrap();
    assert!(stats.memory_usage_bytes >= 8 << 20, "a pod's use is the sum of its containers': {stats:?}");
    let lift = "for file in memory/memory.limit_in_bytes memory.max; do \
                echo -1 2>/dev/null > /sys/fs/cgroup/$file && echo lifted; done; echo done";
    assert_eq!(node.exec(&id, lift).await, "done", "a container cannot change its own limits");

    let mut hog = config.clone();
    hog.command = vec!["tail".to_owned(), "/dev/zero".to_owned()];
    let (status, _) = node.run("p1", hog).await;
    assert_eq!((status.exit_code, status.oom_killed), (Some(137), true), "{status:?}");
}

pub(crate) async fn namespaces(node: &mut Node) {
    node.sandbox("p1").await;
    let id = node.start("p1", node.shell("echo shared > /dev/shm/note; sleep 1000")).await;
    let (_, log) = node.run("p1", other(node, "cat /dev/shm/note; hostname; ps | grep -c '[s]leep 1000'; readlink /proc/self/ns/net; ip link | grep -c ' lo:'")).await;
    let lines = log.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines[..3], ["shared", "p1", "0"].map(str::to_owned), "the other container's processes are not seen");
    assert_eq!(node.exec(&id, "readlink /proc/self/ns/net").await, lines[3]);
    assert_eq!(lines[4], "1");

    let mut looking = other(node, "ps | grep -c '[s]leep 1000'; sleep 4321 & echo $!");
    looking.processes_of = Some(node.shell("").name);
    let (_, log) = node.run("p1", looking).await;
    let (seen, left) = log.trim().split_once('\n').unwrap();
    assert_eq!(seen, "1", "the target's processes are seen");
    let alive = format!("grep -q '^State:.[RSD]' /proc/{left}/status");
    assert_eq!(node.exec(&id, &format!("while {alive}; do sleep 0.05; done 2>/dev/null; echo gone")).await, "gone");
    let mut lost = other(node, "true");
    lost.processes_of = Some("nobody".to_owned());
    let lost = node.runtime().create_container("p1", lost).await.unwrap();
    let error = node.runtime().start_container(&lost).await.unwrap_err();
    assert!(error.to_string().contains("unable to find target container \"nobody\""), "{error}");

    let mut config = node.sandbox_config("p2");
    config.share_pid = true;
    config.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    node.runtime().run_sandbox(config).await.unwrap();
    let sleeper = node.start("p2", node.shell("sleep 1234 & wait")).await;
    let (_, log) = node.run("p2", other(node, "until ps | grep '[s]leep 1234$' >/dev/null; do sleep 0.05; done; ps | grep -c '[p]ause'; cat /proc/sys/net/ipv4/ip_forward")).await;
    assert_eq!(log, "1\n1\n");
    node.runtime().stop_container(&sleeper, Duration::ZERO, Scope::Container).await.unwrap();
    let (_, log) =
        node.run("p2", other(node, "while ps | grep '[s]leep 1234$' >/dev/null; do sleep 0.05; done; echo none")).await;
    assert_eq!(log, "none\n", "what a container leaves in a shared namespace is ended with it");

    let mut config = node.sandbox_config("p3");
    (config.host_network, config.host_pid, config.host_ipc) = (true, true, true);
    node.runtime().run_sandbox(config).await.unwrap();
    let (_, log) = node.run("p3", other(node, "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done")).await;
    let own = ["net", "ipc", "pid"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    assert_eq!(log.lines().collect::<Vec<_>>(), own.iter().map(|link| link.to_str().unwrap()).collect::<Vec<_>>());
}

fn other(node: &Node, script: &str) -> runtime::ContainerConfig {
    let mut config = node.shell(script);
    config.name = "other".to_owned();
    config.log_path = node.dir.path().join("logs/other/0.log");
    config
}

pub(crate) async fn volumes(node: &mut Node) {
    let host = node.dir.path().join("volume");
    fs::create_dir_all(host.join("below")).unwrap();
    fs::write(host.join("file"), "content").unwrap();
    node.sandbox("p1").await;
    let bind = |path: &str, read_only| Mount {
        host_path: host.clone(),
        container_path: path.into(),
        read_only,
        recursive_read_only: false,
        propagation: Propagation::Private,
    };
    let mut config = node.shell("cat /data/file; touch /ro/x 2>/dev/null || echo ro; touch /root-file 2>/dev/null || echo root-ro; pwd; touch /data/made");
    config.mounts = vec![bind("/data", false), bind("/ro", true)];
    config.mounts.push(Mount { host_path: host.join("file"), container_path: "/etc/hosts".into(), ..bind("/", true) });
    config.security.read_only_rootfs = true;
    config.working_dir = Some("/data/work/dir".to_owned());
    let (status, log) = node.run("p1", config).await;
    assert_eq!(log, "contentro\nroot-ro\n/data/work/dir\n", "{status:?}");
    assert!(host.join("made").exists() && host.join("work/dir").is_dir());

    let mut config = node.shell("true");
    config.mounts = vec![bind("/ro", true)];
    config.working_dir = Some("/ro/absent/below".to_owned());
    let id = node.runtime().create_container("p1", config).await.unwrap();
    let error = node.runtime().start_container(&id).await.unwrap_err().to_string();
    assert_eq!(error, "mkdir /ro/absent/below: read-only file system");
    assert!(!host.join("absent").exists(), "nothing is made through a read-only volume");

    let tmpfs = host.join("below");
    let mut config =
        node.shell("until [ -e /slave/below/late ]; do sleep 0.02; done; [ -e /private/below/late ] || echo hidden");
    let slave = Mount { propagation: Propagation::HostToContainer, ..bind("/slave", false) };
    config.mounts = vec![slave, bind("/private", false)];
    nix::mount::mount(Some(&host), &host, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    nix::mount::mount(None::<&str>, &host, None::<&str>, nix::mount::MsFlags::MS_SHARED, None::<&str>).unwrap();
    let id = node.start("p1", config).await;
    nix::mount::mount(Some("t"), &tmpfs, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    fs::write(tmpfs.join("late"), "").unwrap();
    let status = node.ended(&id).await;
    assert_eq!(crate::fixture::plain(&status.log_path).lines().last(), Some("hidden"));
    nix::mount::umount2(&tmpfs, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let mut config = node.shell("mount -t tmpfs t /both/below && touch /both/below/inside");
    config.mounts = vec![Mount { propagation: Propagation::Bidirectional, ..bind("/both", false) }];
    config.security.privileged = true;
    let (both, log) = node.run("p1", config).await;
    assert_eq!(both.exit_code, Some(0), "{log}");
    assert!(tmpfs.join("inside").exists(), "a mount made inside is seen outside");
    nix::mount::umount2(&tmpfs, nix::mount::MntFlags::MNT_DETACH).unwrap();
    nix::mount::umount2(&host, nix::mount::MntFlags::MNT_DETACH).unwrap();
}
