//! What is mounted where in a container.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::types::{Mount, Propagation};

/// A mount as the OCI specification writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OciMount {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub source: PathBuf,
    pub options: Vec<&'static str>,
}

/// The paths that the kernel shows more of than a container should see.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

pub(crate) const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where a container finds its cgroup.
#[derive(Clone, Debug)]
pub(crate) enum CgroupView<'a> {
    /// A v2 mount, confined by the container's own cgroup namespace.
    V2,
    /// The v1 hierarchies and the container's path in each. libcontainer's own v1 view would be
    /// writable, so that root in a container could lift its limits.
    V1 { hierarchies: &'a [PathBuf], path: &'a str },
}

/// The mounts of a container; the pod's own replace defaults at the same place and below.
pub(crate) fn mounts(pod: &[Mount], privileged: bool, shm: &Path, cgroups: &CgroupView<'_>) -> Vec<OciMount> {
    let mut mounts = defaults(privileged, shm);
    mounts.extend(cgroup_mounts(privileged, cgroups));
    // Those below would be hidden, and their places may not be there to mount them at.
    mounts.retain(|default| !pod.iter().any(|mount| default.destination.starts_with(&mount.container_path)));
    let mut pod = pod.to_vec();
    // Parents first, so that none hides another.
    pod.sort_by_key(|mount| mount.container_path.components().count());
    mounts.extend(pod.into_iter().map(|mount| OciMount {
        destination: mount.container_path,
        kind: "bind",
        source: mount.host_path,
        options: match (mount.read_only, mount.recursive_read_only) {
            (false, _) => vec!["rbind", "rw"],
            (true, false) => vec!["rbind", "ro"],
            (true, true) => vec!["rbind", "ro", "rro"],
        },
    }));
    mounts
}

fn mount(destination: &str, kind: &'static str, options: &[&'static str]) -> OciMount {
    OciMount { destination: destination.into(), kind, source: kind.into(), options: options.to_vec() }
}

fn defaults(privileged: bool, shm: &Path) -> Vec<OciMount> {
    let access = if privileged { "rw" } else { "ro" };
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        OciMount {
            destination: "/dev/shm".into(),
            kind: "bind",
            source: shm.to_owned(),
            options: vec!["rbind", "rw", "nosuid", "noexec", "nodev"],
        },
    ]
}

fn cgroup_mounts(privileged: bool, view: &CgroupView<'_>) -> Vec<OciMount> {
    let access = if privileged { "rw" } else { "ro" };
    match view {
        CgroupView::V2 => {
            vec![mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access])]
        }
        CgroupView::V1 { hierarchies, path } => {
            let root = mount("/sys/fs/cgroup", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]);
            let hierarchy = |hierarchy: &PathBuf| OciMount {
                destination: Path::new("/sys/fs/cgroup").join(hierarchy.file_name().unwrap_or_default()),
                kind: "bind",
                source: hierarchy.join(path.trim_start_matches('/')),
                options: vec!["rbind", access, "nosuid", "noexec", "nodev"],
            };
            std::iter::once(root).chain(hierarchies.iter().map(hierarchy)).collect()
        }
    }
}

/// How mounts pass between host and container: the setting of the whole tree, and the mounts that
/// want another one. libcontainer knows only the former.
pub(crate) fn propagation(pod: &[Mount]) -> (Propagation, Vec<(PathBuf, Propagation)>) {
    let wants = |wish| pod.iter().any(|mount| mount.propagation == wish);
    let tree = if wants(Propagation::Bidirectional) {
        Propagation::Bidirectional
    } else if wants(Propagation::HostToContainer) {
        Propagation::HostToContainer
    } else {
        Propagation::Private
    };
    let others = pod.iter().filter(|mount| mount.propagation != tree);
    (tree, others.map(|mount| (mount.container_path.clone(), mount.propagation)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &str, propagation: Propagation) -> Mount {
        Mount {
            host_path: "/host".into(),
            container_path: path.into(),
            read_only: true,
            recursive_read_only: false,
            propagation,
        }
    }

    #[test]
    fn read_only_reaches_the_mounts_below_when_asked() {
        for (read_only, recursive_read_only, expected) in [
            (false, false, &["rbind", "rw"][..]),
            (true, false, &["rbind", "ro"]),
            (true, true, &["rbind", "ro", "rro"]),
        ] {
            let pod = Mount { read_only, recursive_read_only, ..bind("/a", Propagation::Private) };
            let found = mounts(&[pod], false, Path::new("/pod/shm"), &CgroupView::V2);
            assert_eq!(found.last().unwrap().options, expected);
        }
    }

    #[test]
    fn pod_mounts_come_last_by_depth_and_replace_defaults() {
        let pod = [
            bind("/a/b/c", Propagation::Private),
            bind("/a", Propagation::Private),
            bind("/dev/shm", Propagation::Private),
        ];
        let found = mounts(&pod, false, Path::new("/pod/shm"), &CgroupView::V2);
        let places = found.iter().map(|mount| mount.destination.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            places,
            ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/a", "/dev/shm", "/a/b/c"]
        );
        assert_eq!(found[7].options, ["rbind", "ro"]);
    }

    #[test]
    fn a_mount_of_the_pod_takes_the_place_of_defaults_below_it() {
        let hierarchies = [PathBuf::from("/sys/fs/cgroup/memory")];
        let view = CgroupView::V1 { hierarchies: &hierarchies, path: "/kubepods/p/c" };
        for (place, left) in [("/sys/fs/cgroup", vec!["/sys"]), ("/sys", vec![])] {
            let found = mounts(&[bind(place, Propagation::Private)], false, Path::new("/shm"), &view);
            let below = found.iter().map(|mount| mount.destination.to_str().unwrap());
            let below = below.filter(|found| found.starts_with("/sys") && *found != place).collect::<Vec<_>>();
            assert_eq!(below, left, "{place}");
        }
    }

    #[test]
    fn only_privileged_containers_write_sys_and_cgroups() {
        let hierarchies = [PathBuf::from("/sys/fs/cgroup/memory")];
        let view = CgroupView::V1 { hierarchies: &hierarchies, path: "/kubepods/p/c" };
        let access = |privileged| {
            let found = mounts(&[], privileged, Path::new("/shm"), &view);
            let of = |place: &str| {
                let mount = found.iter().find(|mount| mount.destination == Path::new(place)).unwrap();
                mount.options.iter().copied().find(|option| ["ro", "rw"].contains(option)).unwrap()
            };
            assert_eq!(found.last().unwrap().source, Path::new("/sys/fs/cgroup/memory/kubepods/p/c"));
            [of("/sys"), of("/sys/fs/cgroup/memory")]
        };
        assert_eq!(access(false), ["ro", "ro"]);
        assert_eq!(access(true), ["rw", "rw"]);
    }

    #[test]
    fn the_widest_propagation_sets_the_tree() {
        let pod = [
            bind("/p", Propagation::Private),
            bind("/h", Propagation::HostToContainer),
            bind("/b", Propagation::Bidirectional),
        ];
        let (tree, others) = propagation(&pod);
        assert_eq!(tree, Propagation::Bidirectional);
        assert_eq!(others, [("/p".into(), Propagation::Private), ("/h".into(), Propagation::HostToContainer)]);
        assert_eq!(propagation(&pod[..1]), (Propagation::Private, vec![]));
    }
}
