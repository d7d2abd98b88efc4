//! A pod's volumes on this node: made before its containers, kept current while it runs, taken
//! away after it.
//!
//! Every volume lives below `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`, except those
//! that only name a path of the node, and those that must not touch the disk, which live below
//! `<root>/secrets/<uid>` in the same way. What is wanted is found out first (`wanted`), then each volume is
//! set up in the disk room: those of the pod's own directory together, those that lead elsewhere each
//! on its own. Setting up twice changes nothing, so the same call refreshes files after their sources
//! changed.

mod atomic_writer;
mod claims;
mod empty_dir;
mod env_file;
mod file_system;
mod files;
mod host_path;
mod memory;
mod mounts;
mod nfs;
mod ownership;
mod payload;
mod references;
mod subpath;
mod teardown;
mod tokens;
mod wanted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, Pod};
use client::{Cluster, kube};
use jiff::Timestamp;
use runtime::{DiskRoom, Lane};
use tokio_util::sync::CancellationToken;

pub(crate) use empty_dir::path as empty_dir_path;
pub(crate) use env_file::{EnvFiles, read as read_env_files};
pub(crate) use file_system::owner as file_system_owner;
pub(crate) use memory::is_mount_point;
pub(crate) use mounts::{CONTAINERS, ETC_HOSTS, HOSTNAME, RESOLV_CONF, container_mounts, sub_paths};
pub(crate) use references::{Referenced, References};
pub(crate) use teardown::remove_pod_dir;
pub(crate) use tokens::Tokens;

use crate::downward::FieldContext;
use crate::pod::PodExt;
use crate::source_room::{Purpose, SourceRoom, Turn};
use ownership::FsGroup;
use wanted::Wanted;

/// A recursive change of owners on a slow card takes minutes; whatever takes longer hangs.
const OWN_DEADLINE: Duration = Duration::from_secs(600);
/// The kernel's table of mounts and the links of the root's file system.
pub(crate) const OWNER_DEADLINE: Duration = Duration::from_secs(30);

/// A volume that cannot be set up; its text is upstream's event.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
pub(crate) struct VolumeError {
    volume: String,
    message: String,
}

/// Where a pod's volumes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted {
    pub(crate) paths: BTreeMap<String, VolumePath>,
    /// When a token in them has to be renewed.
    pub(crate) refresh_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumePath {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// A path of the node that is made with the first container that mounts it.
    pub(crate) make: bool,
    /// Of a volume that leads elsewhere: in whose name its file system is asked.
    pub(crate) elsewhere: Option<String>,
}

impl Mounted {
    /// In whose name to ask, when the container mounts a volume that leads elsewhere.
    pub(crate) fn elsewhere(&self, c: &Container) -> Option<&str> {
        let names = c.volume_mounts.iter().flatten().map(|m| &m.name);
        names.filter_map(|name| self.paths.get(name)?.elsewhere.as_deref()).next()
    }
}

impl VolumePath {
    fn writable(path: PathBuf) -> Self {
        Self { path, read_only: false, make: false, elsewhere: None }
    }

    /// A volume whose files the kubelet writes is read-only for containers, whatever they ask for: one
    /// that could put links in the files' place would lead the kubelet anywhere on the node.
    fn of_files(path: PathBuf) -> Self {
        Self { path, read_only: true, make: false, elsewhere: None }
    }
}

/// What setting up needs of the node.
pub(crate) struct Setup<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) client: &'a kube::Client,
    pub(crate) disk: &'a DiskRoom,
    pub(crate) sources: &'a SourceRoom,
    /// The pod is being stopped: nobody waits for its volumes any more.
    pub(crate) ends: &'a CancellationToken,
    pub(crate) pod: &'a Pod,
    /// `<root>/pods/<uid>`.
    pub(crate) pod_dir: &'a Path,
    pub(crate) fields: &'a FieldContext<'a>,
    /// No container of the pod runs that sees the volumes.
    pub(crate) unused: bool,
    pub(crate) now: Timestamp,
}

type Outcome = (String, Result<VolumePath, String>);

/// Sets all volumes of a pod up.
///
/// # Errors
/// With the volumes that cannot be; with none when the pod is stopped meanwhile.
pub(crate) async fn set_up(cx: &Setup<'_>, tokens: &mut Tokens) -> Result<Mounted, Vec<VolumeError>> {
    let mut own = Vec::new();
    let mut foreign = Vec::new();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut left = payload::BytesLeft::of_pod();
    let (mut turn, metadata) = (None::<Turn>, files::bytes_of_metadata(cx.pod));
    for volume in cx.pod.spec().volumes.iter().flatten() {
        if let Err(message) = files::fetch_tokens(cx, volume, tokens).await {
            outcomes.push((volume.name.clone(), Err(message)));
            continue;
        }
        let bytes = files::bytes_of_sources(cx, volume, metadata);
        if bytes > 0 && !turn.as_mut().is_some_and(|turn| turn.take(bytes)) {
            outcomes.append(&mut set_up_own(cx, std::mem::take(&mut own), turn.take()).await);
            let entered = cx.ends.run_until_cancelled(cx.sources.enter(Purpose::Files, bytes)).await;
            turn = Some(entered.ok_or_else(Vec::new)?);
        }
        match wanted::of(cx, volume, tokens, &mut left).await {
            Ok(wanted) if wanted.leads_elsewhere() => foreign.push((volume.name.clone(), wanted)),
            Ok(wanted) => own.push((volume.name.clone(), wanted)),
            Err(message) => outcomes.push((volume.name.clone(), Err(message))),
        }
    }
    let elsewhere =
        futures::future::join_all(foreign.into_iter().map(|(name, wanted)| set_up_foreign(cx, name, wanted)));
    let (mut here, mut there) = tokio::join!(set_up_own(cx, own, turn), elsewhere);
    outcomes.append(&mut here);
    outcomes.append(&mut there);
    let mut mounted = Mounted { refresh_at: tokens.refresh_at(), ..Mounted::default() };
    let mut failed = Vec::new();
    for (volume, outcome) in outcomes {
        match outcome {
            Ok(path) => drop(mounted.paths.insert(volume, path)),
            Err(message) => failed.push(VolumeError { volume, message }),
        }
    }
    if failed.is_empty() { Ok(mounted) } else { Err(failed) }
}

/// Gives the turn back when the volumes are made.
async fn set_up_own(cx: &Setup<'_>, volumes: Vec<(String, Wanted)>, turn: Option<Turn>) -> Vec<Outcome> {
    let _turn = turn;
    if volumes.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = volumes.iter().map(|(name, _)| name.clone()).collect();
    let pod_dir = cx.pod_dir.to_owned();
    let work =
        move || -> Vec<Outcome> { volumes.into_iter().map(|(name, wanted)| wanted.set_up(&pod_dir, &name)).collect() };
    match cx.disk.run(Lane::Pod, cx.pod.uid(), OWN_DEADLINE, work).await {
        Ok(outcomes) => outcomes,
        Err(e) => names.into_iter().map(|name| (name, Err(e.to_string()))).collect(),
    }
}

async fn set_up_foreign(cx: &Setup<'_>, name: String, wanted: Wanted) -> Outcome {
    let deadline = wanted.deadline();
    let asked = cx.disk.run(Lane::Node, "", OWNER_DEADLINE, move || (wanted.owner(), wanted)).await;
    let (owner, wanted) = match asked {
        Ok((owner, wanted)) => (owner.unwrap_or_else(|| cx.pod.uid().to_owned()), wanted),
        Err(e) => return (name, Err(e.to_string())),
    };
    let (pod_dir, volume) = (cx.pod_dir.to_owned(), name.clone());
    let done = cx.disk.run(Lane::Foreign, &owner, deadline, move || wanted.set_up(&pod_dir, &volume)).await;
    let (_, outcome) = done.unwrap_or_else(|e| (String::new(), Err(e.to_string())));
    (name, outcome.map(|path| VolumePath { elsewhere: Some(owner), ..path }))
}

/// What upstream says when the volumes were not there in time.
pub(crate) fn late(failed: &[VolumeError]) -> String {
    let mut names: Vec<&str> = failed.iter().map(|e| &*e.volume).collect();
    names.sort_unstable();
    format!(
        "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process \
         volumes=[]: context deadline exceeded",
        names.join(" ")
    )
}

pub(crate) fn image_path(pod_dir: &Path, name: &str) -> PathBuf {
    volume_dir(pod_dir, "image", name)
}

fn volume_dir(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

fn fs_group(pod: &Pod, read_only: bool) -> Option<FsGroup> {
    let security = pod.spec().security_context.as_ref()?;
    let gid = u32::try_from(security.fs_group?).ok()?;
    let on_root_mismatch = !read_only && security.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
    Some(FsGroup { gid, read_only, on_root_mismatch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_volumes_are_named_as_upstream_names_them() {
        let failed =
            |name: &str| VolumeError { volume: name.to_owned(), message: "configmap \"x\" not found".to_owned() };
        assert_eq!(failed("b").to_string(), "MountVolume.SetUp failed for volume \"b\" : configmap \"x\" not found");
        assert_eq!(
            late(&[failed("b"), failed("a")]),
            "Unable to attach or mount volumes: unmounted volumes=[a b], unattached volumes=[], \
             failed to process volumes=[]: context deadline exceeded"
        );
    }
}
