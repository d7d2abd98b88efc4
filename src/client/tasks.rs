//! Owned tasks: every task has a name, a token that ends it, and somebody who waits for it.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
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
        // The runtime's code for a task is compiled for each type of future: boxed, they are of one.
        let handle = self.set.spawn(future.boxed().instrument(info_span!("task", name)));
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
    async fn any(&mut self) -> Option<&'static str> {
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

    /// Waits until the token is cancelled; a task that ends before is the error, by its name.
    ///
    /// # Errors
    /// When a task ends by itself.
    pub async fn run(&mut self) -> Result<(), &'static str> {
        let token = self.token.clone();
        let ended = tokio::select! {
            () = token.cancelled() => return Ok(()),
            ended = self.any() => ended,
        };
        // Tasks that end because they were told to may be seen before the token is.
        if token.is_cancelled() { Ok(()) } else { Err(ended.unwrap_or("every task")) }
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
        Self(AbortOnDropHandle::new(tokio::spawn(future.boxed())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_that_are_told_to_end_are_not_found_to_have_ended_by_themselves() {
        // Which of two that are ready is seen first is left to chance.
        for _ in 0..64 {
            let stop = CancellationToken::new();
            let mut tasks = Tasks::under(&stop);
            for name in ["store", "apiserver", "kubelet"] {
                tasks.spawn(name, tasks.token().clone().cancelled_owned());
            }
            stop.cancel();
            while tasks.set.try_join_next().is_none() {
                tokio::task::yield_now().await;
            }
            assert_eq!(tasks.run().await, Ok(()));
            tasks.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named_a_panic_too() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::under(&stop);
        tasks.spawn("apiserver", tasks.token().clone().cancelled_owned());
        tasks.spawn("kubelet", async {});
        assert_eq!(tasks.run().await, Err("kubelet"));
        tasks.spawn("scheduler", async { panic!("a bug") });
        assert_eq!(tasks.run().await, Err("scheduler"));
        stop.cancel();
        assert_eq!(tasks.run().await, Ok(()));
        tasks.shutdown().await;
    }
}
