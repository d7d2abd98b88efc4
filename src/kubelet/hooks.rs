//! Lifecycle hooks: what runs after a container has started and before it is stopped.

use std::time::Duration;

use api::k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use client::EventType;
use runtime::Runtime;

use crate::events;
use crate::kubelet::Kubelet;
use crate::prober::http;

/// A hook without a limit of its own still ends with its pod; this keeps a forgotten one from
/// holding a task for ever.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Runs one hook to its end. Gives host and port of an HTTPS hook that was called by HTTP, since its
/// server speaks nothing else.
///
/// # Errors
/// With what it said when it failed.
pub(crate) async fn run(
    runtime: &Runtime,
    handler: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    limit: Duration,
) -> Result<Option<String>, String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let line = command.join(" ");
        let result = runtime.exec_sync(container_id, command, limit).await.map_err(|e| e.to_string())?;
        if result.exit_code == 0 {
            return Ok(None);
        }
        let output = String::from_utf8_lossy(&result.stderr);
        return Err(format!("command '{line}' exited with {}: {output}", result.exit_code));
    }
    if let Some(action) = &handler.http_get {
        let target = http::Target::of(action, container, pod_ip, http::Purpose::Lifecycle)?;
        return http::call_hook(&target, limit).await;
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
        return Ok(None);
    }
    Err("invalid handler: only exec, httpGet and sleep are supported".to_owned())
}

/// Tells the pod's owner that a hook was called by HTTP though it asks for HTTPS.
pub(crate) fn tell_fallback(kubelet: &Kubelet, pod: &Pod, host: &str) {
    let message = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
    kubelet.recorder.event(&events::pod(pod), EventType::Warning, "LifecycleHTTPFallback", &message);
}
