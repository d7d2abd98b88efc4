//! Owned tasks: every task has a name, a token that ends it, and somebody who waits for it.

use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, error, info_span};

/// A group of named tasks under one cancellation token.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    token: CancellationToken,
}

impl Tasks {
    /// Tasks that end when `parent` is cancelled.
    #[must_use]
    pub fn under(parent: &CancellationToken) -> Self {
        Self { set: JoinSet::new(), token: parent.child_token() }
    }

    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub fn spawn(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(
            async move {
                future.await;
                name
            }
            .instrument(info_span!("task", name)),
        );
    }

    /// Waits until any task ends: its name, or `None` when it panicked or none is left.
    pub async fn any(&mut self) -> Option<&'static str> {
        match self.set.join_next().await? {
            Ok(name) => Some(name),
            Err(e) => {
                error!("task failed: {e}");
                None
            }
        }
    }

    /// Cancels all and waits for them.
    pub async fn shutdown(mut self) {
        self.token.cancel();
        while let Some(ended) = self.set.join_next().await {
            match ended {
                Ok(name) => debug!(name, "task ended"),
                Err(e) => error!("task failed: {e}"),
            }
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
