//! Probes, lifecycle hooks and the actions that both are made of.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;

/// Upstream's list, in the order of its messages.
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
const WINDOWS_SIGNALS: &[&str] = &["SIGKILL", "SIGTERM"];
/// A stop signal that names no system is refused with this.
const NO_SYSTEM: &str = "may not be set for containers with empty `spec.os.name`";

#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> From<&'a Probe> for Handler<'a> {
    fn from(probe: &'a Probe) -> Self {
        Self {
            exec: probe.exec.as_ref(),
            http_get: probe.http_get.as_ref(),
            tcp_socket: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            sleep: None,
        }
    }
}

impl<'a> From<&'a LifecycleHandler> for Handler<'a> {
    fn from(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }
}

/// The hooks and probes of a container that runs for as long as the pod.
pub(super) fn validate_hooks_and_probes(ctr: &Container, spec: &PodSpec, path: &Path<'_>, errs: &mut ErrorList) {
    let grace = spec.termination_grace_period_seconds;
    if let Some(lifecycle) = ctr.lifecycle.as_ref() {
        let at = path.child("lifecycle");
        validate_lifecycle(lifecycle, grace, &at, errs);
        if let Some(signal) = lifecycle.stop_signal.as_deref() {
            let system = spec.os.as_ref().map_or("", |os| &os.name);
            validate_stop_signal(signal, system, &at.child("stopSignal"), errs);
        }
    }
    if let Some(probe) = ctr.liveness_probe.as_ref() {
        validate_once_probe(probe, grace, &path.child("livenessProbe"), errs);
    }
    if let Some(probe) = ctr.readiness_probe.as_ref() {
        let at = path.child("readinessProbe");
        validate_probe(probe, grace, &at, errs);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let at = at.child("terminationGracePeriodSeconds");
            errs.push(field::invalid(&at, &seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(probe) = ctr.startup_probe.as_ref() {
        validate_once_probe(probe, grace, &path.child("startupProbe"), errs);
    }
}

/// Liveness and startup take one success for an answer.
fn validate_once_probe(probe: &Probe, grace: Option<i64>, path: &Path<'_>, errs: &mut ErrorList) {
    validate_probe(probe, grace, path, errs);
    let successes = probe.success_threshold.unwrap_or(0);
    if successes != 1 {
        errs.push(field::invalid(&path.child("successThreshold"), &successes, "must be 1"));
    }
}

fn validate_probe(probe: &Probe, grace: Option<i64>, path: &Path<'_>, errs: &mut ErrorList) {
    validate_handler(&Handler::from(probe), grace, path, errs);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        field::non_negative(&path.child(name), i64::from(number.unwrap_or(0)), errs);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errs.push(field::invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must be greater than 0"));
    }
}

fn validate_lifecycle(lifecycle: &Lifecycle, grace: Option<i64>, path: &Path<'_>, errs: &mut ErrorList) {
    for (name, hook) in [("postStart", lifecycle.post_start.as_ref()), ("preStop", lifecycle.pre_stop.as_ref())] {
        if let Some(hook) = hook {
            validate_handler(&Handler::from(hook), grace, &path.child(name), errs);
        }
    }
}

/// Which signals there are depends on the system; of one that nobody knows its name is refused elsewhere.
fn validate_stop_signal(signal: &str, system: &str, path: &Path<'_>, errs: &mut ErrorList) {
    let known = match system {
        "" => return errs.push(field::forbidden(path, NO_SYSTEM)),
        "linux" => LINUX_SIGNALS,
        "windows" => WINDOWS_SIGNALS,
        _ => return,
    };
    if !known.contains(&signal) {
        errs.push(field::not_supported(path, signal, known));
    }
}

fn validate_handler(handler: &Handler<'_>, grace: Option<i64>, path: &Path<'_>, errs: &mut ErrorList) {
    let mut count = 0;
    // Each further action is refused without a look at what it says.
    let mut only = |name: &'static str, errs: &mut ErrorList| {
        count += 1;
        if count > 1 {
            errs.push(field::forbidden(&path.child(name), "may not specify more than 1 handler type"));
        }
        count == 1
    };
    if let Some(exec) = handler.exec
        && only("exec", errs)
        && exec.command.as_deref().unwrap_or_default().is_empty()
    {
        errs.push(field::required(&path.child("exec.command"), ""));
    }
    if let Some(http) = handler.http_get
        && only("httpGet", errs)
    {
        validate_http(http, &path.child("httpGet"), errs);
    }
    if let Some(tcp) = handler.tcp_socket
        && only("tcpSocket", errs)
    {
        validate_port(&tcp.port, &path.child("tcpSocket.port"), errs);
    }
    if let Some(grpc) = handler.grpc
        && only("grpc", errs)
    {
        validate_port(&IntOrString::Int(grpc.port), &path.child("grpc.port"), errs);
    }
    if let Some(sleep) = handler.sleep
        && only("sleep", errs)
        && let Some(grace) = grace.filter(|grace| sleep.seconds < 0 || sleep.seconds > *grace)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errs.push(field::invalid(&path.child("sleep"), &sleep.seconds, why));
    }
    if count == 0 {
        errs.push(field::required(path, "must specify a handler type"));
    }
}

fn validate_http(http: &HTTPGetAction, path: &Path<'_>, errs: &mut ErrorList) {
    if http.path.as_deref().unwrap_or("").is_empty() {
        errs.push(field::required(&path.child("path"), ""));
    }
    validate_port(&http.port, &path.child("port"), errs);
    let scheme = http.scheme.as_deref().unwrap_or("");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errs.push(field::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        if errs.is_full() {
            break;
        }
        let why = format::http_header_name(&header.name);
        field::invalid_each(&path.child("httpHeaders"), &header.name, why, errs);
    }
}

/// A port by number or by name.
pub(crate) fn validate_port(port: &IntOrString, path: &Path<'_>, errs: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => field::invalid_each(path, number, format::port_number(i64::from(*number)), errs),
        IntOrString::String(name) => field::invalid_each(path, name, format::port_name(name), errs),
    }
}
