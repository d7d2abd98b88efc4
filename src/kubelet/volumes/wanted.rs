//! What is to be set up for one volume, found out from the pod, the cluster and tokens. The only part
//! of setting up that waits for the API server; the file systems come after it, in the disk room.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::Volume;
use jiff::Timestamp;

use super::empty_dir::EmptyDir;
use super::nfs::Nfs;
use super::ownership::{self, FsGroup};
use super::payload::{BytesLeft, Payload};
use super::{
    OWN_DEADLINE, Setup, Tokens, VolumePath, atomic_writer, claims, file_system, files, fs_group, host_path, memory,
    nfs,
};
use crate::pod::PodExt;

/// A path of the node answers at once, unless it is on a server that is gone.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

pub(super) enum Wanted {
    EmptyDir(EmptyDir),
    HostPath {
        path: PathBuf,
        kind: Option<String>,
        read_only: bool,
    },
    /// A `local` persistent volume.
    Local {
        path: PathBuf,
        group: Option<FsGroup>,
        read_only: bool,
    },
    Nfs(Nfs),
    /// It is mounted with the first container that wants it, once its image is there.
    Image,
    Files(Files),
}

/// A volume of files that the kubelet writes.
pub(super) struct Files {
    pub(super) plugin: &'static str,
    pub(super) payload: Payload,
    pub(super) group: Option<FsGroup>,
    /// Secrets and tokens do not touch the disk.
    pub(super) in_memory: bool,
    pub(super) unused: bool,
    /// What the pod's files take up to these.
    pub(super) bytes_of_pod: usize,
    pub(super) now: Timestamp,
}

/// What `volume` asks for.
///
/// # Errors
/// With the text of the event, such as that a source is not there.
pub(super) async fn of(
    cx: &Setup<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
    left: &mut BytesLeft,
) -> Result<Wanted, String> {
    if let Some(source) = &volume.empty_dir {
        return Ok(Wanted::EmptyDir(EmptyDir::of(source, cx.fields.allocatable.memory, fs_group(cx.pod, false))?));
    }
    if let Some(source) = &volume.host_path {
        let (path, kind) = (PathBuf::from(&source.path), source.type_.clone());
        return Ok(Wanted::HostPath { path, kind, read_only: false });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let read_only = source.read_only == Some(true);
        return claims::wanted(cx, &source.claim_name, read_only);
    }
    if volume.ephemeral.is_some() {
        return claims::wanted(cx, &format!("{}-{}", cx.pod.name(), volume.name), false);
    }
    if let Some(source) = &volume.nfs {
        return Ok(Wanted::Nfs(Nfs::of(&source.server, &source.path, source.read_only == Some(true), &[])?));
    }
    if volume.image.is_some() {
        return Ok(Wanted::Image);
    }
    let Some((plugin, payload)) = files::of(cx, volume, tokens, left).await? else {
        return Err("the volume type is not supported on this node".to_owned());
    };
    left.take(&payload)?;
    let in_memory = matches!(plugin, "secret" | "projected" | "downward-api");
    let group = fs_group(cx.pod, true);
    let (unused, bytes_of_pod) = (cx.unused, left.taken());
    Ok(Wanted::Files(Files { plugin, payload, group, in_memory, unused, bytes_of_pod, now: cx.now }))
}

impl Wanted {
    /// To a file system that may not be the node's own.
    pub(super) fn leads_elsewhere(&self) -> bool {
        match self {
            Self::HostPath { .. } | Self::Local { .. } | Self::Nfs(_) => true,
            Self::EmptyDir(_) | Self::Image | Self::Files(_) => false,
        }
    }

    /// Who takes threads for it, where that is not the pod: pods share servers, and file systems that are
    /// mounted on the node. Waits for no other file system than the root's.
    pub(super) fn owner(&self) -> Option<String> {
        match self {
            Self::Nfs(nfs) => Some(nfs.owner()),
            // The root is asked in each pod's own name.
            Self::HostPath { path, .. } | Self::Local { path, .. } => file_system::owner(path),
            Self::EmptyDir(_) | Self::Image | Self::Files(_) => None,
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        match self {
            Self::HostPath { .. } | Self::Local { group: None, .. } => LOOK_DEADLINE,
            Self::Nfs(_) => nfs::DEADLINE,
            Self::Local { .. } | Self::EmptyDir(_) | Self::Image | Self::Files(_) => OWN_DEADLINE,
        }
    }

    /// Makes it so. Blocks: only in the disk room.
    pub(super) fn set_up(self, pod_dir: &Path, name: &str) -> (String, Result<VolumePath, String>) {
        (name.to_owned(), self.make(pod_dir, name))
    }

    fn make(self, pod_dir: &Path, name: &str) -> Result<VolumePath, String> {
        match self {
            Self::EmptyDir(volume) => {
                let dir = super::empty_dir_path(pod_dir, name);
                volume.set_up(&dir).map_err(|e| e.to_string())?;
                Ok(VolumePath::writable(dir))
            }
            Self::HostPath { path, kind, read_only } => {
                host_path::prepare(&path, kind.as_deref())?;
                let make = kind.as_deref().unwrap_or_default().is_empty();
                Ok(VolumePath { read_only, make, ..VolumePath::writable(path) })
            }
            Self::Local { path, group, read_only } => {
                if !path.exists() {
                    return Err(format!("path {:?} does not exist", path.display()));
                }
                if let Some(group) = group {
                    ownership::apply(&path, group).map_err(|e| e.to_string())?;
                }
                Ok(VolumePath { read_only, ..VolumePath::writable(path) })
            }
            Self::Nfs(nfs) => {
                let dir = super::volume_dir(pod_dir, "nfs", name);
                nfs.mount(&dir)?;
                Ok(VolumePath { read_only: nfs.read_only, ..VolumePath::writable(dir) })
            }
            Self::Image => {
                let dir = super::image_path(pod_dir, name);
                memory::make_dir(&dir, 0o755).map_err(|e| e.to_string())?;
                Ok(VolumePath::of_files(dir))
            }
            Self::Files(files) => {
                let dir = files.write(pod_dir, name).map_err(|e| e.to_string())?;
                Ok(VolumePath::of_files(dir))
            }
        }
    }
}

impl Files {
    /// Writes the files, and tells where.
    fn write(&self, pod_dir: &Path, name: &str) -> std::io::Result<PathBuf> {
        let mut dir = super::volume_dir(pod_dir, self.plugin, name);
        if self.in_memory {
            dir = memory::prepare(pod_dir, dir, self.unused, self.bytes_of_pod)?;
        } else {
            memory::make_dir(&dir, 0o755)?;
        }
        atomic_writer::write(&dir, &self.payload, self.group, self.now)?;
        Ok(dir)
    }
}
