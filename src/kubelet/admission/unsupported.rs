//! What a pod may ask for and this node cannot give. A setting that protects is never left out in
//! silence: the pod is refused, or its sandbox is not made. Pure.

use std::path::Path;

use api::k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use crate::pod::PodExt;

/// Mandatory access control of the host's kernel. The runtime sets neither profiles nor labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modules {
    pub(crate) app_armor: bool,
    pub(crate) se_linux: bool,
}

impl Modules {
    pub(crate) fn read() -> Self {
        let app_armor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            app_armor: app_armor.is_ok_and(|text| text.starts_with('Y')),
            se_linux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// The deprecated form of `appArmorProfile`, one annotation a container.
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// # Errors
/// With upstream's message, when a profile other than `Unconfined` is asked for.
pub(super) fn check_app_armor(pod: &Pod, modules: Modules) -> Result<(), String> {
    let confined = |profile: Option<&AppArmorProfile>| profile.is_some_and(|p| p.type_ != "Unconfined");
    let whole = pod.spec().security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let by_field = pod.containers().iter().any(|(_, c)| {
        let own = c.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
        confined(own.or(whole))
    });
    let annotations = pod.metadata.annotations.iter().flatten();
    let by_annotation = annotations
        .filter(|(name, _)| name.starts_with(APP_ARMOR_ANNOTATION))
        .any(|(_, profile)| !matches!(profile.as_str(), "" | "unconfined"));
    if !by_field && !by_annotation {
        return Ok(());
    }
    let why = if modules.app_armor {
        "the container runtime sets no profiles"
    } else {
        "AppArmor is not enabled on the host"
    };
    Err(format!("Cannot enforce AppArmor: {why}"))
}

/// Something that a sandbox would need: the event that tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// # Errors
/// When the sandbox must not be made, because it would lack something that the pod asks for.
pub(crate) fn before_sandbox(pod: &Pod, handler: Option<&str>, modules: Modules) -> Result<(), Unavailable> {
    let spec = pod.spec();
    if spec.resource_claims.iter().flatten().next().is_some() {
        let message = "Failed to prepare dynamic resources: this node has no driver of dynamic resources";
        return Err(Unavailable { reason: "FailedPrepareDynamicResources", message: message.to_owned() });
    }
    let devices = pod.containers().iter().find_map(|(_, c)| Some(c.volume_devices.as_ref()?.first()?.name.clone()));
    if let Some(name) = devices {
        let message =
            format!("MapVolume.SetUpDevice failed for volume {name:?} : block devices are not supported on this node");
        return Err(Unavailable { reason: "FailedMapVolume", message });
    }
    let sandbox = |why: &str| Unavailable {
        reason: "FailedCreatePodSandBox",
        message: format!("Failed to create pod sandbox: {why}"),
    };
    if spec.host_users == Some(false) {
        let who = match handler.filter(|h| !h.is_empty()) {
            Some(handler) => format!("RuntimeClass handler {handler:?}"),
            None => "runtime".to_owned(),
        };
        return Err(sandbox(&format!("can't set `spec.hostUsers: false`, {who} does not support user namespaces")));
    }
    let labelled = spec.security_context.as_ref().is_some_and(|s| s.se_linux_options.is_some())
        || pod
            .containers()
            .iter()
            .any(|(_, c)| c.security_context.as_ref().is_some_and(|s| s.se_linux_options.is_some()));
    // Where SELinux is off, a label has no effect, as with other runtimes.
    if labelled && modules.se_linux {
        return Err(sandbox("can't set `seLinuxOptions`, runtime does not set SELinux labels"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::{Value, json};

    const OFF: Modules = Modules { app_armor: false, se_linux: false };
    const ON: Modules = Modules { app_armor: true, se_linux: true };

    #[track_caller]
    fn check_profile(spec: Value, annotation: Option<(&str, &str)>, modules: Modules, expected: Result<(), &str>) {
        let mut pod = pod(spec);
        pod.metadata.annotations = annotation.map(|(k, v)| [(k.to_owned(), v.to_owned())].into());
        assert_eq!(check_app_armor(&pod, modules), expected.map_err(str::to_owned));
    }

    #[test]
    fn app_armor_profiles_are_refused_and_unconfined_is_not() {
        let whole =
            |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}, "containers": [{"name": "a"}]});
        let own = |kind: &str| {
            json!({"initContainers": [{"name": "i", "securityContext": {"appArmorProfile": {"type": kind}}}],
            "containers": [{"name": "a"}]})
        };
        let off = Err("Cannot enforce AppArmor: AppArmor is not enabled on the host");
        let on = Err("Cannot enforce AppArmor: the container runtime sets no profiles");
        check_profile(whole("RuntimeDefault"), None, OFF, off);
        check_profile(whole("Localhost"), None, ON, on);
        check_profile(whole("Unconfined"), None, ON, Ok(()));
        check_profile(own("RuntimeDefault"), None, OFF, off);
        check_profile(own("Unconfined"), None, OFF, Ok(()));
        let plain = json!({"containers": [{"name": "a"}]});
        let key = "container.apparmor.security.beta.kubernetes.io/a";
        check_profile(plain.clone(), None, OFF, Ok(()));
        check_profile(plain.clone(), Some((key, "runtime/default")), OFF, off);
        check_profile(plain, Some((key, "unconfined")), OFF, Ok(()));
    }

    #[track_caller]
    fn check_sandbox(spec: Value, handler: Option<&str>, modules: Modules, expected: Result<(), (&'static str, &str)>) {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "a"}]);
        }
        let expected = expected.map_err(|(reason, message)| Unavailable { reason, message: message.to_owned() });
        assert_eq!(before_sandbox(&pod(spec), handler, modules), expected);
    }

    #[test]
    fn no_sandbox_is_made_without_what_the_pod_asks_for() {
        let users = json!({"hostUsers": false});
        let label = json!({"securityContext": {"seLinuxOptions": {"level": "s0"}}});
        let reason = "FailedCreatePodSandBox";
        check_sandbox(json!({"hostUsers": true}), None, OFF, Ok(()));
        let message =
            "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        check_sandbox(users.clone(), None, OFF, Err((reason, message)));
        let message = "Failed to create pod sandbox: can't set `spec.hostUsers: false`, \
                       RuntimeClass handler \"runc\" does not support user namespaces";
        check_sandbox(users, Some("runc"), OFF, Err((reason, message)));
        check_sandbox(label.clone(), None, OFF, Ok(()));
        let message = "Failed to create pod sandbox: can't set `seLinuxOptions`, runtime does not set SELinux labels";
        check_sandbox(label, None, ON, Err((reason, message)));
        let block = json!({"containers": [{"name": "a", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}]});
        let message = "MapVolume.SetUpDevice failed for volume \"d\" : block devices are not supported on this node";
        check_sandbox(block, None, OFF, Err(("FailedMapVolume", message)));
        check_sandbox(
            json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "x"}]}),
            None,
            OFF,
            Err((
                "FailedPrepareDynamicResources",
                "Failed to prepare dynamic resources: this node has no driver of dynamic resources",
            )),
        );
    }
}
