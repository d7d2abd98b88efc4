//! Makes a pod ready for containers and takes it away again: directories, volumes, sandbox,
//! network, and the files that every container gets.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use api::k8s_openapi::api::core::v1::Pod;
use client::EventType;
use jiff::Timestamp;
use network::{HostPort, Protocol};
use runtime::{SandboxConfig, SandboxState};
use tracing::warn;

use super::plan::SandboxPlan;
use crate::container_config::{pod_log_dir, sysctls};
use crate::downward::FieldContext;
use crate::kubelet::Kubelet;
use crate::metrics::Counter;
use crate::observed::{label, pod_labels};
use crate::pod::{PodExt, Role};
use crate::volumes::{self, Mounted, Setup, Tokens, VolumeError};
use crate::{admission, dns, events, resources, runtime_class};

/// What a set-up gives.
pub(super) struct Ready {
    pub(super) mounted: Mounted,
    pub(super) ips: Vec<IpAddr>,
}

/// It failed; the event is written already.
pub(super) struct SetupError {
    /// Empty when something else failed.
    pub(super) volumes: Vec<VolumeError>,
}

impl SetupError {
    const OTHER: Self = Self { volumes: Vec::new() };
}

/// Sets volumes up, and the sandbox if the plan says so. Doing it again changes nothing.
pub(super) async fn set_up(
    kubelet: &Arc<Kubelet>,
    pod: &Pod,
    sandbox: &SandboxPlan,
    known_ips: &[IpAddr],
    tokens: &mut Tokens,
) -> Result<Ready, SetupError> {
    let about = events::pod(pod);
    let warn_event = |reason: &str, message: &str| kubelet.recorder.event(&about, EventType::Warning, reason, message);
    if matches!(sandbox, SandboxPlan::Create { .. }) {
        let handler = runtime_class::handler(&kubelet.cluster, pod);
        admission::before_sandbox(pod, handler.as_deref(), kubelet.machine.modules).map_err(|missing| {
            warn_event(missing.reason, &missing.message);
            SetupError::OTHER
        })?;
    }
    let mounted = mount(kubelet, pod, known_ips, tokens).await.map_err(|volumes| SetupError { volumes })?;
    if *sandbox == SandboxPlan::Recover {
        kubelet.runtime.recover_sandbox(pod.uid()).await.map_err(|e| {
            warn_event("FailedSync", &format!("error determining status: {e}"));
            SetupError::OTHER
        })?;
        let found = kubelet.runtime.sandbox_status(pod.uid());
        if found.is_ok_and(|sandbox| sandbox.state != SandboxState::Ready) {
            // It had ended, so the next plan makes another one.
            return Err(SetupError::OTHER);
        }
    }
    if let SandboxPlan::Create { attempt, changed } = sandbox {
        if *changed {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            kubelet.recorder.event(&about, EventType::Normal, "SandboxChanged", message);
            kubelet.metrics.count(Counter::RestartedPods, &[("static", "")]);
            remove_sandbox(kubelet, pod.uid()).await;
        }
        make_sandbox(kubelet, pod, *attempt).await.map_err(|e| {
            warn_event("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {e}"));
            SetupError::OTHER
        })?;
    }
    let ips = attach(kubelet, pod).await.map_err(|e| {
        warn_event("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {e}"));
        SetupError::OTHER
    })?;
    write_files(kubelet, pod, &ips).map_err(|e| {
        warn_event("FailedSync", &format!("error killing pod: {e}"));
        SetupError::OTHER
    })?;
    Ok(Ready { mounted, ips })
}

/// Brings the volumes up to date with their sources.
pub(super) async fn mount(
    kubelet: &Kubelet,
    pod: &Pod,
    ips: &[IpAddr],
    tokens: &mut Tokens,
) -> Result<Mounted, Vec<VolumeError>> {
    let fields =
        FieldContext { host_ips: &kubelet.cfg.node_ips, pod_ips: ips, allocatable: kubelet.allocatable.clone() };
    let pod_dir = kubelet.cfg.pod_dir(pod.uid());
    let setup = Setup {
        cluster: &kubelet.cluster,
        client: &kubelet.client,
        pod,
        pod_dir: &pod_dir,
        fields: &fields,
        now: Timestamp::now(),
    };
    volumes::set_up(&setup, tokens).await.inspect_err(|failed| {
        let about = events::pod(pod);
        for e in failed {
            kubelet.recorder.event(&about, EventType::Warning, "FailedMount", &e.to_string());
        }
    })
}

async fn make_sandbox(kubelet: &Kubelet, pod: &Pod, attempt: u32) -> Result<(), String> {
    let spec = pod.spec();
    let mut labels = pod_labels(pod);
    labels.insert(label::SANDBOX_ATTEMPT.to_owned(), attempt.to_string());
    runtime_class::check(&kubelet.cluster, pod)?;
    let hostname = dns::kernel_hostname(pod, &kubelet.cfg.cluster_domain)?;
    let log_dir = pod_log_dir(&kubelet.cfg.log_dir, pod);
    fs::create_dir_all(&log_dir).map_err(|e| format!("{}: {e}", log_dir.display()))?;
    let config = SandboxConfig {
        uid: pod.uid().to_owned(),
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        hostname: if pod.host_network() { kubelet.cfg.node_name.clone() } else { hostname },
        labels,
        host_network: pod.host_network(),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_pid: spec.share_process_namespace == Some(true),
        sysctls: sysctls(pod),
        cgroup_parent: resources::cgroup_parent(pod),
        resources: resources::pod_resources(pod, kubelet.cfg.pod_pids_limit),
        log_dir,
    };
    let metrics = &kubelet.metrics;
    let made = metrics.time("run_podsandbox", kubelet.runtime.run_sandbox(config)).await;
    metrics.count(if made.is_ok() { Counter::StartedPods } else { Counter::StartedPodsErrors }, &[]);
    made.map(drop).map_err(|e| e.to_string())
}

/// The pod's addresses; a pod that is attached already keeps its own.
async fn attach(kubelet: &Kubelet, pod: &Pod) -> Result<Vec<IpAddr>, String> {
    if pod.host_network() {
        return Ok(kubelet.cfg.node_ips.clone());
    }
    let netns = kubelet.runtime.network_namespace(pod.uid()).map_err(|e| e.to_string())?;
    let attached = kubelet
        .network
        .attach(pod.uid(), netns, &host_ports(pod))
        .await
        .map_err(|e| format!("failed to setup network for sandbox: {e}"))?;
    Ok(vec![IpAddr::V4(attached.ip)])
}

pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.containers();
    let ports = containers.iter().filter(|(r, _)| *r != Role::Ephemeral).flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            Some(HostPort {
                host_ip: p.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: u16::try_from(p.host_port?).ok().filter(|&n| n > 0)?,
                container_port: u16::try_from(p.container_port).ok()?,
                protocol: match p.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}

fn write_files(kubelet: &Kubelet, pod: &Pod, ips: &[IpAddr]) -> io::Result<()> {
    let cfg = &kubelet.cfg;
    let dir = cfg.pod_dir(pod.uid());
    fs::create_dir_all(&dir)?;
    // Containers of this pod may have the files open: they are rewritten in place.
    let node = fs::read_to_string(&cfg.resolv_conf).unwrap_or_default();
    let (resolv, cut) = dns::resolv_conf(pod, &cfg.cluster_dns, &cfg.cluster_domain, &dns::ResolvConf::parse(&node));
    for warning in cut {
        kubelet.recorder.event(&events::pod(pod), EventType::Warning, "DNSConfigForming", &warning);
    }
    write_if_changed(&dir.join(volumes::RESOLV_CONF), &resolv.render())?;
    let hosts = if pod.host_network() {
        dns::host_network_hosts_file(pod, &fs::read_to_string(&cfg.hosts_file).unwrap_or_default())
    } else {
        dns::hosts_file(pod, ips, &cfg.cluster_domain)
    };
    write_if_changed(&dir.join(volumes::ETC_HOSTS), &hosts)?;
    let hostname = dns::kernel_hostname(pod, &cfg.cluster_domain).map_err(io::Error::other)?;
    write_if_changed(&dir.join(volumes::HOSTNAME), &format!("{hostname}\n"))
}

/// A container may have changed its own copy, which is left alone while the kubelet's text is the same.
fn write_if_changed(path: &std::path::Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) { Ok(()) } else { fs::write(path, text) }
}

/// Sandbox and network away; what cannot be removed is told and tried again with the pod.
async fn remove_sandbox(kubelet: &Kubelet, uid: &str) {
    if let Err(e) = kubelet.runtime.stop_sandbox(uid).await {
        warn!(uid, "sandbox not stopped: {e}");
    }
    if let Err(e) = kubelet.network.detach(uid).await {
        warn!(uid, "network not detached: {e}");
    }
}

/// Everything that a stopped pod holds, except logs and records of its containers.
pub(super) async fn tear_down(kubelet: &Kubelet, pod: &Pod) -> Result<(), String> {
    let uid = pod.uid();
    let metrics = &kubelet.metrics;
    metrics.time("stop_podsandbox", kubelet.runtime.stop_sandbox(uid)).await.map_err(|e| e.to_string())?;
    kubelet.network.detach(uid).await.map_err(|e| e.to_string())?;
    let dir = kubelet.cfg.pod_dir(uid);
    tokio::task::spawn_blocking(move || volumes::remove_pod_dir(&dir))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())
}

/// The rest, once the pod's object has gone.
pub(super) async fn forget(kubelet: &Kubelet, pod: &Pod) {
    if let Err(e) = kubelet.runtime.remove_sandbox(pod.uid()).await {
        warn!(pod = %pod.full_name(), "sandbox not removed: {e}");
    }
    let logs = pod_log_dir(&kubelet.cfg.log_dir, pod);
    if let Err(e) = runtime::remove_tree(&logs) {
        warn!("logs in {} not removed: {e}", logs.display());
    }
}
