//! What the runtime is told to run for one container. Pure: environment, mounts and image come
//! resolved.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use api::k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use runtime::{ContainerConfig, ImageStatus, Mount, Seccomp, Security};

use crate::env;
use crate::observed::container_labels;
use crate::pod::{PodExt, Role};
use crate::resources;
use crate::sysctls;

pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) role: Role,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) sandbox_attempt: u32,
    pub(crate) image: &'a ImageStatus,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) log_dir: &'a Path,
    pub(crate) seccomp_dir: &'a Path,
    pub(crate) memory_capacity: i64,
}

/// # Errors
/// With the text of a `CreateContainerConfigError`.
pub(crate) fn build(cx: Inputs<'_>) -> Result<ContainerConfig, String> {
    let Inputs { pod, role, container: c, attempt, sandbox_attempt, image, env, mounts, .. } = cx;
    let security = security(pod, c, image, cx.seccomp_dir)?;
    let variables: HashMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |list: &Option<Vec<String>>| {
        let lookup = |name: &str| variables.get(name).map(|&value| value.to_owned());
        let mut bytes = env::ArgumentBytes::default();
        let texts = list.iter().flatten().map(|text| {
            let text = env::expand(text, lookup)?;
            bytes.take(text.len()).map(|()| text)
        });
        texts.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    };
    let (command, args) = (expand(&c.command)?, expand(&c.args)?);
    let stop_signal = c.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).or_else(|| image.stop_signal.clone());
    Ok(ContainerConfig {
        name: c.name.clone(),
        attempt,
        image: c.image.clone().unwrap_or_default(),
        image_id: image.id.clone(),
        command,
        args,
        working_dir: c.working_dir.clone().filter(|d| !d.is_empty()),
        env,
        mounts,
        labels: container_labels(pod, c, image_name(c, image), image_ref(image), sandbox_attempt),
        processes_of: target(pod, &c.name),
        tty: c.tty == Some(true),
        stdin: c.stdin == Some(true),
        stdin_once: c.stdin_once == Some(true),
        security,
        resources: resources::container_resources(c),
        oom_score_adj: resources::oom_score_adj(pod, role, c, cx.memory_capacity),
        log_path: log_path(cx.log_dir, &c.name, attempt),
        stop_signal,
    })
}

/// The container that an ephemeral one is to look into.
fn target(pod: &Pod, name: &str) -> Option<String> {
    let ephemeral = pod.spec().ephemeral_containers.iter().flatten().find(|e| e.name == name)?;
    ephemeral.target_container_name.clone().filter(|target| !target.is_empty())
}

pub(crate) fn log_path(log_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    log_dir.join(container).join(format!("{attempt}.log"))
}

/// `<logs>/<namespace>_<name>_<uid>`.
pub(crate) fn pod_log_dir(logs: &Path, pod: &Pod) -> PathBuf {
    logs.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// The image's full name, when it is the one that the pod means.
fn image_name<'a>(c: &'a Container, image: &'a ImageStatus) -> &'a str {
    let name = c.image.as_deref().unwrap_or_default();
    let full = |tag: &&String| {
        tag.strip_suffix(":latest").unwrap_or(tag).ends_with(&format!("/{}", name.trim_end_matches(":latest")))
    };
    image.tags.iter().find(full).map_or(name, String::as_str)
}

/// What a status shows as the image's id: its digest in a registry, else its own.
fn image_ref(image: &ImageStatus) -> &str {
    image.digests.first().unwrap_or(&image.id)
}

fn security(pod: &Pod, c: &Container, image: &ImageStatus, seccomp_dir: &Path) -> Result<Security, String> {
    let pod_level = pod.spec().security_context.clone().unwrap_or_default();
    let own = c.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let run_as_user = id(own.run_as_user.or(pod_level.run_as_user));
    if own.run_as_non_root.or(pod_level.run_as_non_root) == Some(true) {
        check_non_root(pod, c, image, run_as_user)?;
    }
    let mut groups: Vec<u32> = pod_level.supplemental_groups.iter().flatten().filter_map(|&g| id(Some(g))).collect();
    groups.extend(id(pod_level.fs_group));
    let capabilities = own.capabilities.unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let profile = own.seccomp_profile.or(pod_level.seccomp_profile);
    Ok(Security {
        privileged,
        run_as_user,
        run_as_group: id(own.run_as_group.or(pod_level.run_as_group)),
        supplemental_groups: groups,
        strict_supplemental_groups: pod_level.supplemental_groups_policy.as_deref() == Some("Strict"),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_rootfs: own.read_only_root_filesystem == Some(true),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile.as_ref(), seccomp_dir)? },
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> Result<Seccomp, String> {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Ok(Seccomp::RuntimeDefault),
        Some(("Localhost", Some(file))) if !file.is_empty() => {
            let inside = !file.starts_with('/') && !file.split('/').any(|p| p == "..");
            if inside {
                Ok(Seccomp::Localhost(dir.join(file)))
            } else {
                Err(format!("invalid seccomp profile {file:?}"))
            }
        }
        Some(("Localhost", _)) => Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned()),
        _ => Ok(Seccomp::Unconfined),
    }
}

/// The image's own user counts when the pod names none.
fn check_non_root(pod: &Pod, c: &Container, image: &ImageStatus, user: Option<u32>) -> Result<(), String> {
    let place = format!("(pod: \"{}\", container: {})", pod.full_name(), c.name);
    match (user, image.uid, image.username.as_deref()) {
        (Some(0), _, _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) | (None, None, None | Some("")) => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        (None, Some(_), _) => Ok(()),
        (None, None, Some(name)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
    }
}

/// Sysctls of the pod, as the sandbox gets them.
pub(crate) fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let list = pod.spec().security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    list.into_iter().flatten().map(|s| (sysctls::normalize(&s.name), s.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    fn image(uid: Option<u32>, username: Option<&str>) -> ImageStatus {
        ImageStatus {
            id: "sha256:1".to_owned(),
            tags: vec!["docker.io/library/nginx:latest".to_owned()],
            digests: vec!["docker.io/library/nginx@sha256:2".to_owned()],
            size_bytes: 1,
            uid,
            username: username.map(str::to_owned),
            stop_signal: Some("SIGQUIT".to_owned()),
        }
    }

    fn config(pod: &Pod, image: &ImageStatus) -> Result<ContainerConfig, String> {
        build(Inputs {
            pod,
            role: Role::App,
            container: &pod.spec().containers[0],
            attempt: 2,
            sandbox_attempt: 1,
            image,
            env: vec![("WHO".to_owned(), "me".to_owned())],
            mounts: vec![],
            log_dir: Path::new("/logs/prod_web_u1"),
            seccomp_dir: Path::new("/seccomp"),
            memory_capacity: 1 << 30,
        })
    }

    #[test]
    fn a_container_becomes_a_config() {
        let pod = pod(json!({
            "securityContext": {"runAsUser": 1000, "fsGroup": 7, "supplementalGroups": [5],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "command": ["echo", "$(WHO)"], "args": ["$$(WHO)"],
                "securityContext": {"runAsUser": 2000, "allowPrivilegeEscalation": false,
                    "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}));
        let got = config(&pod, &image(None, None)).unwrap();
        assert_eq!(got.command, ["echo", "me"]);
        assert_eq!(got.args, ["$(WHO)"]);
        assert_eq!(got.labels["io.coracle.container.image"], "docker.io/library/nginx:latest");
        assert_eq!(got.log_path, Path::new("/logs/prod_web_u1/a/2.log"));
        assert_eq!(got.stop_signal.as_deref(), Some("SIGQUIT"));
        let security = got.security;
        assert_eq!((security.run_as_user, security.supplemental_groups), (Some(2000), vec![5, 7]));
        assert_eq!((security.seccomp, security.no_new_privileges), (Seccomp::RuntimeDefault, true));
        assert_eq!(security.drop_capabilities, ["ALL"]);
    }

    #[test]
    fn an_ephemeral_container_sees_its_targets_processes() {
        let pod = pod(json!({"containers": [{"name": "a"}], "ephemeralContainers": [
            {"name": "b", "targetContainerName": "a"}, {"name": "c", "targetContainerName": ""}]}));
        assert_eq!(["a", "b", "c"].map(|name| target(&pod, name)), [None, Some("a".to_owned()), None]);
    }

    #[test]
    fn run_as_non_root_is_verified() {
        for (user, image, expected) in [
            (None, image(None, None), Some("image will run as root")),
            (None, image(Some(0), None), Some("image will run as root")),
            (None, image(Some(5), None), None),
            (None, image(None, Some("www")), Some("non-numeric user (www)")),
            (Some(0), image(Some(5), None), Some("breaks non-root policy")),
            (Some(9), image(None, Some("www")), None),
        ] {
            let mut security = json!({"runAsNonRoot": true});
            if let Some(user) = user {
                security["runAsUser"] = json!(user);
            }
            let pod = pod(json!({"containers": [{"name": "a", "securityContext": security}]}));
            match (config(&pod, &image), expected) {
                (Ok(_), None) => {}
                (Err(text), Some(part)) => {
                    assert!(text.contains(part), "{text}");
                    assert!(text.ends_with("(pod: \"web_prod(u1)\", container: a)"), "{text}");
                }
                (got, _) => panic!("{user:?} {image:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn seccomp_profiles_stay_in_their_directory() {
        let make = |file: &str| {
            let profile = json!({"type": "Localhost", "localhostProfile": file});
            let pod = pod(json!({"containers": [{"name": "a", "securityContext": {"seccompProfile": profile}}]}));
            config(&pod, &image(None, None)).map(|c| c.security.seccomp)
        };
        assert_eq!(make("p/x.json"), Ok(Seccomp::Localhost("/seccomp/p/x.json".into())));
        assert!(make("../../etc/x").is_err());
    }
}
