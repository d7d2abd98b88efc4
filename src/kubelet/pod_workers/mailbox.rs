//! What others tell a pod's worker. Only the newest of everything is kept, so nothing queues up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::status::Verdict;

/// News since the worker looked last.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) removed: bool,
    pub(crate) verdict: Option<(Verdict, i64)>,
    /// A ConfigMap or Secret that it refers to changed.
    pub(crate) sources_changed: bool,
}

#[derive(Default)]
pub(crate) struct Mailbox {
    news: Mutex<News>,
    /// Stays set once it is, while `news` are taken.
    removed: AtomicBool,
    notify: Notify,
}

impl Mailbox {
    /// A newer version of the pod's object.
    pub(crate) fn update(&self, pod: Arc<Pod>) {
        self.news.lock().pod = Some(pod);
        self.notify.notify_one();
    }

    /// The object has gone.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.news.lock().removed = true;
        self.notify.notify_one();
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The kubelet ends the pod with this verdict and so many seconds of grace.
    pub(crate) fn condemn(&self, verdict: Verdict, grace: i64) {
        self.news.lock().verdict.get_or_insert((verdict, grace));
        self.notify.notify_one();
    }

    pub(crate) fn sources_changed(&self) {
        self.news.lock().sources_changed = true;
        self.notify.notify_one();
    }

    /// Something happened in the runtime: look again.
    pub(crate) fn poke(&self) {
        self.notify.notify_one();
    }

    pub(super) fn take(&self) -> News {
        std::mem::take(&mut *self.news.lock())
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }
}
