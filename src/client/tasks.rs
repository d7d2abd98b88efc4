//! Owned tasks: every task has a name, a token that ends it, and somebody who waits for it.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, error, info_span};

/// How long tasks may take to end once they are told to; what takes longer is cut off and named.
const GRACE: Duration = Duration::from_secs(10);

/// A group of named tasks under one cancellation token.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
    token: CancellationToken,
}

impl Tasks {
    /// Tasks that end when `parent` is cancelled.
    #[must_use]
    pub fn under(parent: &CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), token: parent.child_token() }
    }

    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub fn spawn(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(future.instrument(info_span!("task", name)));
        self.names.insert(handle.id(), name);
    }

    /// A task that is dropped where it waits once the token is cancelled.
    pub fn spawn_cancellable(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.spawn(name, async move {
            token.run_until_cancelled(future).await;
        });
    }

    /// Waits until any task ends and gives its name; `None` when none is left.
    pub async fn any(&mut self) -> Option<&'static str> {
        let ended = self.set.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(e) => e.id(),
        };
        let name = self.names.remove(&id);
        if let Err(e) = ended
            && e.is_panic()
        {
            error!(name, "task panicked: {e}");
        }
        name
    }

    /// Cancels all and waits for them.
    pub async fn shutdown(mut self) {
        self.token.cancel();
        let drained = async { while self.any().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            let left: Vec<&str> = self.names.values().copied().collect();
            error!(?left, "these tasks did not end and are cut off");
            self.set.shutdown().await;
        }
    }
}

/// One task that lives as long as this value; dropping it aborts the task.
pub struct Owned(AbortOnDropHandle<()>);

impl Owned {
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the handle owns the task: dropping it aborts it")]
        Self(AbortOnDropHandle::new(tokio::spawn(future)))
    }

    /// Waits for the task's own end; an abort or panic counts as one.
    pub async fn join(self) {
        if let Err(e) = self.0.await
            && e.is_panic()
        {
            error!("task panicked: {e}");
        }
    }
}
