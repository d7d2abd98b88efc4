//! Which pod goes first when memory or disk runs out, and what its status says. Pure.

use api::quantity::Quantity;

use crate::pod::PodExt;
use crate::registry::Entry;
use crate::resources::{self, PodTotal};

/// What runs short: below which amount pods are evicted, and what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    Memory { threshold: i64, available: i64 },
    Disk { threshold: i64, available: i64 },
    Inodes { threshold: i64, available: i64 },
}

impl Shortage {
    /// As upstream's metrics name it.
    pub(super) fn signal(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory.available",
            Self::Disk { .. } => "nodefs.available",
            Self::Inodes { .. } => "nodefs.inodesFree",
        }
    }

    /// As upstream's messages name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Disk { .. } => "ephemeral-storage",
            Self::Inodes { .. } => "inodes",
        }
    }
}

/// A pod that could go.
pub(super) struct Candidate {
    pub(super) entry: Entry,
    /// What it uses of what runs short.
    pub(super) total: i64,
    /// The part of each of its containers.
    pub(super) used: Vec<(String, i64)>,
}

impl Candidate {
    fn request(&self, shortage: Shortage) -> i64 {
        let total = PodTotal::of(&self.entry.pod);
        match shortage {
            Shortage::Memory { .. } => total.memory_request,
            Shortage::Disk { .. } => total.storage_request,
            Shortage::Inodes { .. } => 0,
        }
    }

    fn priority(&self) -> i32 {
        self.entry.pod.spec().priority.unwrap_or(0)
    }
}

/// First those that use more than they asked for, then by priority, then by how much more.
pub(super) fn choose(candidates: Vec<Candidate>, shortage: Shortage) -> Option<Candidate> {
    candidates.into_iter().filter(|c| !resources::is_critical(&c.entry.pod) && c.total > 0).max_by_key(|c| {
        let over = c.total.saturating_sub(c.request(shortage));
        (over > 0, std::cmp::Reverse(c.priority()), over)
    })
}

pub(super) fn message(victim: &Candidate, shortage: Shortage) -> String {
    let bytes = |n: i64| Quantity::from_bytes(n).to_string();
    let resource = shortage.resource();
    let (threshold, available, by_container) = match shortage {
        Shortage::Memory { threshold, available } | Shortage::Disk { threshold, available } => {
            (bytes(threshold), bytes(available), true)
        }
        Shortage::Inodes { threshold, available } => (threshold.to_string(), available.to_string(), false),
    };
    let mut text =
        format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. ");
    for (container, used) in victim.used.iter().filter(|_| by_container) {
        let spec = victim.entry.pod.container(container);
        let request = spec.as_ref().and_then(|(_, c)| c.resources.as_ref()?.requests.as_ref()?.get(resource));
        if request.map_or(0, resources::whole) < *used {
            let request = request.map_or_else(|| "0".to_owned(), |q| q.0.clone());
            text.push_str(&format!(
                "Container {container} was using {}, request is {request}, has larger consumption of {resource}. ",
                bytes(*used)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;
    use std::sync::Arc;

    const LOW: Shortage = Shortage::Memory { threshold: 100 << 20, available: 50 << 20 };

    fn candidate(name: &str, request: &str, used: i64, priority: i32) -> Candidate {
        let mut pod = pod(json!({"priority": priority,
            "containers": [{"name": "a", "resources": {"requests": {"memory": request}}}]}));
        pod.metadata.name = Some(name.to_owned());
        let entry = Entry { pod: Arc::new(pod), status: Arc::default(), mailbox: Arc::default() };
        Candidate { entry, total: used, used: vec![("a".to_owned(), used)] }
    }

    #[track_caller]
    fn check(list: Vec<Candidate>, expected: Option<&str>) {
        let got = choose(list, LOW);
        assert_eq!(got.as_ref().map(|c| c.entry.pod.name()), expected);
    }

    #[test]
    fn pods_over_their_requests_go_first_then_the_unimportant_then_the_greedy() {
        check(vec![], None);
        check(vec![candidate("within", "1Gi", 500, 0), candidate("over", "1", 400, 100)], Some("over"));
        check(vec![candidate("low", "1", 10, 0), candidate("high", "1", 400, 100)], Some("low"));
        check(vec![candidate("small", "0", 10, 0), candidate("big", "0", 20, 0)], Some("big"));
        check(vec![candidate("critical", "0", 10, 2_000_000_000)], None);
    }

    #[test]
    fn the_message_is_upstreams() {
        assert_eq!(
            message(&candidate("x", "1Mi", 10 << 20, 0), LOW),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container a was using 10Mi, request is 1Mi, has larger consumption of memory. "
        );
        let disk = Shortage::Disk { threshold: 100 << 20, available: 50 << 20 };
        assert_eq!(
            message(&candidate("x", "1Mi", 10 << 20, 0), disk),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 50Mi. \
             Container a was using 10Mi, request is 0, has larger consumption of ephemeral-storage. "
        );
        let inodes = Shortage::Inodes { threshold: 500, available: 7 };
        assert_eq!(
            message(&candidate("x", "1Mi", 10 << 20, 0), inodes),
            "The node was low on resource: inodes. Threshold quantity: 500, available: 7. "
        );
    }

    #[test]
    fn who_fills_a_volume_goes_before_who_has_a_container_layer() {
        let mut culprit = candidate("culprit", "0", 0, 0);
        culprit.total = 100 << 20;
        let innocent = candidate("innocent", "0", 32 << 10, 0);
        let disk = Shortage::Disk { threshold: 100 << 20, available: 50 << 20 };
        let got = choose(vec![innocent, culprit], disk);
        assert_eq!(got.as_ref().map(|c| c.entry.pod.name()), Some("culprit"));
    }
}
