//! The pods that have a worker on this node, as the other parts of the kubelet see them.

use std::collections::HashMap;
use std::sync::Arc;

use api::k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::pod::{PodExt, is_terminal_phase};
use crate::pod_workers::Mailbox;

/// One pod, as its worker published it last.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Entry {
    /// It still uses the node's resources.
    pub(crate) fn is_active(&self) -> bool {
        !is_terminal_phase(self.status.phase.as_deref())
    }
}

#[derive(Default)]
pub(crate) struct Registry {
    entries: RwLock<HashMap<String, Entry>>,
    granted: Notify,
}

impl Registry {
    pub(crate) fn insert(&self, uid: &str, entry: Entry) {
        self.entries.write().insert(uid.to_owned(), entry);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.entries.write().remove(uid);
    }

    pub(crate) fn publish(&self, uid: &str, pod: &Arc<Pod>, status: &Arc<PodStatus>) {
        if let Some(entry) = self.entries.write().get_mut(uid) {
            entry.pod = pod.clone();
            entry.status = status.clone();
        }
    }

    /// Publishes a pod with other resources, if `judge` finds that they fit beside the other pods'.
    pub(crate) fn grant<E>(&self, pod: &Arc<Pod>, judge: impl FnOnce(&[&Pod]) -> Result<(), E>) -> Result<(), E> {
        let mut entries = self.entries.write();
        let others = entries.values().filter(|e| e.is_active() && e.pod.uid() != pod.uid());
        judge(&others.map(|e| &*e.pod).collect::<Vec<_>>())?;
        if let Some(entry) = entries.get_mut(pod.uid()) {
            entry.pod = pod.clone();
        }
        self.granted.notify_one();
        Ok(())
    }

    /// Waits until some pod was granted other resources.
    pub(crate) async fn granted(&self) {
        self.granted.notified().await;
    }

    pub(crate) fn mailbox(&self, uid: &str) -> Option<Arc<Mailbox>> {
        self.entries.read().get(uid).map(|e| e.mailbox.clone())
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.entries.read().contains_key(uid)
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries.read().values().cloned().collect()
    }

    pub(crate) fn uids(&self) -> Vec<String> {
        self.entries.read().keys().cloned().collect()
    }

    /// By name; of two generations the one that is not going away.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        let entries = self.entries.read();
        let mut matching = entries.values().filter(|e| e.pod.namespace() == namespace && e.pod.name() == name);
        let first = matching.next()?;
        Some(if first.pod.is_deleting() { matching.next().unwrap_or(first) } else { first }.clone())
    }
}
