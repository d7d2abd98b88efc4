//! Parts of a process that may fail by themselves: they are started again, and say meanwhile what is
//! wrong with them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Backoff;

/// A part that has run for so long works.
const STEADY: Duration = Duration::from_secs(5);

/// What is wrong with each part that does not work.
pub type Failures = BTreeMap<&'static str, String>;

/// Where parts say how they are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Parts(watch::Sender<Failures>);

impl Parts {
    /// Sees the failures of now and each change of them.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Failures> {
        self.0.subscribe()
    }

    fn failed(&self, part: &'static str, message: String) {
        self.0.send_if_modified(|failures| {
            let is_new = failures.get(part) != Some(&message);
            if is_new {
                warn!(part, "{message}");
                failures.insert(part, message);
            }
            is_new
        });
    }

    fn works(&self, part: &'static str) {
        self.0.send_if_modified(|failures| {
            let was_failing = failures.remove(part).is_some();
            if was_failing {
                info!(part, "works again");
            }
            was_failing
        });
    }

    /// Runs a part until `token` is cancelled, again after each failure, panics included.
    pub async fn keep_running<F, E>(&self, part: &'static str, token: &CancellationToken, mut start: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut attempt = 0;
        while !token.is_cancelled() {
            let mut task = JoinSet::new();
            task.spawn(start().boxed());
            let mut ended = tokio::select! {
                ended = task.join_next() => Some(ended),
                () = sleep(STEADY) => None,
            };
            if ended.is_none() {
                self.works(part);
                attempt = 0;
                ended = Some(task.join_next().await);
            }
            if token.is_cancelled() {
                return;
            }
            self.failed(
                part,
                match ended.flatten() {
                    Some(Ok(Ok(()))) | None => "it ended".to_owned(),
                    Some(Ok(Err(error))) => format!("{error:#}"),
                    Some(Err(error)) => error.to_string(),
                },
            );
            token.run_until_cancelled(sleep(Backoff::PART.delay(attempt))).await;
            attempt += 1;
        }
    }

    /// Tries until it succeeds; `None` when `token` is cancelled first.
    pub async fn keep_trying<F, T, E>(
        &self,
        part: &'static str,
        token: &CancellationToken,
        mut attempt_it: impl FnMut() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, E>>,
        E: Display,
    {
        let mut attempt = 0;
        loop {
            match token.run_until_cancelled(attempt_it()).await? {
                Ok(value) => {
                    self.works(part);
                    return Some(value);
                }
                Err(error) => self.failed(part, format!("{error:#}")),
            }
            token.run_until_cancelled(sleep(Backoff::PART.delay(attempt))).await?;
            attempt += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_fails_or_panics_is_started_again_and_says_so_until_it_works() {
        let (parts, token) = (Parts::default(), CancellationToken::new());
        let starts = Arc::new(AtomicU32::new(0));
        let part = {
            let (parts, token, starts) = (parts.clone(), token.clone(), Arc::clone(&starts));
            crate::Owned::spawn(async move {
                parts
                    .keep_running("dns", &token.clone(), || {
                        let n = starts.fetch_add(1, Ordering::SeqCst);
                        let token = token.clone();
                        async move {
                            match n {
                                0 => return Err("address in use"),
                                1 => panic!("a bug"),
                                _ => token.cancelled().await,
                            }
                            Ok(())
                        }
                    })
                    .await;
            })
        };
        let mut seen = parts.subscribe();
        seen.wait_for(|f| f.get("dns").is_some_and(|m| m == "address in use")).await.unwrap();
        seen.wait_for(|f| f.get("dns").is_some_and(|m| m.contains("panicked"))).await.unwrap();
        seen.wait_for(BTreeMap::is_empty).await.unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        token.cancel();
        part.join().await;
    }

    /// A port may be taken for an hour; what then waits for it must see soon that it is free.
    #[tokio::test(start_paused = true)]
    async fn what_failed_for_long_is_still_tried_often() {
        let (parts, token) = (Parts::default(), CancellationToken::new());
        let begin = tokio::time::Instant::now();
        let mut tries = Vec::new();
        let opened = parts.keep_trying("kubelet-api", &token, || {
            tries.push(begin.elapsed());
            let is_free = begin.elapsed() > Duration::from_secs(3600);
            async move { if is_free { Ok(()) } else { Err("address in use") } }
        });
        assert_eq!(opened.await, Some(()));
        let longest = tries.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(longest <= Duration::from_secs(11), "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_opened_is_tried_until_it_can() {
        let (parts, token) = (Parts::default(), CancellationToken::new());
        let mut tries = 0;
        let opened = parts.keep_trying("kubelet", &token, || {
            tries += 1;
            let result = if tries < 4 { Err("not yet") } else { Ok(tries) };
            async move { result }
        });
        assert_eq!(opened.await, Some(4));
        assert!(parts.subscribe().borrow().is_empty());
        token.cancel();
        let given_up = parts.keep_trying("kubelet", &token, || async { Err::<(), _>("never") }).await;
        assert_eq!(given_up, None);
    }
}
