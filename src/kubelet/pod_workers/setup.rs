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
use runtime::SandboxConfig;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::files::{PodFiles, Texts};
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

/// Looks for a sandbox of which nobody can say what runs. Returns whether it is known now; a failure is
/// told by an event.
pub(super) async fn recover(kubelet: &Kubelet, pod: &Pod) -> bool {
    let recovered = kubelet.runtime.recover_sandbox(pod.uid()).await.inspect_err(|e| {
        let message = format!("error determining status: {e}");
        kubelet.recorder.event(&events::pod(pod), EventType::Warning, "FailedSync", &message);
    });
    recovered.is_ok()
}

/// Sets volumes up, and the sandbox if the plan says so. Doing it again changes nothing.
pub(super) async fn set_up(
    kubelet: &Arc<Kubelet>,
    pod: &Pod,
    sandbox: &SandboxPlan,
    known_ips: &[IpAddr],
    tokens: &mut Tokens,
    ends: &CancellationToken,
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
    let unused = matches!(sandbox, SandboxPlan::Create { .. });
    let mounted = set_up_volumes(kubelet, pod, known_ips, unused, tokens, ends).await;
    let mounted = mounted.map_err(|volumes| SetupError { volumes })?;
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
    write_files(kubelet, pod, &ips).await.map_err(|e| {
        warn_event("FailedSync", &format!("error killing pod: {e}"));
        SetupError::OTHER
    })?;
    Ok(Ready { mounted, ips })
}

/// Brings the volumes up to date with their sources. `unused` when no container can see them.
pub(super) async fn set_up_volumes(
    kubelet: &Kubelet,
    pod: &Pod,
    ips: &[IpAddr],
    unused: bool,
    tokens: &mut Tokens,
    ends: &CancellationToken,
) -> Result<Mounted, Vec<VolumeError>> {
    let fields =
        FieldContext { host_ips: &kubelet.cfg.node_ips, pod_ips: ips, allocatable: kubelet.allocatable.clone() };
    let pod_dir = kubelet.cfg.pod_dir(pod.uid());
    let setup = Setup {
        cluster: &kubelet.cluster,
        client: &kubelet.client,
        disk: kubelet.disk(),
        sources: &kubelet.sources,
        ends,
        pod,
        pod_dir: &pod_dir,
        fields: &fields,
        unused,
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
    let dir = log_dir.clone();
    let made = kubelet.on_disk(pod.uid(), move || fs::create_dir_all(dir)).await;
    made.map_err(|e| format!("{}: {e}", log_dir.display()))?;
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

async fn write_files(kubelet: &Kubelet, pod: &Pod, ips: &[IpAddr]) -> io::Result<()> {
    let cfg = &kubelet.cfg;
    let hostname = dns::kernel_hostname(pod, &cfg.cluster_domain).map_err(io::Error::other)?;
    let files = PodFiles {
        dir: cfg.pod_dir(pod.uid()),
        resolv_conf: cfg.resolv_conf.clone(),
        hosts_file: cfg.hosts_file.clone(),
    };
    let (cluster_dns, domain) = (cfg.cluster_dns.clone(), cfg.cluster_domain.clone());
    let (pod, ips, uid) = (pod.clone(), ips.to_vec(), pod.uid().to_owned());
    let about = events::pod(&pod);
    let texts = move |resolv_conf: &str, hosts: &str| {
        let node = dns::ResolvConf::parse(resolv_conf);
        let (resolv_conf, warnings) = dns::resolv_conf(&pod, &cluster_dns, &domain, &node);
        let hosts = if pod.host_network() {
            dns::host_network_hosts_file(&pod, hosts)
        } else {
            dns::hosts_file(&pod, &ips, &domain)
        };
        Texts { resolv_conf: resolv_conf.render(), hosts, hostname: format!("{hostname}\n"), warnings }
    };
    for warning in kubelet.on_disk(&uid, move || files.write(texts)).await? {
        kubelet.recorder.event(&about, EventType::Warning, "DNSConfigForming", &warning);
    }
    Ok(())
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
    kubelet.on_disk(uid, move || volumes::remove_pod_dir(&dir)).await.map_err(|e| e.to_string())
}

/// The rest, once the pod's object has gone.
pub(super) async fn forget(kubelet: &Kubelet, pod: &Pod) {
    if let Err(e) = kubelet.runtime.remove_sandbox(pod.uid()).await {
        warn!(pod = %pod.full_name(), "sandbox not removed: {e}");
    }
    let logs = pod_log_dir(&kubelet.cfg.log_dir, pod);
    let dir = logs.clone();
    if let Err(e) = kubelet.on_disk(pod.uid(), move || runtime::remove_tree(&dir)).await {
        warn!("logs in {} not removed: {e}", logs.display());
    }
}
