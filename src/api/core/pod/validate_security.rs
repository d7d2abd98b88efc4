//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
    WindowsSecurityContextOptions,
};

use super::validate_mounts::validate_descending;
use crate::field::{self, ErrorList, Path};
use crate::meta::format;

const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_MAX: usize = 253;
const SYSCTL_PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILE_MAX: usize = 4095;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn validate_id(name: &'static str, id: Option<i64>, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(id) = id.filter(|id| !(0..=ID_MAX).contains(id)) {
        errs.push(field::invalid(&path.child(name), &id, format::inclusive_range(0, ID_MAX)));
    }
}

fn validate_one_of(value: Option<&str>, known: &[&str], path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(value) = value.filter(|v| !known.contains(v)) {
        errs.push(field::not_supported(path, value, known));
    }
}

pub(super) fn validate_pod_security_context(
    context: &PodSecurityContext,
    spec: &PodSpec,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    validate_id("fsGroup", context.fs_group, path, errs);
    validate_id("runAsUser", context.run_as_user, path, errs);
    validate_id("runAsGroup", context.run_as_group, path, errs);
    let groups_at = path.child("supplementalGroups");
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        if !(0..=ID_MAX).contains(group) {
            errs.push(field::invalid(&groups_at.index(i), group, format::inclusive_range(0, ID_MAX)));
        }
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errs.push(field::invalid(&path.child("shareProcessNamespace"), &true, why));
    }
    validate_sysctls(context.sysctls.as_deref().unwrap_or_default(), spec, &path.child("sysctls"), errs);
    let change = context.fs_group_change_policy.as_deref();
    validate_one_of(change, &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy"), errs);
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errs);
    validate_windows(context.windows_options.as_ref(), &path.child("windowsOptions"), errs);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errs);
    let policy = context.supplemental_groups_policy.as_deref();
    validate_one_of(policy, &["Merge", "Strict"], &path.child("supplementalGroupsPolicy"), errs);
    let change = context.se_linux_change_policy.as_deref();
    validate_one_of(change, &["MountOption", "Recursive"], &path.child("seLinuxChangePolicy"), errs);
}

fn is_sysctl_name(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        let ends = bytes.first().zip(bytes.last()).is_some_and(|(&a, &b)| alnum(a) && alnum(b));
        ends && bytes.iter().all(|&b| alnum(b) || b == b'-' || b == b'_')
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

fn validate_sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        let name_at = at.child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errs.push(field::required(&name_at, ""));
        } else if !is_sysctl_name(name) {
            let why = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_PATTERN}");
            errs.push(field::invalid(&name_at, name, why));
        } else if names.contains(name) {
            errs.push(field::duplicate(&name_at, name));
        }
        names.insert(name);
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errs.push(field::invalid(&name_at, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && (ipc || dotted == "kernel.sem") {
            errs.push(field::invalid(&name_at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn validate_seccomp(profile: Option<&SeccompProfile>, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let kind_at = path.child("type");
    match profile.type_.as_str() {
        "" => errs.push(field::required(&kind_at, "type is required when seccompProfile is set")),
        kind => validate_one_of(Some(kind), PROFILE_TYPES, &kind_at, errs),
    }
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errs.push(field::required(&at, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(file)) => validate_descending(file, &at, errs),
        (_, Some(_)) => errs.push(field::invalid(&at, profile, "can only be set when seccomp type is Localhost")),
        (_, None) => {}
    }
}

fn validate_app_armor(profile: Option<&AppArmorProfile>, path: &Path<'_>, errs: &mut ErrorList) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errs.push(field::required(&at, NEEDED)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errs.push(field::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errs.push(field::required(&at, NEEDED));
            }
            if name.len() > PROFILE_MAX {
                errs.push(field::too_long(&at, PROFILE_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errs.push(field::invalid(&at, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errs.push(field::required(&path.child("type"), "type is required when appArmorProfile is set")),
        (other, _) => errs.push(field::not_supported(&path.child("type"), other, PROFILE_TYPES)),
    }
}

fn validate_windows(options: Option<&WindowsSecurityContextOptions>, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(options) = options else { return };
    if let Some(name) = options.gmsa_credential_spec_name.as_deref() {
        field::invalid_each(&path.child("gmsaCredentialSpecName"), name, format::dns1123_subdomain(name), errs);
    }
    if options.gmsa_credential_spec.as_deref() == Some("") {
        let why = "gmsaCredentialSpec cannot be an empty string";
        errs.push(field::invalid(&path.child("gmsaCredentialSpec"), "", why));
    }
    if options.run_as_user_name.as_deref() == Some("") {
        errs.push(field::invalid(&path.child("runAsUserName"), "", "runAsUserName cannot be an empty string"));
    }
}

pub(super) fn validate_security_context(
    context: &SecurityContext,
    host_users: bool,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    validate_id("runAsUser", context.run_as_user, path, errs);
    validate_id("runAsGroup", context.run_as_group, path, errs);
    let mount = context.proc_mount.as_deref();
    validate_one_of(mount, &["Default", "Unmasked"], &path.child("procMount"), errs);
    if host_users && mount == Some("Unmasked") {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errs.push(field::invalid(&path.child("procMount"), "Unmasked", why));
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errs);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errs.push(field::invalid(path, context, why));
        }
        let added = context.capabilities.as_ref().and_then(|c| c.add.as_deref()).unwrap_or_default();
        for _ in added.iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            if errs.is_full() {
                break;
            }
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errs.push(field::invalid(path, context, why));
        }
    }
    validate_windows(context.windows_options.as_ref(), &path.child("windowsOptions"), errs);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errs);
}
