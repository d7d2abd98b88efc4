//! The bind mounts of one container: its volume mounts and the files that the kubelet manages. Blocks:
//! only in the disk room.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use nix::errno::Errno;
use runtime::{Mount, Propagation};

use super::memory::make_dir;
use super::{Mounted, host_path, subpath};
use crate::env;
use crate::observed::message_path;
use crate::pod::PodExt;
use crate::status::asks_recursive;

/// The mounts of a container. `message_file` is made here and receives the termination message.
///
/// # Errors
/// With the text of the container's status.
pub(crate) fn container_mounts(
    pod: &Pod,
    c: &Container,
    mounted: &Mounted,
    sub_paths: &[Option<String>],
    pod_dir: &Path,
    message_file: &Path,
) -> Result<Vec<Mount>, String> {
    let mut out = Vec::new();
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        // One that was forgotten would show the whole volume.
        let sub_path = sub_paths.get(index).ok_or("the sub paths are not those of the container")?;
        out.push(volume_mount(c, m, index, mounted, sub_path.as_deref(), pod_dir)?);
    }
    let managed = |out: &mut Vec<Mount>, file: &str, at: &str| {
        let taken = out.iter().any(|m: &Mount| m.container_path == Path::new(at));
        if !taken {
            out.push(Mount {
                host_path: pod_dir.join(file),
                container_path: at.into(),
                read_only: false,
                recursive_read_only: false,
                propagation: Propagation::Private,
            });
        }
    };
    managed(&mut out, ETC_HOSTS, "/etc/hosts");
    managed(&mut out, RESOLV_CONF, "/etc/resolv.conf");
    if !pod.host_network() {
        managed(&mut out, HOSTNAME, "/etc/hostname");
    }
    make_message_file(message_file).map_err(|e| format!("error on creating termination-log file: {e}"))?;
    out.push(Mount {
        host_path: message_file.to_owned(),
        container_path: message_path(c).into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
    });
    Ok(out)
}

/// The kernel takes no longer path.
const PATH_MAX: usize = 4096;
/// All of a container, of which each may grow by its variables.
const SUB_PATHS_MAX: usize = 1 << 20;
/// Names below the pod's directory of the files that every container gets.
pub(crate) const ETC_HOSTS: &str = "etc-hosts";
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
pub(crate) const HOSTNAME: &str = "hostname";
/// And of the directory that holds their termination messages, a directory for each container.
pub(crate) const CONTAINERS: &str = "containers";

fn volume_mount(
    c: &Container,
    m: &VolumeMount,
    index: usize,
    mounted: &Mounted,
    sub_path: Option<&str>,
    pod_dir: &Path,
) -> Result<Mount, String> {
    let volume = mounted
        .paths
        .get(&m.name)
        .ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", m.name, c.name))?;
    let host_path = match sub_path {
        None => {
            if volume.make {
                host_path::make_if_missing(&volume.path)?;
            }
            volume.path.clone()
        }
        Some(sub) => {
            let target = pod_dir.join("volume-subpaths").join(&m.name).join(&c.name).join(index.to_string());
            subpath::bind(&volume.path, sub, &target).map_err(|e| {
                format!("failed to prepare subPath for volumeMount {:?} of container {:?}: {e}", m.name, c.name)
            })?;
            target
        }
    };
    let container_path = if m.mount_path.starts_with('/') {
        PathBuf::from(&m.mount_path)
    } else {
        // A relative path is below the container's root.
        Path::new("/").join(&m.mount_path)
    };
    Ok(Mount {
        host_path,
        container_path,
        read_only: volume.read_only || m.read_only == Some(true),
        recursive_read_only: asks_recursive(m),
        propagation: match m.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        },
    })
}

/// The part of its volume that each volume mount of a container shows; `None` for the whole.
///
/// # Errors
/// With the text of the container's status.
pub(crate) fn sub_paths(c: &Container, variables: &[(String, String)]) -> Result<Vec<Option<String>>, String> {
    let variables: HashMap<&str, &str> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut left = SUB_PATHS_MAX;
    let mut paths = Vec::new();
    for m in c.volume_mounts.iter().flatten() {
        let path = sub_path(m, &variables)?;
        let taken = left.checked_sub(path.as_ref().map_or(0, String::len));
        left = taken.ok_or("the sub paths of the container's volume mounts take more than 1 MiB")?;
        paths.push(path);
    }
    Ok(paths)
}

fn sub_path(m: &VolumeMount, variables: &HashMap<&str, &str>) -> Result<Option<String>, String> {
    if let Some(expression) = m.sub_path_expr.as_deref().filter(|s| !s.is_empty()) {
        let missing = std::cell::RefCell::new(None);
        let text = env::expand(expression, |name| {
            let value = variables.get(name).map(|&value| value.to_owned());
            if value.is_none() {
                *missing.borrow_mut() = Some(name.to_owned());
            }
            value
        });
        let text = text.map_err(|e| e.to_string())?;
        if let Some(name) = missing.into_inner() {
            return Err(format!("missing value for {name:?}"));
        }
        if text.len() >= PATH_MAX {
            return Err(format!("error SubPath of volumeMount {:?}: {}", m.name, Errno::ENAMETOOLONG.desc()));
        }
        if text.starts_with('/') || text.split('/').any(|p| p == "..") {
            return Err(format!("error SubPath `{text}` must not be an absolute path or contain `..`"));
        }
        return Ok((!text.is_empty()).then_some(text));
    }
    Ok(m.sub_path.clone().filter(|s| !s.is_empty()))
}

/// Any user of the container may write its last words.
fn make_message_file(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        make_dir(dir, 0o700)?;
    }
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o666).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use crate::volumes::VolumePath;
    use serde_json::json;

    #[test]
    fn volumes_and_managed_files_are_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!({"containers": [{"name": "a", "volumeMounts": [
            {"name": "v", "mountPath": "/data", "readOnly": true}, {"name": "v", "mountPath": "/etc/hosts"}]}]}));
        let path = VolumePath::writable("/host/v".into());
        let mounted = Mounted { paths: [("v".to_owned(), path)].into(), refresh_at: None };
        let message = dir.path().join("containers/a/0.msg");
        let got =
            container_mounts(&pod, &pod.spec().containers[0], &mounted, &[None, None], dir.path(), &message).unwrap();
        let seen: Vec<_> = got.iter().map(|m| (m.container_path.to_str().unwrap(), m.read_only)).collect();
        assert_eq!(
            seen,
            [
                ("/data", true),
                ("/etc/hosts", false),
                ("/etc/resolv.conf", false),
                ("/etc/hostname", false),
                ("/dev/termination-log", false)
            ]
        );
        assert!(message.is_file());
    }

    #[test]
    fn containers_may_only_read_what_the_kubelet_writes() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!({"containers": [{"name": "a", "volumeMounts": [{"name": "map", "mountPath": "/map"}]}]}));
        let path = VolumePath::of_files("/host/map".into());
        let mounted = Mounted { paths: [("map".to_owned(), path)].into(), refresh_at: None };
        let message = dir.path().join("0.msg");
        let got =
            container_mounts(&pod, &pod.spec().containers[0], &mounted, &[None, None], dir.path(), &message).unwrap();
        assert!(got[0].read_only);
        let none = container_mounts(&pod, &pod.spec().containers[0], &mounted, &[], dir.path(), &message);
        assert!(none.is_err(), "a mount whose sub path is not known");
    }

    #[test]
    fn sub_path_expressions_need_their_variables() {
        let mount = |expr: &str| VolumeMount { sub_path_expr: Some(expr.to_owned()), ..VolumeMount::default() };
        let long = "x".repeat(PATH_MAX);
        let variables = HashMap::from([("POD", "web"), ("UP", "../x"), ("LONG", long.as_str())]);
        assert_eq!(sub_path(&mount("logs/$(POD)"), &variables), Ok(Some("logs/web".to_owned())));
        assert!(sub_path(&mount("$(NOPE)"), &variables).is_err());
        assert!(sub_path(&mount("$(UP)"), &variables).is_err());
        assert_eq!(
            sub_path(&mount("$(LONG)"), &variables),
            Err("error SubPath of volumeMount \"\": File name too long".to_owned())
        );
    }

    #[test]
    fn sub_paths_are_found_before_any_is_mounted_and_are_bounded() {
        let mount = VolumeMount { sub_path_expr: Some("a/$(A)".to_owned()), ..VolumeMount::default() };
        let container = |count: usize| Container {
            volume_mounts: Some([vec![VolumeMount::default()], vec![mount.clone(); count]].concat()),
            ..Container::default()
        };
        let variables = [("A".to_owned(), "b".repeat(2046))];
        let found = sub_paths(&container(1), &variables).unwrap();
        assert_eq!((found.len(), found[0].as_deref(), found[1].as_ref().map(String::len)), (2, None, Some(2048)));
        assert!(sub_paths(&container(512), &variables).is_ok());
        let over = sub_paths(&container(513), &variables).unwrap_err();
        assert_eq!(over, "the sub paths of the container's volume mounts take more than 1 MiB");
    }
}
