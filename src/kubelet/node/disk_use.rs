//! What a pod takes of the node's disk: the one measure that limits, eviction and statistics share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use runtime::{TreeCount, TreeUsage};

use crate::container_config::pod_log_dir;
use crate::kubelet::Kubelet;
use crate::observed::Observed;
use crate::pod::PodExt;
use crate::volumes;

/// The newest container of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerUse {
    /// Its writable layer.
    pub(crate) layer: TreeUsage,
    /// The logs of all containers of its name.
    pub(crate) logs: TreeUsage,
}

impl ContainerUse {
    pub(crate) fn total(&self) -> TreeUsage {
        self.layer + self.logs
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskUse {
    /// By name.
    pub(crate) containers: BTreeMap<String, ContainerUse>,
    /// Layers of containers that ended and that newer ones follow.
    pub(crate) dead: TreeUsage,
    /// Volumes on disk, by name.
    pub(crate) empty_dirs: BTreeMap<String, TreeUsage>,
    /// `/etc/hosts` and its like, and termination messages.
    pub(crate) files: TreeUsage,
    /// Not all could be counted in time: the pod uses more than this.
    pub(crate) partial: bool,
}

impl DiskUse {
    pub(crate) fn total(&self) -> TreeUsage {
        let containers: TreeUsage = self.containers.values().map(ContainerUse::total).sum();
        let volumes: TreeUsage = self.empty_dirs.values().copied().sum();
        containers + self.dead + volumes + self.files
    }

    /// What was counted of the pod at most `age` ago, or as much of it as can be counted within `patience`.
    pub(crate) async fn measure(kubelet: &Kubelet, pod: &Pod, age: Duration, patience: Duration) -> Arc<Self> {
        kubelet.disk_walks.used(kubelet.disk(), pod.uid(), || Walk::of(kubelet, pod), age, patience).await
    }

    /// A partial count is at least what was known before it.
    pub(super) fn at_least(mut self, known: &Self) -> Self {
        let raise = |used: &mut TreeUsage, known: TreeUsage| {
            used.bytes = used.bytes.max(known.bytes);
            used.inodes = used.inodes.max(known.inodes);
        };
        for (name, known) in &known.containers {
            let used = self.containers.entry(name.clone()).or_default();
            raise(&mut used.layer, known.layer);
            raise(&mut used.logs, known.logs);
        }
        for (name, known) in &known.empty_dirs {
            raise(self.empty_dirs.entry(name.clone()).or_default(), *known);
        }
        raise(&mut self.dead, known.dead);
        raise(&mut self.files, known.files);
        self
    }
}

/// What the directories of one walk belong to.
enum Place {
    Layer(String),
    Logs(String),
    Dead,
    EmptyDir(String),
    /// The plain files of the pod's directory count as well.
    Files,
}

/// One walk through everything that a pod may have filled. Its count can be read while it goes on.
pub(crate) struct Walk {
    parts: Vec<(Place, Vec<PathBuf>, TreeCount)>,
    pod_dir: PathBuf,
}

impl Walk {
    fn of(kubelet: &Kubelet, pod: &Pod) -> Self {
        let seen = Observed::new(None, kubelet.runtime.sandbox_containers(pod.uid()), Vec::new());
        let pod_dir = kubelet.cfg.pod_dir(pod.uid());
        let logs = pod_log_dir(&kubelet.cfg.log_dir, pod);
        let mut parts = Vec::new();
        let mut add = |place, dirs| parts.push((place, dirs, TreeCount::default()));
        for c in &seen.containers {
            let newest = seen.latest(&c.name).is_some_and(|newest| newest.id == c.id);
            // What went while it was asked about uses nothing.
            let layers = kubelet.runtime.layer_dirs(&c.id).map(Vec::from).unwrap_or_default();
            if newest {
                add(Place::Layer(c.name.clone()), layers);
                add(Place::Logs(c.name.clone()), vec![logs.join(&c.name)]);
            } else {
                add(Place::Dead, layers);
            }
        }
        for (name, _) in empty_dirs(pod) {
            add(Place::EmptyDir(name.to_owned()), vec![volumes::empty_dir_path(&pod_dir, name)]);
        }
        add(Place::Files, vec![pod_dir.join(volumes::CONTAINERS)]);
        Self { parts, pod_dir }
    }

    #[cfg(test)]
    pub(super) fn of_empty_dir(dir: &Path) -> Self {
        let part = (Place::EmptyDir("e".to_owned()), vec![dir.to_owned()], TreeCount::default());
        Self { parts: vec![part], pod_dir: dir.join("absent") }
    }

    /// Blocks: only in the disk room. Returns whether everything was counted.
    pub(super) fn run(&self) -> bool {
        let mut whole = true;
        for (place, dirs, count) in &self.parts {
            for dir in dirs {
                whole &= count.walk(dir);
            }
            if matches!(place, Place::Files) {
                count.add(plain_files(&self.pod_dir));
            }
        }
        whole
    }

    /// It ends soon, unless the kernel keeps it.
    pub(super) fn end(&self) {
        self.parts.iter().for_each(|(.., count)| count.end());
    }

    pub(super) fn so_far(&self) -> DiskUse {
        let mut out = DiskUse::default();
        for (place, _, count) in &self.parts {
            let used = count.so_far();
            match place {
                Place::Layer(name) => out.containers.entry(name.clone()).or_default().layer = used,
                Place::Logs(name) => out.containers.entry(name.clone()).or_default().logs = used,
                Place::Dead => out.dead = out.dead + used,
                Place::EmptyDir(name) => drop(out.empty_dirs.insert(name.clone(), used)),
                Place::Files => out.files = used,
            }
        }
        out
    }
}

/// Those on disk; the kernel keeps the ones in memory within their size.
pub(crate) fn empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    let volumes = pod.spec().volumes.iter().flatten();
    let sources = volumes.filter_map(|v| Some((&*v.name, v.empty_dir.as_ref()?)));
    sources.filter(|(_, source)| source.medium.as_deref().unwrap_or_default().is_empty())
}

/// The files right in a pod's directory: containers may write some of them.
fn plain_files(dir: &Path) -> TreeUsage {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|e| e.metadata().ok()).filter(std::fs::Metadata::is_file);
    files.map(|m| TreeUsage { bytes: m.blocks() * 512, inodes: 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_pod_fills_counts() {
        let of = |bytes| TreeUsage { bytes, inodes: 1 };
        let used = DiskUse {
            containers: [("a".to_owned(), ContainerUse { layer: of(1), logs: of(20) })].into(),
            dead: of(300),
            empty_dirs: [("e".to_owned(), of(4000))].into(),
            files: of(50_000),
            partial: false,
        };
        assert_eq!(used.total(), TreeUsage { bytes: 54_321, inodes: 5 });
    }

    #[test]
    fn a_walk_counts_each_part_of_a_pod() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["upper/a", "volumes/b", "logs/0.log", "dead/x", "scratch/y", "pod/etc-hosts", "pod/containers/m"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; 5000]).unwrap();
        }
        let part =
            |place, dirs: &[&str]| (place, dirs.iter().map(|d| dir.path().join(d)).collect(), TreeCount::default());
        let walk = Walk {
            parts: vec![
                part(Place::Layer("a".to_owned()), &["upper", "volumes"]),
                part(Place::Logs("a".to_owned()), &["logs", "absent"]),
                part(Place::Dead, &["dead"]),
                part(Place::EmptyDir("e".to_owned()), &["scratch"]),
                part(Place::Files, &["pod/containers"]),
            ],
            pod_dir: dir.path().join("pod"),
        };
        assert!(walk.run());
        let used = walk.so_far();
        let inodes = |u: TreeUsage| u.inodes;
        assert_eq!((inodes(used.containers["a"].layer), inodes(used.containers["a"].logs)), (2, 1));
        assert_eq!((inodes(used.dead), inodes(used.empty_dirs["e"]), inodes(used.files)), (1, 1, 2));
        assert!(used.total().bytes >= 7 * 5000);
        walk.end();
        assert!(!walk.run(), "an ended walk says that it is not whole");
    }

    #[test]
    fn a_partial_count_forgets_nothing_that_was_known() {
        let of = |bytes| TreeUsage { bytes, inodes: 1 };
        let known = DiskUse { empty_dirs: [("e".to_owned(), of(4000))].into(), files: of(5), ..DiskUse::default() };
        let partial = DiskUse { files: of(50), partial: true, ..DiskUse::default() };
        let expected = DiskUse { files: of(50), partial: true, ..known.clone() };
        assert_eq!(partial.at_least(&known), expected);
    }
}
