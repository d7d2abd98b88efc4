//! What a pod takes of the node's disk: the one measure that limits, eviction and statistics share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use runtime::{ContainerStatus, Runtime, TreeUsage, tree_usage};

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
}

impl DiskUse {
    pub(crate) fn total(&self) -> TreeUsage {
        let containers: TreeUsage = self.containers.values().map(ContainerUse::total).sum();
        let volumes: TreeUsage = self.empty_dirs.values().copied().sum();
        containers + self.dead + volumes + self.files
    }

    /// Walks everything that the pod may have filled.
    pub(crate) async fn measure(kubelet: &Kubelet, pod: &Pod) -> Self {
        let seen = Observed::new(None, kubelet.runtime.sandbox_containers(pod.uid()), Vec::new());
        let mut out = Self::default();
        for c in &seen.containers {
            let layer = layer(&kubelet.runtime, c).await;
            if seen.latest(&c.name).is_some_and(|newest| newest.id == c.id) {
                out.containers.entry(c.name.clone()).or_default().layer = layer;
            } else {
                out.dead = out.dead + layer;
            }
        }
        let logs = pod_log_dir(&kubelet.cfg.log_dir, pod);
        for (name, used) in &mut out.containers {
            used.logs = directory(kubelet, pod, logs.join(name)).await;
        }
        let pod_dir = kubelet.cfg.pod_dir(pod.uid());
        for (name, _) in empty_dirs(pod) {
            let dir = volumes::empty_dir_path(&pod_dir, name);
            out.empty_dirs.insert(name.to_owned(), directory(kubelet, pod, dir).await);
        }
        let messages = directory(kubelet, pod, pod_dir.join(volumes::CONTAINERS)).await;
        out.files = messages + on_disk(kubelet, pod, move || plain_files(&pod_dir)).await;
        out
    }
}

/// Those on disk; the kernel keeps the ones in memory within their size.
pub(crate) fn empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    let volumes = pod.spec().volumes.iter().flatten();
    let sources = volumes.filter_map(|v| Some((&*v.name, v.empty_dir.as_ref()?)));
    sources.filter(|(_, source)| source.medium.as_deref().unwrap_or_default().is_empty())
}

/// What went while it was asked about uses nothing.
async fn layer(runtime: &Runtime, c: &ContainerStatus) -> TreeUsage {
    runtime.layer_usage(&c.id).await.unwrap_or_default()
}

async fn directory(kubelet: &Kubelet, pod: &Pod, dir: PathBuf) -> TreeUsage {
    on_disk(kubelet, pod, move || tree_usage(&dir)).await
}

/// The files right in a pod's directory: containers may write some of them.
fn plain_files(dir: &Path) -> TreeUsage {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|e| e.metadata().ok()).filter(std::fs::Metadata::is_file);
    files.map(|m| TreeUsage { bytes: m.blocks() * 512, inodes: 1 }).sum()
}

async fn on_disk(kubelet: &Kubelet, pod: &Pod, work: impl FnOnce() -> TreeUsage + Send + 'static) -> TreeUsage {
    // The pod is looked at again soon.
    kubelet.on_disk(pod.uid(), move || Ok(work())).await.unwrap_or_default()
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
        };
        assert_eq!(used.total(), TreeUsage { bytes: 54_321, inodes: 5 });
    }
}
