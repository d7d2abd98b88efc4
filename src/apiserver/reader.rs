//! Read-only access to the watch cache for the informers of this process.

use std::collections::VecDeque;
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectIndex, ObjectKey};
use storage::{Event, Watch};

use crate::registry::{Registry, object_of};

/// Reads objects by key, owner or field, and follows their changes. Nothing is copied or decoded.
#[derive(Clone, Debug)]
pub struct Reader {
    registry: Registry,
}

/// One step of a [`ReaderSubscription`].
#[derive(Clone, Debug)]
pub enum ReaderEvent {
    /// Created or changed; `old` is absent for objects that were there when the subscription began.
    Applied { object: Object, old: Option<Object> },
    /// Gone; the object as it was last.
    Deleted { object: Object },
    /// All objects that were there have been told.
    Synced,
    /// Changes were missed; everything that is there now follows as applied.
    Lagged,
}

impl Reader {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry }
    }

    #[must_use]
    pub fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Option<Object> {
        self.registry.get(resource, key)
    }

    /// Whether an object is in the store and cannot be read.
    #[must_use]
    pub fn is_unreadable(&self, resource: &GroupResource, key: &ObjectKey) -> bool {
        self.registry.is_unreadable(resource, key)
    }

    /// All objects of a resource, of one namespace if given, in key order.
    #[must_use]
    pub fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Object> {
        self.registry.list(resource, namespace)
    }

    /// The objects that name an owner by its UID.
    #[must_use]
    pub fn by_owner(&self, resource: &GroupResource, uid: &str) -> Vec<Object> {
        self.registry.by_owner(resource, uid)
    }

    /// The objects whose selectable field has this value.
    #[must_use]
    pub fn by_field(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Object> {
        self.registry.by_field(resource, field, value)
    }

    /// The highest revision at which an object of this resource changed.
    #[must_use]
    pub fn revision(&self, resource: &GroupResource) -> u64 {
        self.registry.revision(resource)
    }

    /// Follows the changes of a resource, beginning with what is there.
    #[must_use]
    pub fn subscribe(&self, resource: &GroupResource) -> ReaderSubscription {
        let mut subscription = ReaderSubscription {
            registry: self.registry.clone(),
            resource: resource.clone(),
            queue: VecDeque::new(),
            watch: None,
        };
        subscription.begin();
        subscription
    }
}

/// The changes of one resource. It holds a position in the event ring, not a queue of its own, so a
/// slow reader costs nothing; one slower than the ring is told so.
#[derive(Debug)]
pub struct ReaderSubscription {
    registry: Registry,
    resource: GroupResource,
    queue: VecDeque<ReaderEvent>,
    watch: Option<Watch<Arc<ObjectIndex>>>,
}

impl ReaderSubscription {
    fn begin(&mut self) {
        self.watch = None;
        let Some((objects, watch)) = self.registry.list_and_watch(&self.resource) else { return };
        self.queue.extend(objects.into_iter().map(|object| ReaderEvent::Applied { object, old: None }));
        self.queue.push_back(ReaderEvent::Synced);
        self.watch = Some(watch);
    }

    /// The next change; `None` for a resource that is not served. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<ReaderEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            match self.watch.as_mut()?.next().await {
                Ok(events) => self.queue.extend(events.iter().map(|event| event_of(event))),
                Err(_) => {
                    self.queue.push_back(ReaderEvent::Lagged);
                    self.begin();
                }
            }
        }
    }
}

fn event_of(event: &Event<Arc<ObjectIndex>>) -> ReaderEvent {
    let object = object_of(&event.entry);
    if event.deleted {
        ReaderEvent::Deleted { object }
    } else {
        ReaderEvent::Applied { object, old: event.old.as_deref().map(object_of) }
    }
}
