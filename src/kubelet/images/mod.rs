//! Sees to it that a container's image is on the node: pull policy, credentials, events and the
//! reasons that a container's status shows meanwhile.

mod keyring;
mod reference;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{ObjectReference, Pod, Secret};
use client::{Cluster, EventType, Recorder};
use jiff::Timestamp;
use parking_lot::Mutex;
use runtime::{ImageStatus, Runtime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::failures::Failures;
use crate::pod::PodExt;
use crate::sources::ObjectBytes;
use crate::status::Waiting;
use keyring::Keyring;

/// Pulls under way on one node: an SD card unpacks no faster with more.
const PARALLEL_PULLS: usize = 3;
/// How long `ErrImagePull` is shown before `ImagePullBackOff`.
const SHOW_ERROR: Duration = Duration::from_secs(2);

/// The image cannot be had now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageError {
    pub(crate) waiting: Waiting,
    /// When to try again.
    pub(crate) retry_at: Timestamp,
}

/// Pulls of one pod that failed, by image.
#[derive(Default)]
pub(crate) struct PullHistory(Mutex<HashMap<String, (Failures, String)>>);

pub(crate) struct Images {
    slots: Semaphore,
}

/// What one request for an image is about.
pub(crate) struct Request<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) cluster: &'a Cluster,
    pub(crate) recorder: &'a Recorder,
    pub(crate) about: &'a ObjectReference,
    pub(crate) pod: &'a Pod,
    pub(crate) image: &'a str,
    /// When to pull it.
    pub(crate) policy: Option<&'a str>,
    pub(crate) history: &'a PullHistory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    UsePresent,
    Never,
    Pull,
}

fn step(policy: Option<&str>, present: bool) -> Step {
    match (policy.unwrap_or("IfNotPresent"), present) {
        ("Never", false) => Step::Never,
        ("Always", _) | (_, false) => Step::Pull,
        (_, true) => Step::UsePresent,
    }
}

impl Images {
    pub(crate) fn new() -> Self {
        Self { slots: Semaphore::new(PARALLEL_PULLS) }
    }

    /// The image, pulled if the policy says so.
    ///
    /// # Errors
    /// With what the container's status shows while it waits.
    pub(crate) async fn ensure(&self, cx: &Request<'_>) -> Result<ImageStatus, ImageError> {
        let name = cx.image;
        let full = match reference::with_default_tag(name) {
            Ok(full) => full,
            Err(why) => {
                let message = format!("Failed to apply default image tag {name:?}: {why}");
                cx.event(EventType::Warning, "InspectFailed", &message);
                return Err(held("InvalidImageName", message, Duration::from_secs(60)));
            }
        };
        let present = cx.runtime.image_status(&full);
        match step(cx.policy, present.is_some()) {
            Step::UsePresent => {
                let message =
                    format!("Container image {name:?} already present on machine and can be accessed by the pod");
                cx.event(EventType::Normal, "Pulled", &message);
                present.ok_or_else(|| held("ErrImageNeverPull", String::new(), SHOW_ERROR))
            }
            Step::Never => {
                let message = format!("Container image {name:?} is not present with pull policy of Never");
                cx.event(EventType::Warning, "ErrImageNeverPull", &message);
                Err(held("ErrImageNeverPull", message, Duration::from_secs(10)))
            }
            Step::Pull => self.pull(cx, name, &full).await,
        }
    }

    async fn pull(&self, cx: &Request<'_>, name: &str, full: &str) -> Result<ImageStatus, ImageError> {
        if let Some((until, last)) = cx.history.holding(name, Timestamp::now()) {
            let back_off = format!("Back-off pulling image {name:?}");
            cx.event(EventType::Normal, "BackOff", &back_off);
            let waiting = Waiting::new("ImagePullBackOff", format!("{back_off}: ErrImagePull: {last}"));
            return Err(ImageError { waiting, retry_at: until });
        }
        cx.event(EventType::Normal, "Pulling", &format!("Pulling image {name:?}"));
        let asked = Instant::now();
        let _slot = self.slots.acquire().await.expect("invariant: the semaphore is never closed");
        let began = Instant::now();
        match try_credentials(cx, full).await {
            Ok(image) => {
                cx.history.0.lock().remove(name);
                let message = format!(
                    "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_milliseconds(began.elapsed()),
                    go_milliseconds(asked.elapsed()),
                    image.size_bytes
                );
                cx.event(EventType::Normal, "Pulled", &message);
                Ok(image)
            }
            Err(why) => {
                cx.event(EventType::Warning, "Failed", &format!("Failed to pull image {name:?}: {why}"));
                cx.history.failed(name, &why, Timestamp::now());
                Err(held("ErrImagePull", why, SHOW_ERROR))
            }
        }
    }
}

/// Bytes of Secrets that are read for one pull: an ordinary one has a few hundred.
const PULL_SECRETS: usize = 8 << 20;

/// With each credential that matches, else without any.
async fn try_credentials(cx: &Request<'_>, full: &str) -> Result<ImageStatus, String> {
    let mut keyring = Keyring::default();
    let mut left = ObjectBytes::new(PULL_SECRETS);
    let mut named = HashSet::new();
    let secrets = cx.pod.spec().image_pull_secrets.iter().flatten();
    for secret in secrets.filter(|secret| named.insert(&secret.name)) {
        match left.read::<Secret>(cx.cluster, cx.pod.namespace(), &secret.name).await {
            Ok(Some(secret)) => keyring.add(&secret)?,
            Ok(None) | Err(_) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    secret.name
                );
                cx.event(EventType::Warning, "FailedToRetrieveImagePullSecret", &message);
            }
        }
    }
    let matching = keyring.matching(full);
    if matching.is_empty() {
        return cx.runtime.pull_image(full, None).await.map_err(|e| e.to_string());
    }
    let mut last = String::new();
    for auth in matching {
        match cx.runtime.pull_image(full, Some(auth)).await {
            Ok(image) => return Ok(image),
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

impl Request<'_> {
    fn event(&self, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(self.about, kind, reason, message);
    }
}

fn held(reason: &'static str, message: String, pause: Duration) -> ImageError {
    let now = Timestamp::now();
    ImageError { waiting: Waiting::new(reason, message), retry_at: now.checked_add(pause).unwrap_or(now) }
}

impl PullHistory {
    fn holding(&self, image: &str, now: Timestamp) -> Option<(Timestamp, String)> {
        let history = self.0.lock();
        let (failures, message) = history.get(image)?;
        let (_, until) = failures.hold(failures.last()?, now)?;
        Some((until, message.clone()))
    }

    fn failed(&self, image: &str, message: &str, at: Timestamp) {
        let mut history = self.0.lock();
        let entry = history.entry(image.to_owned()).or_default();
        entry.0.add(at);
        message.clone_into(&mut entry.1);
    }
}

/// Go's text of a duration cut to milliseconds: `345ms`, `1.2s`, `1m2.3s`.
pub(crate) fn go_milliseconds(d: Duration) -> String {
    let ms = d.as_millis();
    if ms < 1000 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let (minutes, rest) = (ms / 60_000, ms % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let seconds =
        if fraction.is_empty() { format!("{}s", rest / 1000) } else { format!("{}.{fraction}s", rest / 1000) };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide() {
        for (policy, present, expected) in [
            (Some("Always"), true, Step::Pull),
            (Some("Always"), false, Step::Pull),
            (Some("IfNotPresent"), true, Step::UsePresent),
            (Some("IfNotPresent"), false, Step::Pull),
            (Some("Never"), true, Step::UsePresent),
            (Some("Never"), false, Step::Never),
        ] {
            assert_eq!(step(policy, present), expected, "{policy:?} {present}");
        }
    }

    #[test]
    fn durations_read_as_gos() {
        for (ms, text) in
            [(0, "0s"), (345, "345ms"), (1200, "1.2s"), (3000, "3s"), (62_345, "1m2.345s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_milliseconds(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn a_failed_pull_is_held_back_and_says_why() {
        let history = PullHistory::default();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(history.holding("x", at(0)), None);
        history.failed("x", "no such host", at(0));
        assert_eq!(history.holding("x", at(5)), Some((at(10), "no such host".to_owned())));
        assert_eq!(history.holding("x", at(10)), None);
        history.failed("x", "again", at(10));
        assert_eq!(history.holding("x", at(11)).unwrap().0, at(30));
    }
}
