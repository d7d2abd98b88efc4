//! Read access to objects by key, owner or field, and a feed of changes.
//!
//! A source never blocks and never decodes. What it has seen, it has seen in the order of
//! revisions of each resource; [`ObjectSource::revision`] says how far it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use api::object::{GroupResource, Object, ObjectKey};
use futures::{Stream, StreamExt};

/// Which objects of a resource to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Absent: all namespaces.
    pub namespace: Option<&'a str>,
    pub by: By<'a>,
}

/// The index that answers a [`Query`].
#[derive(Clone, Copy, Debug, Default)]
pub enum By<'a> {
    #[default]
    All,
    /// Objects with an owner reference to this UID.
    Owner(&'a str),
    /// Objects whose selectable field has this value, e.g. `spec.nodeName`.
    Field(&'a str, &'a str),
}

impl<'a> Query<'a> {
    /// Every object of the resource.
    pub const ALL: Self = Self { namespace: None, by: By::All };

    #[must_use]
    pub fn namespace(namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), by: By::All }
    }

    #[must_use]
    pub fn owner(uid: &'a str) -> Self {
        Self { namespace: None, by: By::Owner(uid) }
    }

    #[must_use]
    pub fn field(name: &'a str, value: &'a str) -> Self {
        Self { namespace: None, by: By::Field(name, value) }
    }
}

/// One step of a [`Subscription`].
#[derive(Clone, Debug)]
pub enum Change {
    /// Created or changed; `old` is absent for objects that were there when the subscription began.
    Applied { object: Object, old: Option<Object> },
    /// Gone; the object as it was last.
    Deleted { object: Object },
    /// All objects that were there at the start have been told.
    Synced,
    /// The reader was too slow and changes were dropped: whatever was derived must be derived anew.
    Resync,
}

impl Change {
    /// The object that the change is about, in its newest state.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        match self {
            Self::Applied { object, .. } | Self::Deleted { object } => Some(object),
            Self::Synced | Self::Resync => None,
        }
    }

    /// The key of the object that the change is about.
    #[must_use]
    pub fn key(&self) -> Option<&ObjectKey> {
        self.object().map(|o| &o.index.key)
    }
}

/// Changes of one resource: first what is there, then [`Change::Synced`], then what happens.
pub struct Subscription(Pin<Box<dyn Stream<Item = Change> + Send>>);

impl Subscription {
    #[must_use]
    pub fn new(stream: impl Stream<Item = Change> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }

    /// The next change; `None` once the source has shut down.
    pub async fn next(&mut self) -> Option<Change> {
        self.0.next().await
    }
}

impl Stream for Subscription {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_next_unpin(cx)
    }
}

/// A local, indexed copy of objects.
pub trait ObjectSource: Send + Sync + 'static {
    fn get(&self, resource: &GroupResource, key: &ObjectKey) -> Option<Object>;

    /// In the order of keys.
    fn list(&self, resource: &GroupResource, query: &Query<'_>) -> Vec<Object>;

    /// Whether an object is there and cannot be read. It is missing from lists, but was not deleted:
    /// what belongs to it must not be taken away.
    fn is_unreadable(&self, _resource: &GroupResource, _key: &ObjectKey) -> bool {
        false
    }

    /// Every change of this resource up to this revision can be read.
    fn revision(&self, resource: &GroupResource) -> u64;

    fn subscribe(&self, resource: &GroupResource) -> Subscription;
}
