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

    /// The cluster reckons with it: what a pod without an object still holds is given away already, to
    /// pods that the scheduler may have sent by now.
    pub(crate) fn counts(&self) -> bool {
        self.is_active() && !self.mailbox.is_removed()
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
        let others = entries.values().filter(|e| e.counts() && e.pod.uid() != pod.uid());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        Arc::new(pod)
    }

    #[test]
    fn resources_of_a_pod_whose_object_has_gone_are_free() {
        let registry = Registry::default();
        for uid in ["stays", "goes", "ended"] {
            let phase = (uid == "ended").then(|| "Failed".to_owned());
            let status = Arc::new(PodStatus { phase, ..PodStatus::default() });
            registry.insert(uid, Entry { pod: pod(uid), status, mailbox: Arc::default() });
        }
        let others = || {
            let mut seen = Vec::new();
            let judge = |others: &[&Pod]| {
                seen = others.iter().map(|p| p.uid().to_owned()).collect();
                Err::<(), _>(())
            };
            assert!(registry.grant(&pod("asks"), judge).is_err());
            seen.sort();
            seen
        };
        assert_eq!(others(), ["goes", "stays"]);
        registry.mailbox("goes").unwrap().remove();
        assert_eq!(others(), ["stays"]);
    }
}
