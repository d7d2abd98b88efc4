//! emptyDir volumes: on the node's disk, in memory, or in huge pages.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::mount::{MsFlags, mount};

use super::memory::{is_mount_point, make_dir};
use super::ownership::{self, FsGroup};
use crate::resources;

/// An emptyDir: a file system other than the node's own, and who owns it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EmptyDir {
    /// Its kind and options.
    file_system: Option<(&'static str, String)>,
    group: Option<FsGroup>,
}

pub(crate) fn path(pod_dir: &Path, name: &str) -> PathBuf {
    super::volume_dir(pod_dir, "empty-dir", name)
}

impl EmptyDir {
    /// `memory` is what the node gives to pods: the most that one in memory may take.
    pub(super) fn of(source: &EmptyDirVolumeSource, memory: i64, group: Option<FsGroup>) -> Result<Self, String> {
        let file_system = match source.medium.as_deref().unwrap_or_default() {
            "" => None,
            "Memory" => {
                let limit = source.size_limit.as_ref().map(resources::whole).filter(|&l| l > 0);
                Some(("tmpfs", format!("size={}", limit.map_or(memory, |l| l.min(memory)))))
            }
            medium => {
                let page =
                    medium.strip_prefix("HugePages").ok_or_else(|| format!("unknown storage medium {medium:?}"))?;
                let size =
                    page.strip_prefix('-').map(|s| format!("pagesize={}", s.replace('i', ""))).unwrap_or_default();
                Some(("hugetlbfs", size))
            }
        };
        Ok(Self { file_system, group })
    }

    pub(super) fn set_up(&self, dir: &Path) -> io::Result<()> {
        let fresh = !dir.is_dir();
        make_dir(dir, 0o777)?;
        if let Some((kind, options)) = &self.file_system
            && !is_mount_point(dir)?
        {
            mount(Some(*kind), dir, Some(*kind), MsFlags::empty(), Some(options.as_str()))?;
            fs::set_permissions(dir, Permissions::from_mode(0o777))?;
        }
        match self.group {
            Some(group) if fresh => ownership::apply(dir, group),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn media_become_file_systems() {
        let of = |medium: &str, limit: Option<&str>| {
            let source = EmptyDirVolumeSource {
                medium: Some(medium.to_owned()),
                size_limit: limit.map(|l| Quantity(l.to_owned())),
            };
            EmptyDir::of(&source, 1 << 30, None).map(|e| e.file_system)
        };
        assert_eq!(of("", Some("1Mi")), Ok(None));
        assert_eq!(of("Memory", None), Ok(Some(("tmpfs", "size=1073741824".to_owned()))));
        assert_eq!(of("Memory", Some("1Mi")), Ok(Some(("tmpfs", "size=1048576".to_owned()))));
        assert_eq!(of("HugePages-2Mi", None), Ok(Some(("hugetlbfs", "pagesize=2M".to_owned()))));
        assert_eq!(of("Floppy", None), Err("unknown storage medium \"Floppy\"".to_owned()));
    }
}
