//! Pods that had a pod's name before it. The API has one object of a name: once that is another one, nothing of
//! those before is in doubt any more, also of one whose object could not be read. They are ended first, so that
//! at most one pod of a name runs and no volume has two of them.

use api::k8s_openapi::api::core::v1::Pod;
use runtime::{SandboxState, SandboxStatus};

use crate::pod::PodExt;
use crate::registry::Entry;

/// One of them, of which something may run.
pub(super) enum Namesake<'a> {
    /// Its worker ends it, once it is told to.
    Worked(&'a Entry),
    /// Only the runtime knows it.
    Orphan(&'a SandboxStatus),
}

/// A sandbox that has ended holds no more than records, which others remove.
pub(super) fn of<'a>(pod: &Pod, workers: &'a [Entry], sandboxes: &'a [SandboxStatus]) -> Vec<Namesake<'a>> {
    let is_other =
        |namespace: &str, name: &str, uid: &str| namespace == pod.namespace() && name == pod.name() && uid != pod.uid();
    let worked = workers.iter().filter(|e| is_other(e.pod.namespace(), e.pod.name(), e.pod.uid()));
    let orphans = sandboxes.iter().filter(|s| {
        let may_run = match s.state {
            SandboxState::Ready | SandboxState::Unknown => true,
            SandboxState::NotReady => false,
        };
        may_run && is_other(&s.namespace, &s.name, &s.uid) && workers.iter().all(|e| e.pod.uid() != s.uid)
    });
    worked.map(Namesake::Worked).chain(orphans.map(Namesake::Orphan)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::fixtures;

    fn pod(name: &str, uid: &str) -> Pod {
        let mut pod = fixtures::pod(json!({"containers": []}));
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        pod
    }

    fn worker(name: &str, uid: &str) -> Entry {
        Entry { pod: Arc::new(pod(name, uid)), status: Arc::default(), mailbox: Arc::default() }
    }

    fn sandbox(name: &str, uid: &str, state: SandboxState) -> SandboxStatus {
        SandboxStatus { name: name.to_owned(), uid: uid.to_owned(), ..fixtures::sandbox(state) }
    }

    #[track_caller]
    fn check(workers: &[Entry], sandboxes: &[SandboxStatus], expected: &[&str]) {
        let text = |found: &Namesake<'_>| match found {
            Namesake::Worked(e) => format!("worker of {}", e.pod.uid()),
            Namesake::Orphan(s) => format!("sandbox of {}", s.uid),
        };
        assert_eq!(of(&pod("web", "new"), workers, sandboxes).iter().map(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn all_that_may_run_under_the_name_is_found_once() {
        use SandboxState::{NotReady, Ready, Unknown};
        check(&[], &[], &[]);
        check(&[], &[sandbox("web", "old", Ready)], &["sandbox of old"]);
        check(&[], &[sandbox("web", "old", Unknown)], &["sandbox of old"]);
        check(&[], &[sandbox("web", "old", NotReady)], &[]);
        check(&[worker("web", "old")], &[sandbox("web", "old", Ready)], &["worker of old"]);
        check(&[worker("web", "old")], &[], &["worker of old"]);
        check(&[worker("web", "new"), worker("db", "db")], &[sandbox("web", "new", Ready)], &[]);
    }

    #[test]
    fn pods_of_other_namespaces_may_have_the_name() {
        let mut other = sandbox("web", "old", SandboxState::Ready);
        other.namespace = "staging".to_owned();
        check(&[], &[other], &[]);
    }
}
