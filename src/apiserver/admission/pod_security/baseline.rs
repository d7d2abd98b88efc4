//! The rules of the baseline level.

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::{Annotations, Level, View, Violation, containers, names_where, quoted, views};

/// What a container runtime gives by default; anything else must not be added.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The violations in upstream's order. At `level` restricted, the rules that it replaces are left out.
pub(super) fn judge(spec: &PodSpec, annotations: Annotations<'_>, level: Level) -> Vec<Violation> {
    let views = views(spec);
    let only_baseline = level == Level::Baseline;
    [
        app_armor(spec, &views, annotations),
        only_baseline.then(|| capabilities(&views)).flatten(),
        host_namespaces(spec),
        only_baseline.then(|| host_path(spec)).flatten(),
        host_ports(&views),
        probe_hosts(&views),
        privileged(&views),
        proc_mount(&views),
        selinux(spec, &views),
        only_baseline.then(|| seccomp(spec, &views)).flatten(),
        sysctls(spec),
        host_process(spec, &views),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn app_armor(spec: &PodSpec, views: &[View<'_>], annotations: Annotations<'_>) -> Option<Violation> {
    let mut details = Vec::new();
    let unconfined = |profile: Option<&str>| profile == Some("Unconfined");
    let own = spec.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    if unconfined(own.map(|p| p.type_.as_str())) {
        details.push("pod must not set AppArmor profile type to \"Unconfined\"".to_owned());
    }
    let bad = names_where(views, |v| {
        unconfined(v.context.and_then(|c| c.app_armor_profile.as_ref()).map(|p| p.type_.as_str()))
    });
    if !bad.is_empty() {
        details.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", containers(&bad)));
    }
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let wrong: Vec<String> = annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(APPARMOR_ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !wrong.is_empty() {
        let plural = if wrong.len() == 1 { "annotation" } else { "annotations" };
        details.push(format!("{plural} {}", wrong.join(", ")));
    }
    let reason = if details.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    (!details.is_empty()).then(|| Violation::new(reason, details.join(" and ")))
}

fn capabilities(views: &[View<'_>]) -> Option<Violation> {
    let added = |v: &View<'_>| -> Vec<String> {
        let add = v.context.and_then(|c| c.capabilities.as_ref()?.add.clone()).unwrap_or_default();
        add.into_iter().filter(|c| !DEFAULT_CAPABILITIES.contains(&c.as_str())).collect()
    };
    let bad = names_where(views, |v| !added(v).is_empty());
    let mut all: Vec<String> = views.iter().flat_map(added).collect();
    all.sort();
    all.dedup();
    (!bad.is_empty()).then(|| {
        let detail =
            format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(&all));
        Violation::new("non-default capabilities", detail)
    })
}

fn host_namespaces(spec: &PodSpec) -> Option<Violation> {
    let set =
        [("hostNetwork=true", spec.host_network), ("hostPID=true", spec.host_pid), ("hostIPC=true", spec.host_ipc)];
    let bad: Vec<&str> = set.iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| *name).collect();
    (!bad.is_empty()).then(|| Violation::new("host namespaces", bad.join(", ")))
}

fn host_path(spec: &PodSpec) -> Option<Violation> {
    let is_host_path = |v: &&Volume| v.host_path.is_some();
    let bad: Vec<&str> = spec.volumes.iter().flatten().filter(is_host_path).map(|v| v.name.as_str()).collect();
    let plural = if bad.len() == 1 { "volume" } else { "volumes" };
    (!bad.is_empty()).then(|| Violation::new("hostPath volumes", format!("{plural} {}", quoted(&bad))))
}

fn host_ports(views: &[View<'_>]) -> Option<Violation> {
    let ports = |v: &View<'_>| -> Vec<i32> { v.ports.iter().filter_map(|p| p.host_port).filter(|p| *p != 0).collect() };
    let bad = names_where(views, |v| !ports(v).is_empty());
    let mut all: Vec<i32> = views.iter().flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let list: Vec<String> = all.iter().map(ToString::to_string).collect();
    let verb = if bad.len() == 1 { "uses" } else { "use" };
    let noun = if all.len() == 1 { "hostPort" } else { "hostPorts" };
    (!bad.is_empty())
        .then(|| Violation::new("hostPort", format!("{} {verb} {noun} {}", containers(&bad), list.join(", "))))
}

fn probe_hosts(views: &[View<'_>]) -> Option<Violation> {
    let hosts = |v: &View<'_>| -> Vec<String> {
        let probes = v.probes.iter().flatten().flat_map(|p| {
            [p.http_get.as_ref().and_then(|h| h.host.clone()), p.tcp_socket.as_ref().and_then(|t| t.host.clone())]
        });
        let hooks = v.lifecycle.into_iter().flat_map(|l| [&l.post_start, &l.pre_stop]).flatten().flat_map(|h| {
            [h.http_get.as_ref().and_then(|g| g.host.clone()), h.tcp_socket.as_ref().and_then(|t| t.host.clone())]
        });
        probes.chain(hooks).flatten().filter(|h| !h.is_empty()).collect()
    };
    let bad = names_where(views, |v| !hosts(v).is_empty());
    let mut all: Vec<String> = views.iter().flat_map(hosts).collect();
    all.sort();
    all.dedup();
    let verb = if bad.len() == 1 { "uses" } else { "use" };
    let noun = if all.len() == 1 { "host" } else { "hosts" };
    (!bad.is_empty()).then(|| {
        let detail = format!("{} {verb} probe or lifecycle {noun} {}", containers(&bad), quoted(&all));
        Violation::new("probe or lifecycle host", detail)
    })
}

fn privileged(views: &[View<'_>]) -> Option<Violation> {
    let bad = names_where(views, |v| v.context.is_some_and(|c| c.privileged == Some(true)));
    (!bad.is_empty()).then(|| {
        Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
    })
}

fn proc_mount(views: &[View<'_>]) -> Option<Violation> {
    let value = |v: &View<'_>| v.context.and_then(|c| c.proc_mount.clone()).filter(|m| m != "Default");
    let bad = names_where(views, |v| value(v).is_some());
    let mut all: Vec<String> = views.iter().filter_map(value).collect();
    all.dedup();
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&all));
        Violation::new("procMount", detail)
    })
}

fn selinux(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let options = std::iter::once((None, spec.security_context.as_ref().and_then(|c| c.se_linux_options.as_ref())))
        .chain(views.iter().map(|v| (Some(v.name), v.context.and_then(|c| c.se_linux_options.as_ref()))));
    let (mut setters, mut types, mut user, mut role) = (Vec::new(), Vec::new(), false, false);
    for (name, option) in options {
        let Some(option) = option else { continue };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let bad_type = !SELINUX_TYPES.contains(&text(&option.type_).as_str());
        let (bad_user, bad_role) = (!text(&option.user).is_empty(), !text(&option.role).is_empty());
        if bad_type || bad_user || bad_role {
            setters.push(name);
        }
        if bad_type {
            types.push(text(&option.type_));
        }
        user |= bad_user;
        role |= bad_role;
    }
    if setters.is_empty() {
        return None;
    }
    let names: Vec<&str> = setters.iter().copied().flatten().collect();
    let who = match (setters.contains(&None), names.is_empty()) {
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", containers(&names)),
        (false, _) => containers(&names),
    };
    let what: Vec<String> = [
        (!types.is_empty()).then(|| {
            let plural = if types.len() == 1 { "type" } else { "types" };
            format!("{plural} {}", quoted(&types))
        }),
        user.then(|| "user may not be set".to_owned()),
        role.then(|| "role may not be set".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    Some(Violation::new(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")),
    ))
}

fn seccomp(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let pod = own.is_some_and(|p| p.type_ == "Unconfined");
    let bad = names_where(views, |v| {
        v.context.and_then(|c| c.seccomp_profile.as_ref()).is_some_and(|p| p.type_ == "Unconfined")
    });
    let who = match (pod, bad.is_empty()) {
        (false, true) => return None,
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", containers(&bad)),
        (false, false) => containers(&bad),
    };
    let detail = format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\"");
    Some(Violation::new("seccompProfile", detail))
}

fn sysctls(spec: &PodSpec) -> Option<Violation> {
    let all = spec.security_context.as_ref().and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    let bad: Vec<&str> = all.iter().map(|s| s.name.as_str()).filter(|n| !SAFE_SYSCTLS.contains(n)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn host_process(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()?.host_process);
    let bad = names_where(views, |v| {
        v.context.and_then(|c| c.windows_options.as_ref()).is_some_and(|w| w.host_process == Some(true))
    });
    let who = match (own == Some(true), bad.is_empty()) {
        (false, true) => return None,
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", containers(&bad)),
        (false, false) => containers(&bad),
    };
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
