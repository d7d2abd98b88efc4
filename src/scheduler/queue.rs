//! Pods that wait for a node: ready to be tried, backing off, or waiting for a change that helps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::object::ObjectKey;
use client::Backoff;
use tokio::time::Instant;

use crate::framework::ClusterEvent;
use crate::plugins::is_helped;

/// Upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(10), jitter: 0.0 };
/// After this time a pod is tried again even if nothing seems to have helped.
const FLUSH: Duration = Duration::from_secs(300);

/// One waiting pod.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub key: ObjectKey,
    pub priority: i32,
    /// When it was first queued: the older of two equals goes first.
    pub since: Instant,
    attempts: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Active,
    BackingOff {
        until: Instant,
    },
    Unschedulable {
        plugins: HashSet<&'static str>,
        retry: Instant,
        flush: Instant,
    },
    /// Scheduling gates are set: only the pod's own change helps.
    Gated,
    /// Being tried or bound.
    InFlight {
        changed: bool,
    },
}

type Order = (Reverse<i32>, Instant, Arc<str>);

/// All pending pods by UID.
#[derive(Default)]
pub(crate) struct Queue {
    pods: HashMap<Arc<str>, Waiting>,
    active: BTreeSet<Order>,
    timers: BTreeMap<(Instant, Arc<str>), ()>,
}

impl Queue {
    /// A pod appeared or its specification changed: it is tried now, unless it is gated.
    pub(crate) fn add(&mut self, uid: &Arc<str>, key: &ObjectKey, priority: i32, gated: bool, now: Instant) {
        let state = if gated { State::Gated } else { State::Active };
        match self.pods.get_mut(uid) {
            Some(Waiting { state: State::InFlight { changed }, .. }) => *changed = true,
            Some(_) => {
                let waiting = self.take_out(uid).expect("it was just found");
                self.put(uid.clone(), Waiting { priority, state, ..waiting });
            }
            None => {
                let waiting = Waiting { key: key.clone(), priority, since: now, attempts: 0, state };
                self.put(uid.clone(), waiting);
            }
        }
    }

    /// The pod has a node, has ended, or is gone.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.take_out(uid);
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The next pod to try.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Arc<str>, ObjectKey)> {
        self.release_due(now);
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        waiting.state = State::InFlight { changed: false };
        Some((uid, waiting.key.clone()))
    }

    /// Nothing fits: wait for a change that helps these plugins, at least for the back-off.
    pub(crate) fn unschedulable(&mut self, uid: &str, plugins: HashSet<&'static str>, now: Instant) {
        self.settle(uid, |attempts| State::Unschedulable {
            plugins,
            retry: now + BACKOFF.base_delay(attempts.saturating_sub(1)),
            flush: now + FLUSH,
        });
    }

    /// Something failed on the way: try again after the back-off.
    pub(crate) fn failed(&mut self, uid: &str, now: Instant) {
        self.settle(uid, |attempts| State::BackingOff { until: now + BACKOFF.base_delay(attempts.saturating_sub(1)) });
    }

    /// Lets those pods try again that such a change may help.
    pub(crate) fn on_event(&mut self, event: ClusterEvent, now: Instant) {
        let helped: Vec<Arc<str>> = self
            .pods
            .iter()
            .filter(|(_, w)| match &w.state {
                State::Unschedulable { plugins, .. } => plugins.iter().any(|p| is_helped(p, event)),
                State::Active | State::BackingOff { .. } | State::Gated | State::InFlight { .. } => false,
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in helped {
            let Some(mut waiting) = self.take_out(&uid) else { continue };
            if let State::Unschedulable { retry, .. } = waiting.state {
                waiting.state = if retry <= now { State::Active } else { State::BackingOff { until: retry } };
            }
            self.put(uid, waiting);
        }
        // A pod that is being tried may have been refused for what has just changed.
        for waiting in self.pods.values_mut() {
            if let State::InFlight { changed } = &mut waiting.state {
                *changed = true;
            }
        }
    }

    /// When [`Self::pop`] may give more than now.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// A pod leaves flight; what changed meanwhile makes it back off rather than wait.
    fn settle(&mut self, uid: &str, state: impl FnOnce(u32) -> State) {
        let Some((uid, mut waiting)) = self.pods.remove_entry(uid) else { return };
        let changed = matches!(waiting.state, State::InFlight { changed: true });
        waiting.state = match state(waiting.attempts) {
            State::Unschedulable { retry, .. } if changed => State::BackingOff { until: retry },
            other => other,
        };
        self.put(uid, waiting);
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(((at, uid), ())) = self.timers.first_key_value() {
            if *at > now {
                return;
            }
            let uid = uid.clone();
            let Some(mut waiting) = self.take_out(&uid) else { return };
            waiting.state = State::Active;
            self.put(uid, waiting);
        }
    }

    fn put(&mut self, uid: Arc<str>, waiting: Waiting) {
        match &waiting.state {
            State::Active => {
                self.active.insert((Reverse(waiting.priority), waiting.since, uid.clone()));
            }
            State::BackingOff { until: at } | State::Unschedulable { flush: at, .. } => {
                self.timers.insert((*at, uid.clone()), ());
            }
            State::Gated | State::InFlight { .. } => {}
        }
        self.pods.insert(uid, waiting);
    }

    fn take_out(&mut self, uid: &str) -> Option<Waiting> {
        let (uid, waiting) = self.pods.remove_entry(uid)?;
        match &waiting.state {
            State::Active => {
                self.active.remove(&(Reverse(waiting.priority), waiting.since, uid));
            }
            State::BackingOff { until: at } | State::Unschedulable { flush: at, .. } => {
                self.timers.remove(&(*at, uid));
            }
            State::Gated | State::InFlight { .. } => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Arc<str> {
        name.into()
    }

    fn add(q: &mut Queue, name: &str, priority: i32) {
        q.add(&uid(name), &ObjectKey::new("default", name), priority, false, Instant::now());
    }

    fn pop(q: &mut Queue) -> Option<String> {
        q.pop(Instant::now()).map(|(uid, _)| uid.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_goes_first_then_the_older() {
        let mut q = Queue::default();
        for (name, priority) in [("old", 0), ("new", 0), ("important", 10)] {
            add(&mut q, name, priority);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let order: Vec<String> = std::iter::from_fn(|| pop(&mut q)).collect();
        assert_eq!(order, ["important", "old", "new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unschedulable_pod_waits_for_a_change_that_helps() {
        let mut q = Queue::default();
        add(&mut q, "p", 0);
        pop(&mut q);
        q.unschedulable("p", HashSet::from(["NodeResourcesFit"]), Instant::now());
        q.on_event(ClusterEvent::PodPlaced, Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pop(&mut q), None);
        q.on_event(ClusterEvent::PodGone, Instant::now());
        assert_eq!(pop(&mut q).as_deref(), Some("p"));
    }

    #[tokio::test(start_paused = true)]
    async fn help_during_the_backoff_waits_for_its_end_and_nothing_waits_for_ever() {
        let mut q = Queue::default();
        add(&mut q, "p", 0);
        pop(&mut q);
        q.unschedulable("p", HashSet::from(["NodeResourcesFit"]), Instant::now());
        q.on_event(ClusterEvent::NodeChanged, Instant::now());
        assert_eq!(pop(&mut q), None, "the first back-off is a second");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pop(&mut q).as_deref(), Some("p"));
        q.unschedulable("p", HashSet::from(["NodeAffinity"]), Instant::now());
        assert_eq!(q.next_due(), Some(Instant::now() + FLUSH));
        tokio::time::advance(FLUSH).await;
        assert_eq!(pop(&mut q).as_deref(), Some("p"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_while_a_pod_is_tried_is_not_lost() {
        let mut q = Queue::default();
        add(&mut q, "p", 0);
        pop(&mut q);
        q.on_event(ClusterEvent::NodeChanged, Instant::now());
        q.unschedulable("p", HashSet::from(["NodeAffinity"]), Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pop(&mut q).as_deref(), Some("p"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gated_pod_waits_for_its_own_change() {
        let mut q = Queue::default();
        q.add(&uid("g"), &ObjectKey::new("default", "g"), 0, true, Instant::now());
        q.on_event(ClusterEvent::NodeChanged, Instant::now());
        assert_eq!(pop(&mut q), None);
        add(&mut q, "g", 0);
        assert_eq!(pop(&mut q).as_deref(), Some("g"));
    }
}
