//! Since when a pod or a container is asked to end, and why: the clock of its grace period and the kubelet's
//! verdict, which both go on when the daemon is started anew.
//!
//! The record of the clock lies in the run directory beside the socket of the pod's shim: it goes with what it is about,
//! and with the kernel whose clock it counts on.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Runtime;
use crate::contract::records::{SandboxVerdict, Stopping};
use crate::durable::{self, Durability};
use crate::error::{IoContext, Result};

impl Runtime {
    /// How long ago the pod, or one container of it, was asked to end; the first call starts the clock.
    ///
    /// # Errors
    /// When that cannot be read or noted.
    pub async fn stopping_for(&self, uid: &str, container: Option<&str>) -> Result<Duration> {
        let sandbox = self.sandbox_paths(uid);
        let run = container.map_or_else(|| sandbox.run.clone(), |id| sandbox.container(id).run);
        let path = run.join(Stopping::FILE);
        // Not in the pod's own name: what hangs of its volumes must not hold up its end.
        self.blocking("", move || {
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).at("ask the time for", &path)?;
            if let Some(Stopping { since }) = durable::read_optional(&path)? {
                return Ok(now.saturating_sub(since));
            }
            // Without the directory nothing runs any more.
            if run.is_dir() {
                durable::write(&path, &Stopping { since: now }, Durability::Atomic)?;
            }
            Ok(Duration::ZERO)
        })
        .await
    }

    /// Notes why a pod is ended, for the daemon that sees its end. A pod without a sandbox has nothing to end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn note_verdict(&self, uid: &str, words: String) -> Result<()> {
        let paths = self.sandbox_paths(uid);
        self.blocking("", move || {
            if !paths.data.is_dir() {
                return Ok(());
            }
            durable::write(&paths.verdict(), &SandboxVerdict { words }, Durability::Atomic)
        })
        .await
    }

    /// What was noted of why a pod is ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn verdict(&self, uid: &str) -> Result<Option<String>> {
        let path = self.sandbox_paths(uid).verdict();
        let read = self.blocking("", move || durable::read_optional::<SandboxVerdict>(&path)).await?;
        Ok(read.map(|verdict| verdict.words))
    }
}
