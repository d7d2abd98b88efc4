//! A pod's volumes on this node: made before its containers, kept current while it runs, taken
//! away after it.
//!
//! Every volume lives below `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`, except those
//! that only name a path of the node. Setting up twice changes nothing, so the same call refreshes
//! files after their sources changed.

mod atomic_writer;
mod claims;
mod host_path;
mod mounts;
mod ownership;
mod payload;
mod references;
mod subpath;
mod teardown;
mod tokens;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::k8s_openapi::api::core::v1::{ConfigMap, EmptyDirVolumeSource, Pod, ProjectedVolumeSource, Secret, Volume};
use client::{Cluster, kube};
use jiff::Timestamp;
use nix::mount::{MsFlags, mount};

pub(crate) use mounts::{ETC_HOSTS, HOSTNAME, RESOLV_CONF, container_mounts};
pub(crate) use references::{Referenced, References};
pub(crate) use teardown::remove_pod_dir;
pub(crate) use tokens::Tokens;

use crate::downward::FieldContext;
use crate::pod::PodExt;
use crate::resources;
use ownership::FsGroup;
use payload::{Payload, PayloadError, Selection};

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
}

/// What setting up needs of the node.
pub(crate) struct Setup<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    /// `<root>/pods/<uid>`.
    pub(crate) pod_dir: &'a Path,
    pub(crate) fields: &'a FieldContext<'a>,
    pub(crate) now: Timestamp,
}

/// Sets all volumes of a pod up.
///
/// # Errors
/// With the volumes that cannot be.
pub(crate) async fn set_up(cx: &Setup<'_>, tokens: &mut Tokens) -> Result<Mounted, Vec<VolumeError>> {
    let mut mounted = Mounted::default();
    let mut failed = Vec::new();
    for volume in cx.pod.spec().volumes.iter().flatten() {
        match one(cx, volume, tokens).await {
            Ok(path) => drop(mounted.paths.insert(volume.name.clone(), path)),
            Err(message) => failed.push(VolumeError { volume: volume.name.clone(), message }),
        }
    }
    if !failed.is_empty() {
        return Err(failed);
    }
    mounted.refresh_at = tokens.refresh_at();
    Ok(mounted)
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

async fn one(cx: &Setup<'_>, volume: &Volume, tokens: &mut Tokens) -> Result<VolumePath, String> {
    let here = |path: PathBuf| VolumePath { path, read_only: false };
    if let Some(source) = &volume.empty_dir {
        let dir = empty_dir_path(cx.pod_dir, &volume.name);
        return empty_dir(cx, source, &dir).map(|()| here(dir)).map_err(|e| e.to_string());
    }
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        return host_path::prepare(&path, source.type_.as_deref()).map(|()| here(path));
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let read_only = source.read_only == Some(true);
        return claims::path(cx, &source.claim_name, read_only);
    }
    if volume.ephemeral.is_some() {
        return claims::path(cx, &format!("{}-{}", cx.pod.name(), volume.name), false);
    }
    if volume.image.is_some() {
        // It is mounted with the first container that wants it, once its image is there.
        let dir = image_path(cx.pod_dir, &volume.name);
        make_dir(&dir, 0o755).map_err(|e| e.to_string())?;
        return Ok(VolumePath { path: dir, read_only: true });
    }
    let Some((plugin, payload)) = files(cx, volume, tokens).await? else {
        return Err("the volume type is not supported on this node".to_owned());
    };
    let dir = volume_dir(cx.pod_dir, plugin, &volume.name);
    let group = fs_group(cx.pod, true);
    make_dir(&dir, 0o755).map_err(|e| e.to_string())?;
    let changed = atomic_writer::write(&dir, &payload, group, cx.now).map_err(|e| e.to_string())?;
    if let (true, Some(group)) = (changed, group) {
        ownership::apply(&dir, group).map_err(|e| e.to_string())?;
    }
    Ok(of_files(dir))
}

/// A volume whose files the kubelet writes is read-only for containers, whatever they ask for: one
/// that could put links in the files' place would lead the kubelet anywhere on the node.
fn of_files(path: PathBuf) -> VolumePath {
    VolumePath { path, read_only: true }
}

pub(crate) fn image_path(pod_dir: &Path, name: &str) -> PathBuf {
    volume_dir(pod_dir, "image", name)
}

pub(crate) fn empty_dir_path(pod_dir: &Path, name: &str) -> PathBuf {
    volume_dir(pod_dir, "empty-dir", name)
}

fn volume_dir(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

/// The plugin's name and the files of a volume that is made of files; `None` for other kinds.
async fn files(
    cx: &Setup<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<Option<(&'static str, Payload)>, String> {
    let text = |e: PayloadError| e.to_string();
    let namespace = cx.pod.namespace();
    let mut out = Payload::new();
    if let Some(source) = &volume.config_map {
        let map = cx.cluster.get::<ConfigMap>(namespace, &source.name);
        payload::config_map(&source.name, map, Selection::of_config_map(source), &mut out).map_err(text)?;
        return Ok(Some(("configmap", out)));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = cx.cluster.get::<Secret>(namespace, name);
        payload::secret(name, secret, Selection::of_secret(source), &mut out).map_err(text)?;
        return Ok(Some(("secret", out)));
    }
    if let Some(source) = &volume.downward_api {
        let mode = payload::mode(source.default_mode, payload::DEFAULT_MODE);
        let items = source.items.as_deref().unwrap_or_default();
        payload::downward_api(cx.pod, items, mode, cx.fields, &mut out).map_err(text)?;
        return Ok(Some(("downward-api", out)));
    }
    if let Some(source) = &volume.projected {
        projected(cx, source, tokens, &mut out).await?;
        return Ok(Some(("projected", out)));
    }
    Ok(None)
}

async fn projected(
    cx: &Setup<'_>,
    volume: &ProjectedVolumeSource,
    tokens: &mut Tokens,
    out: &mut Payload,
) -> Result<(), String> {
    let namespace = cx.pod.namespace();
    let default_mode = payload::mode(volume.default_mode, payload::DEFAULT_MODE);
    for source in volume.sources.iter().flatten() {
        if let Some(s) = &source.config_map {
            let selection = Selection { items: s.items.as_deref(), default_mode, optional: s.optional == Some(true) };
            payload::config_map(&s.name, cx.cluster.get::<ConfigMap>(namespace, &s.name), selection, out)
                .map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.secret {
            let selection = Selection { items: s.items.as_deref(), default_mode, optional: s.optional == Some(true) };
            payload::secret(&s.name, cx.cluster.get::<Secret>(namespace, &s.name), selection, out)
                .map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.downward_api {
            payload::downward_api(cx.pod, s.items.as_deref().unwrap_or_default(), default_mode, cx.fields, out)
                .map_err(|e| e.to_string())?;
        }
        if let Some(s) = &source.service_account_token {
            let token = tokens.get(cx, s).await?;
            let user = fs_user(cx.pod);
            let private = user.is_some() || fs_group(cx.pod, true).is_some();
            let mode = if private { 0o600 } else { default_mode };
            payload::add(out, &s.path, token.into_bytes(), mode).map_err(|e| e.to_string())?;
            if let (Some(file), Some(_)) = (out.get_mut(s.path.trim_start_matches("./")), user) {
                file.uid = user;
            }
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err("the projected volume source is not supported on this node".to_owned());
        }
    }
    Ok(())
}

/// The user of all containers, when they share one.
fn fs_user(pod: &Pod) -> Option<u32> {
    let default = pod.spec().security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users =
        pod.containers().into_iter().map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(default));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn fs_group(pod: &Pod, read_only: bool) -> Option<FsGroup> {
    let security = pod.spec().security_context.as_ref()?;
    let gid = u32::try_from(security.fs_group?).ok()?;
    let on_root_mismatch = !read_only && security.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
    Some(FsGroup { gid, read_only, on_root_mismatch })
}

fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn empty_dir(cx: &Setup<'_>, source: &EmptyDirVolumeSource, dir: &Path) -> io::Result<()> {
    let fresh = !dir.is_dir();
    make_dir(dir, 0o777)?;
    let options = match source.medium.as_deref().unwrap_or_default() {
        "" => None,
        "Memory" => {
            let limit = source.size_limit.as_ref().map(resources::whole).filter(|&l| l > 0);
            let size = limit.map_or(cx.fields.allocatable.memory, |l| l.min(cx.fields.allocatable.memory));
            Some(("tmpfs", format!("size={size}")))
        }
        medium => {
            let page = medium
                .strip_prefix("HugePages")
                .ok_or_else(|| io::Error::other(format!("unknown storage medium {medium:?}")))?;
            let size = page.strip_prefix('-').map(|s| format!("pagesize={}", s.replace('i', ""))).unwrap_or_default();
            Some(("hugetlbfs", size))
        }
    };
    if let Some((kind, options)) = options
        && !is_mount_point(dir)?
    {
        mount(Some(kind), dir, Some(kind), MsFlags::empty(), Some(options.as_str()))?;
        fs::set_permissions(dir, Permissions::from_mode(0o777))?;
    }
    if let (true, Some(group)) = (fresh, fs_group(cx.pod, false)) {
        ownership::apply(dir, group)?;
    }
    Ok(())
}

/// Only for directories on whose parent nothing else is bound.
pub(crate) fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
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
