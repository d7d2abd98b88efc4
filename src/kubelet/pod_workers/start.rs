//! Starts one container: image, environment, mounts, configuration, process, postStart hook.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{ConfigMap, Container, ObjectReference, Pod, Secret, Service};
use client::{EventType, Query};
use futures::FutureExt as _;
use jiff::Timestamp;
use runtime::{ImageStatus, Lane, Scope};
use tokio_util::sync::CancellationToken;

use crate::container_config::{self, pod_log_dir};
use crate::downward::FieldContext;
use crate::env::{self, EnvError, Values, Variables};
use crate::images::{PullHistory, Request};
use crate::kubelet::Kubelet;
use crate::metrics::{Counter, container_type};
use crate::observed::has_ended;
use crate::pod::{PodExt, Role};
use crate::source_room::{Purpose, Turn};
use crate::sources::Sources;
use crate::status::Waiting;
use crate::volumes::{
    CONTAINERS, EnvFiles, Mounted, container_mounts, image_path, is_mount_point, read_env_files, sub_paths,
};
use crate::{events, hooks};

/// Pause before a failed start is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Mount points are made and bound, some on the host's and the network's file systems.
const MOUNTS_DEADLINE: Duration = Duration::from_secs(60);

/// Everything that a start needs, owned, so that it can run beside its worker.
pub(super) struct Start {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Arc<Pod>,
    pub(super) role: Role,
    pub(super) container: Container,
    pub(super) attempt: u32,
    pub(super) sandbox_attempt: u32,
    pub(super) mounted: Arc<Mounted>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) pulls: Arc<PullHistory>,
}

/// It did not start.
pub(super) struct StartError {
    pub(super) waiting: Waiting,
    pub(super) retry_at: Timestamp,
    /// The process ran, or was tried: restart policy and back-off apply, not `retry_at`.
    pub(super) ran: bool,
}

impl StartError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let now = Timestamp::now();
        Self { waiting: Waiting::new(reason, message), retry_at: now.checked_add(RETRY).unwrap_or(now), ran: false }
    }
}

impl Start {
    /// `cancel` ends it where nothing is half made: while it pulls or runs the hook.
    pub(super) async fn run(self, cancel: &CancellationToken) -> Result<(), StartError> {
        let about = events::container(&self.pod, self.role, &self.container.name);
        let recorder = &self.kubelet.recorder;
        let Some(image) = cancel.run_until_cancelled(self.image(&about).boxed()).await else { return Err(cancelled()) };
        let image = image.inspect_err(|e| {
            recorder.event(&about, EventType::Warning, "Failed", &format!("Error: {}", e.waiting.reason));
        })?;
        let Some(volumes) = cancel.run_until_cancelled(self.image_volumes(&about).boxed()).await else {
            return Err(cancelled());
        };
        volumes.inspect_err(|e| {
            recorder.event(&about, EventType::Warning, "Failed", &format!("Error: {}", e.waiting.reason));
        })?;
        let failed = |e: &StartError| {
            recorder.event(&about, EventType::Warning, "Failed", &format!("Error: {}", e.waiting.message));
        };
        let (config, turn) = self.config(&image, cancel).boxed().await.inspect_err(failed)?;
        let runtime = &self.kubelet.runtime;
        let metrics = &self.kubelet.metrics;
        let id = metrics
            .time("create_container", runtime.create_container(self.pod.uid(), config))
            .await
            .map_err(|e| StartError::new("CreateContainerError", e.to_string()))
            .inspect_err(failed)?;
        drop(turn);
        recorder.event(&about, EventType::Normal, "Created", "Container created");
        let kind = ("container_type", container_type(self.role));
        if let Err(e) = metrics.time("start_container", runtime.start_container(&id)).await {
            metrics.count(Counter::StartedContainersErrors, &[("code", "RunContainerError"), kind]);
            let ended = runtime.container_status(&id).is_ok_and(|c| has_ended(&c));
            let e = StartError { ran: ended, ..StartError::new("RunContainerError", e.to_string()) };
            failed(&e);
            if !ended && let Err(e) = runtime.remove_container(&id).await {
                tracing::warn!(container = id, "container that did not start not removed: {e}");
            }
            return Err(e);
        }
        metrics.count(Counter::StartedContainers, &[kind]);
        recorder.event(&about, EventType::Normal, "Started", "Container started");
        cancel.run_until_cancelled(self.post_start(&id, &about).boxed()).await.unwrap_or_else(|| Err(cancelled()))
    }

    async fn image(&self, about: &ObjectReference) -> Result<ImageStatus, StartError> {
        let c = &self.container;
        self.ensure(about, c.image.as_deref().unwrap_or_default(), c.image_pull_policy.as_deref()).await
    }

    /// Mounts the images that this container sees as volumes; those that are mounted stay as they are.
    async fn image_volumes(&self, about: &ObjectReference) -> Result<(), StartError> {
        let pod_dir = self.kubelet.cfg.pod_dir(self.pod.uid());
        for volume in self.pod.spec().volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            if !self.container.volume_mounts.iter().flatten().any(|m| m.name == volume.name) {
                continue;
            }
            let dir = image_path(&pod_dir, &volume.name);
            let failed = |why: String| StartError::new("CreateContainerError", why);
            let at = dir.clone();
            let mounted = self.kubelet.on_disk(self.pod.uid(), move || is_mount_point(&at)).await;
            if mounted.map_err(|e| failed(e.to_string()))? {
                continue;
            }
            let reference = source.reference.as_deref().unwrap_or_default();
            let image = self.ensure(about, reference, source.pull_policy.as_deref()).await?;
            self.kubelet.runtime.mount_image(&image.id, &dir).await.map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }

    async fn ensure(
        &self,
        about: &ObjectReference,
        image: &str,
        policy: Option<&str>,
    ) -> Result<ImageStatus, StartError> {
        let kubelet = &*self.kubelet;
        let request = Request {
            runtime: &kubelet.runtime,
            cluster: &kubelet.cluster,
            recorder: &kubelet.recorder,
            about,
            pod: &self.pod,
            image,
            policy,
            history: &self.pulls,
        };
        kubelet.images.ensure(&request).await.map_err(|e| StartError {
            waiting: e.waiting,
            retry_at: e.retry_at,
            ran: false,
        })
    }

    /// With the turn of variables that are many, which goes on until the runtime has them.
    async fn config(
        &self,
        image: &ImageStatus,
        cancel: &CancellationToken,
    ) -> Result<(runtime::ContainerConfig, Option<Turn>), StartError> {
        let bad = |text: String| StartError::new("CreateContainerConfigError", text);
        let (kubelet, pod, c) = (&*self.kubelet, &*self.pod, &self.container);
        let pod_dir = kubelet.cfg.pod_dir(pod.uid());
        let files = Arc::new(read_env_files(kubelet.disk(), pod, c, &pod_dir).await);
        let (env, turn) = self.variables(&files, cancel).await?;
        let sub_paths = sub_paths(c, &env).map_err(bad)?;
        // Many are not kept while mounts may wait for a file system: nobody would have a turn then.
        let env = turn.is_little().then_some(env);
        drop(turn);
        let message_file = message_file(kubelet, pod.uid(), &c.name, self.attempt);
        let work = {
            let (pod, c, mounted) = (self.pod.clone(), c.clone(), self.mounted.clone());
            move || container_mounts(&pod, &c, &mounted, &sub_paths, &pod_dir, &message_file)
        };
        let (lane, owner) = match self.mounted.elsewhere(c) {
            Some(owner) => (Lane::Foreign, owner),
            None => (Lane::Pod, pod.uid()),
        };
        let mounts = kubelet.disk().run(lane, owner, MOUNTS_DEADLINE, work).await;
        let mounts = mounts.map_err(|e| bad(e.to_string()))?.map_err(bad)?;
        let (env, turn) = match env {
            Some(env) => (env, None),
            None => {
                let (env, turn) = self.variables(&files, cancel).await?;
                (env, Some(turn))
            }
        };
        let config = container_config::build(container_config::Inputs {
            pod,
            role: self.role,
            container: c,
            attempt: self.attempt,
            sandbox_attempt: self.sandbox_attempt,
            image,
            env,
            mounts,
            log_dir: &pod_log_dir(&kubelet.cfg.log_dir, pod),
            seccomp_dir: &kubelet.cfg.seccomp_dir,
            memory_capacity: kubelet.machine.memory_bytes,
        });
        Ok((config.map_err(bad)?, turn))
    }

    /// The container's variables, and the turn that they are made in.
    async fn variables(
        &self,
        files: &Arc<EnvFiles>,
        cancel: &CancellationToken,
    ) -> Result<(Vec<(String, String)>, Turn), StartError> {
        let bad = |text: String| StartError::new("CreateContainerConfigError", text);
        let (kubelet, pod, container) = (self.kubelet.clone(), self.pod.clone(), self.container.clone());
        let namespace = pod.namespace();
        let bytes = Sources::bytes(&kubelet.cluster, namespace, &container).map_err(bad)?;
        let turn = cancel.run_until_cancelled(kubelet.sources.enter(Purpose::Variables, bytes)).await;
        let turn = turn.ok_or_else(cancelled)?;
        let sources = Sources::of(&kubelet.cluster, namespace, &container).await;
        let services = self.services().map_err(|e| bad(e.to_string()))?;
        let (files, ips) = (files.clone(), self.ips.clone());
        let make = move || {
            let allocatable = kubelet.allocatable.clone();
            let fields = FieldContext { host_ips: &kubelet.cfg.node_ips, pod_ips: &ips, allocatable };
            env::build(&pod, &container, &services, &fields, &Lookup { sources: &sources, files: &files })
        };
        let env = if turn.is_little() {
            make()
        } else {
            // Half a million variables take longer than a thread of the API's has.
            let made = self.kubelet.disk().run(Lane::Pod, self.pod.uid(), MOUNTS_DEADLINE, make).await;
            made.unwrap_or_else(|e| Err(EnvError::Unreadable(e.to_string())))
        };
        Ok((env.map_err(|e| bad(e.to_string()))?, turn))
    }

    /// The services of the pod's namespace if it wants them, and the API server always.
    fn services(&self) -> client::kube::Result<BTreeMap<String, String>> {
        let cluster = &self.kubelet.cluster;
        let mut list: Vec<Service> = cluster.get("default", "kubernetes")?.into_iter().collect();
        if self.pod.spec().enable_service_links != Some(false) {
            list.extend(cluster.list::<Service>(&Query::namespace(self.pod.namespace()))?);
        }
        Ok(env::service_variables(&list))
    }

    async fn post_start(&self, id: &str, about: &ObjectReference) -> Result<(), StartError> {
        let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let ip = self.ips.first().map(IpAddr::to_string).unwrap_or_default();
        let runtime = &self.kubelet.runtime;
        let why = match hooks::run(runtime, hook, &self.container, id, &ip, hooks::LONGEST).await {
            Ok(fell_back) => {
                fell_back.iter().for_each(|host| hooks::tell_fallback(&self.kubelet, &self.pod, host));
                return Ok(());
            }
            Err(why) => why,
        };
        let recorder = &self.kubelet.recorder;
        recorder.event(about, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        recorder.event(about, EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = Duration::from_secs(super::stop::MIN_GRACE_SECONDS);
        if let Err(e) = runtime.stop_container(id, grace, Scope::Container).await {
            tracing::debug!(container = id, "after a failed postStart hook: {e}");
        }
        Err(StartError { ran: true, ..StartError::new("PostStartHookError", why) })
    }
}

/// The pod is being stopped meanwhile; nobody reads the reason.
fn cancelled() -> StartError {
    StartError::new("ContainerCreating", "")
}

/// Where a container leaves its last words.
pub(super) fn message_file(kubelet: &Kubelet, uid: &str, container: &str, attempt: u32) -> PathBuf {
    kubelet.cfg.pod_dir(uid).join(CONTAINERS).join(container).join(format!("{attempt}.message"))
}

struct Lookup<'a> {
    sources: &'a Sources,
    files: &'a EnvFiles,
}

impl Values for Lookup<'_> {
    fn config_map(&self, name: &str) -> Result<Option<Cow<'_, ConfigMap>>, String> {
        self.sources.config_map(name)
    }

    fn secret(&self, name: &str) -> Result<Option<Cow<'_, Secret>>, String> {
        self.sources.secret(name)
    }

    fn volume_file(&self, volume: &str, path: &str) -> Result<Option<Cow<'_, Variables>>, String> {
        self.files.get(volume, path)
    }
}
