//! What containers, pods and images use.

use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

use super::Runtime;
use super::sandboxes::now_ns;
use crate::error::{IoContext, Result};
use crate::types::{FsUsage, Stats};

impl Runtime {
    /// Use of a running container.
    pub async fn container_stats(&self, id: &str) -> Result<Stats> {
        let path = self.container_cgroup(id)?;
        let cgroups = self.cgroups.clone();
        self.blocking("", move || cgroups.stats(&path, now_ns())).await
    }

    /// Where a container writes, whether it runs or not: its own layer, and its image's volumes.
    pub fn layer_dirs(&self, id: &str) -> Result<[PathBuf; 2]> {
        let uid = self.with_container(id, |container| container.record.sandbox_uid.clone())?;
        let paths = self.sandbox_paths(&uid).container(id);
        Ok([paths.upper(), paths.volumes()])
    }

    /// Use of a whole pod.
    pub async fn sandbox_stats(&self, uid: &str) -> Result<Stats> {
        let path = self.with_sandbox(uid, |sandbox| sandbox.record.config.cgroup_parent.clone())?;
        let cgroups = self.cgroups.clone();
        self.blocking("", move || cgroups.stats(&path, now_ns())).await
    }

    /// Use of a cgroup of several pods, such as `kubepods`.
    pub async fn cgroup_stats(&self, path: &str) -> Result<Stats> {
        let (path, cgroups) = (path.to_owned(), self.cgroups.clone());
        self.blocking("", move || cgroups.stats(&path, now_ns())).await
    }

    /// The file system that holds images and containers.
    pub async fn image_fs_usage(&self) -> Result<FsUsage> {
        let dir = self.config.data_dir.clone();
        let used_bytes = self.images.list().iter().map(|image| image.size_bytes).sum();
        self.blocking("", move || {
            let stat = statvfs(&dir).at("inspect", &dir)?;
            Ok(FsUsage {
                capacity_bytes: stat.blocks() * stat.fragment_size(),
                available_bytes: stat.blocks_available() * stat.fragment_size(),
                inodes: stat.files(),
                inodes_free: stat.files_available(),
                used_bytes,
            })
        })
        .await
    }
}
