//! Stops containers: preStop hook, stop signal, kill, within the grace period.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{ObjectReference, Pod};
use client::EventType;
use futures::future::join_all;
use runtime::{ContainerStatus, Scope};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::plan::{Kill, Unhealthy};
use crate::kubelet::Kubelet;
use crate::observed::label;
use crate::pod::{PodExt, Role};
use crate::{events, hooks};

/// A container gets at least this long, so that it is not killed without need.
pub(super) const MIN_GRACE_SECONDS: u64 = 2;
/// A node that is busy reading its disk does not keep a pod from ending.
const CLOCK_DEADLINE: Duration = Duration::from_secs(2);
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// The default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

#[derive(Clone)]
pub(super) struct Stopper {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Arc<Pod>,
    pub(super) ips: Vec<IpAddr>,
}

/// The pod's own grace period; for a pod that is only known from labels, what they say.
pub(super) fn own_grace(pod: &Pod, containers: &[ContainerStatus]) -> i64 {
    let labelled = || containers.iter().find_map(|c| c.labels.get(label::GRACE_PERIOD)?.parse().ok());
    pod.spec().termination_grace_period_seconds.or_else(labelled).unwrap_or(DEFAULT_GRACE_SECONDS)
}

/// How long a pod that is being ended may take. Deletion may shorten it, never lengthen it.
pub(super) fn ending_grace(pod: &Pod, containers: &[ContainerStatus], condemned: Option<i64>) -> i64 {
    let own = own_grace(pod, containers);
    let deletion = pod.metadata.deletion_grace_period_seconds.filter(|_| pod.is_deleting());
    let shortest = [condemned, deletion].into_iter().flatten().min();
    shortest.unwrap_or(own).max(1)
}

/// How long a container may take that is restarted or replaced: as its probe says, else as its pod.
fn kill_grace(pod: &Pod, kill: &Kill, containers: &[ContainerStatus]) -> Duration {
    let of_probe = pod.container(&kill.name).and_then(|(_, c)| {
        let probe = match kill.why? {
            Unhealthy::Liveness => c.liveness_probe.as_ref(),
            Unhealthy::Startup => c.startup_probe.as_ref(),
        };
        probe?.termination_grace_period_seconds
    });
    let grace = of_probe.unwrap_or_else(|| own_grace(pod, containers));
    seconds(grace).max(Duration::from_secs(MIN_GRACE_SECONDS))
}

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

/// What is left of a grace period, and at least enough to end in order.
fn left(grace: Duration, spent: Duration) -> Duration {
    grace.saturating_sub(spent).max(least(grace))
}

fn least(grace: Duration) -> Duration {
    Duration::from_secs(MIN_GRACE_SECONDS).min(grace)
}

impl Stopper {
    /// One container that is to be restarted or replaced.
    pub(super) async fn kill(&self, kill: Kill, container: ContainerStatus) {
        let grace = kill_grace(&self.pod, &kill, std::slice::from_ref(&container));
        let left = left(grace, self.stopping_for(Some(&container.id)).await);
        self.stop(&container, kill.message, left, Scope::Container).await;
    }

    /// How long the pod, or one container of it, has been asked to end, by this kubelet or by one before.
    async fn stopping_for(&self, container: Option<&str>) -> Duration {
        let asked = self.kubelet.runtime.stopping_for(self.pod.uid(), container);
        let why = match timeout(CLOCK_DEADLINE, asked).await {
            Ok(Ok(spent)) => return spent,
            Ok(Err(e)) => e.to_string(),
            Err(_) => "it takes too long to find out".to_owned(),
        };
        warn!(pod = %self.pod.full_name(), "it is not known since when it is to end, the grace period begins: {why}");
        Duration::ZERO
    }

    /// Everything: the app containers at once, then the sidecars from the last to the first, all
    /// within one grace period.
    pub(super) async fn stop_all(&self, containers: Vec<ContainerStatus>, grace: i64) {
        let grace = left(seconds(grace), self.stopping_for(None).await);
        let end = Instant::now() + grace;
        let order = self.sidecar_order();
        let (mut sidecars, others): (Vec<_>, Vec<_>) =
            containers.into_iter().partition(|c| order.contains_key(&c.name));
        join_all(others.iter().map(|c| self.stop(c, stopping(c), grace, Scope::Pod))).await;
        sidecars.sort_by_key(|c| std::cmp::Reverse(order.get(&c.name).copied()));
        for c in &sidecars {
            let left = end.saturating_duration_since(Instant::now()).max(least(grace));
            self.stop(c, stopping(c), left, Scope::Pod).await;
        }
    }

    fn sidecar_order(&self) -> BTreeMap<String, usize> {
        let containers = self.pod.containers();
        let sidecars = containers.iter().enumerate().filter(|(_, (role, _))| *role == Role::Sidecar);
        sidecars.map(|(n, (_, c))| (c.name.clone(), n)).collect()
    }

    async fn stop(&self, container: &ContainerStatus, message: String, grace: Duration, scope: Scope) {
        let role = self.pod.container(&container.name).map_or(Role::App, |(role, _)| role);
        let about = events::container(&self.pod, role, &container.name);
        self.kubelet.recorder.event(&about, EventType::Normal, "Killing", &message);
        let began = Instant::now();
        self.pre_stop(container, &about, grace).await;
        let stop = self.kubelet.runtime.stop_container(&container.id, left(grace, began.elapsed()), scope);
        if let Err(e) = self.kubelet.metrics.time("stop_container", stop).await {
            warn!(pod = %self.pod.full_name(), container = container.name, "container not stopped: {e}");
            // The worker tries again as soon as this ends.
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    async fn pre_stop(&self, container: &ContainerStatus, about: &ObjectReference, grace: Duration) {
        let Some((_, c)) = self.pod.container(&container.name) else { return };
        let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
        let ip = self.ips.first().map(IpAddr::to_string).unwrap_or_default();
        let run = hooks::run(&self.kubelet.runtime, hook, &c, &container.id, &ip, grace);
        match timeout(grace, run).await {
            Ok(Ok(fell_back)) => {
                fell_back.iter().for_each(|host| hooks::tell_fallback(&self.kubelet, &self.pod, host));
            }
            Ok(Err(why)) => {
                warn!(pod = %self.pod.full_name(), container = c.name, "preStop hook: {why}");
                self.kubelet.recorder.event(about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => warn!(pod = %self.pod.full_name(), container = c.name, "preStop hook outlasted the grace period"),
        }
    }
}

fn stopping(c: &ContainerStatus) -> String {
    format!("Stopping container {}", c.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    #[test]
    fn deletion_and_eviction_shorten_the_grace_period() {
        for (own, deletion, condemned, expected) in [
            (None, None, None, 30),
            (Some(5), None, None, 5),
            (Some(60), Some(10), None, 10),
            (Some(60), Some(0), None, 1),
            (Some(60), Some(10), Some(0), 1),
            (Some(60), None, Some(3), 3),
        ] {
            let mut p = pod(json!({"containers": [], "terminationGracePeriodSeconds": own}));
            if deletion.is_some() {
                p.metadata.deletion_grace_period_seconds = deletion;
                p.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
            }
            assert_eq!(ending_grace(&p, &[], condemned), expected, "{own:?} {deletion:?} {condemned:?}");
        }
    }

    #[test]
    fn a_grace_period_goes_on_where_it_was() {
        for (grace, spent, expected) in [(30, 0, 30), (30, 12, 18), (30, 29, 2), (30, 3600, 2), (1, 3600, 1), (1, 0, 1)]
        {
            let [grace, spent, expected] = [grace, spent, expected].map(Duration::from_secs);
            assert_eq!(left(grace, spent), expected, "{grace:?} {spent:?}");
        }
    }

    #[test]
    fn a_probe_may_have_a_grace_period_of_its_own() {
        let pod = pod(json!({"terminationGracePeriodSeconds": 60, "containers": [{"name": "a",
            "livenessProbe": {"terminationGracePeriodSeconds": 7}, "startupProbe": {}}]}));
        for (why, expected) in [(None, 60), (Some(Unhealthy::Liveness), 7), (Some(Unhealthy::Startup), 60)] {
            let kill = Kill { id: "1".to_owned(), name: "a".to_owned(), message: String::new(), why, replace: false };
            assert_eq!(kill_grace(&pod, &kill, &[]), Duration::from_secs(expected), "{why:?}");
        }
    }
}
