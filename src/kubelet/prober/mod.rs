//! Probes of running containers: one task a probe, started when its container runs and ended with
//! it. A task tells the pod's worker only when the verdict changes.

mod decision;
mod grpc;
pub(crate) mod http;
mod target;
mod tls;
mod url;

use std::sync::Arc;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, ObjectReference, Probe};
use client::{EventType, Owned, Recorder};
use rand::Rng as _;
use runtime::Runtime;
use tokio::sync::mpsc;

pub(crate) use decision::Verdict;
use decision::{Thresholds, Tracker};
use target::Checked;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    pub(crate) fn of(self, c: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => c.startup_probe.as_ref(),
            Self::Readiness => c.readiness_probe.as_ref(),
            Self::Liveness => c.liveness_probe.as_ref(),
        }
    }
}

/// A verdict that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeReport {
    pub(crate) container_id: String,
    pub(crate) kind: ProbeKind,
    pub(crate) verdict: Verdict,
}

/// One probe of one container.
pub(crate) struct Prober {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) recorder: Recorder,
    pub(crate) about: ObjectReference,
    pub(crate) kind: ProbeKind,
    pub(crate) probe: Probe,
    pub(crate) container: Container,
    pub(crate) container_id: String,
    /// Where HTTP, TCP and gRPC probes go unless they name a host.
    pub(crate) pod_ip: String,
    /// How long the container runs, whatever was done to the clock on the wall.
    pub(crate) age: Duration,
    /// The container ran before this kubelet did: probes of many pods are spread out.
    pub(crate) adopted: bool,
    pub(crate) reports: mpsc::Sender<ProbeReport>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|&v| v > 0).unwrap_or(default))
}

/// How many probes of a container of this age there were since the end of the initial delay.
fn failures_within(age: Duration, initial: Duration, period: Duration) -> u32 {
    let periods = age.saturating_sub(initial).as_nanos() / period.as_nanos();
    u32::try_from(periods).unwrap_or(u32::MAX)
}

impl Prober {
    pub(crate) fn spawn(self) -> Owned {
        Owned::spawn(self.run())
    }

    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let failures = self.failures_before(period);
        tokio::time::sleep(self.first_delay(period)).await;
        let mut tracker = Tracker::new(self.kind, Thresholds::of(&self.probe), failures);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let checked = target::check(&self, timeout).await;
            self.tell(&checked);
            let Some(verdict) = tracker.next(checked.is_success()) else { continue };
            let report = ProbeReport { container_id: self.container_id.clone(), kind: self.kind, verdict };
            let over = self.kind != ProbeKind::Readiness && verdict == Verdict::Failing
                || self.kind == ProbeKind::Startup && verdict == Verdict::Passing;
            // Either the worker has gone, or the container is about to: nothing is left to probe.
            if self.reports.send(report).await.is_err() || over {
                return;
            }
        }
    }

    /// How often the probe of a container that has not started has failed under the kubelet before this one:
    /// the time that it gets does not begin anew.
    fn failures_before(&self, period: Duration) -> u32 {
        if self.kind != ProbeKind::Startup || !self.adopted {
            return 0;
        }
        let initial = seconds(self.probe.initial_delay_seconds, 0);
        failures_within(self.age, initial, period)
    }

    fn first_delay(&self, period: Duration) -> Duration {
        let initial = seconds(self.probe.initial_delay_seconds, 0);
        let left = initial.saturating_sub(self.age);
        let spread = if self.adopted { rand::rng().random_range(0.0..1.0) } else { 0.0 };
        left + period.mul_f64(spread)
    }

    fn tell(&self, checked: &Checked) {
        let name = self.kind.name();
        let message = match checked {
            Checked::Success => return,
            Checked::Warning(text) => {
                let message = format!("{name} probe warning: {text}");
                self.recorder.event(&self.about, EventType::Warning, "ProbeWarning", &message);
                return;
            }
            Checked::Failure(output) => format!("{name} probe failed: {output}"),
            Checked::Error(why) => format!("{name} probe errored and resulted in unknown state: {why}"),
        };
        self.recorder.event(&self.about, EventType::Warning, "Unhealthy", &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_of_a_container_that_is_not_started_are_counted_from_its_start() {
        for (age, initial, period, expected) in
            [(0, 0, 10, 0), (9, 0, 10, 0), (35, 0, 10, 3), (35, 30, 10, 0), (55, 30, 10, 2)]
        {
            let [age, initial, period] = [age, initial, period].map(Duration::from_secs);
            assert_eq!(failures_within(age, initial, period), expected, "{age:?} {initial:?}");
        }
    }
}
