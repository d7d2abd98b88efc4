use serde_json::{Value, json};

use super::*;
use crate::image::config::ProcessDefaults;
use crate::types::Security;

fn record(config: ContainerConfig) -> ContainerRecord {
    ContainerRecord {
        id: "c1".to_owned(),
        sandbox_uid: "u1".to_owned(),
        config,
        created_at_ns: 0,
        bare: false,
        layer_dir: "/layers".into(),
        layers: vec![],
        defaults: ProcessDefaults {
            cmd: vec!["serve".to_owned()],
            working_dir: "/srv".to_owned(),
            ..ProcessDefaults::default()
        },
    }
}

fn spec(config: ContainerConfig, pid_namespace: PidNamespace<'_>, cgroup_version: Version) -> (Value, Plan) {
    let user = User { uid: 33, gid: 34, groups: vec![4, 34], home: "/var/www".to_owned() };
    let around = Surroundings {
        rootfs: Path::new("/rootfs"),
        shm: Path::new("/shm"),
        hostname: "web-0",
        pid_namespace,
        cgroup_version,
        v1_hierarchies: &[],
        cgroup_path: "/kubepods/podu1/c1",
        user: &user,
        available: Available::everything(),
        open_files_max: 4096,
        host_devices: vec![],
    };
    let plan = plan(&record(config), around).unwrap();
    (serde_json::to_value(&plan.spec).unwrap(), plan)
}

#[test]
fn an_ordinary_container_is_confined() {
    let (spec, plan) = spec(ContainerConfig::default(), PidNamespace::Own, Version::V2);
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["serve"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["user"], json!({"uid": 33, "gid": 34, "additionalGids": [4, 34]}));
    assert_eq!(process.get("noNewPrivileges"), None);
    assert_eq!(process["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}]));
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]));
    assert_eq!(spec["linux"]["rootfsPropagation"], "private");
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED_PATHS.len());
    assert!(!plan.capabilities.contains(&"CAP_SYS_ADMIN".to_owned()));
    assert!(process["capabilities"]["bounding"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    serde_json::from_value::<oci_spec::runtime::Spec>(spec).expect("libcontainer reads it");
}

#[test]
fn wishes_of_the_pod_show() {
    let config = ContainerConfig {
        working_dir: Some("/work".to_owned()),
        tty: true,
        security: Security { privileged: true, no_new_privileges: true, read_only_rootfs: true, ..Security::default() },
        ..ContainerConfig::default()
    };
    let (spec, plan) = spec(config, PidNamespace::Pod(Path::new("/proc/7/ns/pid")), Version::V1);
    assert_eq!(spec["process"]["cwd"], "/work");
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["root"], json!({"path": "/rootfs", "readonly": true}));
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}, {"type": "pid", "path": "/proc/7/ns/pid"}]));
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert!(plan.capabilities.contains(&"CAP_SYS_ADMIN".to_owned()));
}
