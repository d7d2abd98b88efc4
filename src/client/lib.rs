//! What every component needs to work against the API: client-go's parts.
//!
//! Reads go to an [`ObjectSource`] (in this process the API server's own watch cache, elsewhere a
//! reflector) and decode only what they touch. Writes go through `kube` and so through the API
//! server's router, under the identity of the component. [`Controller`] ties both together: events
//! enqueue keys, [`Reconcile`] handles one key at a time, [`Writes`] sees to it that a key is not
//! reconciled from a cache that lacks the reconciler's own writes.

mod backoff;
mod cluster;
mod controller;
mod kind;
mod parts;
mod places;
mod recorder;
mod similar_events;
mod source;
mod tasks;
mod workqueue;
mod writes;

pub use backoff::Backoff;
pub use cluster::{Cluster, Identity, decode_all};
pub use controller::{Controller, Outcome, Reconcile};
pub use kind::Kind;
pub use kube;
pub use parts::{Failures, Parts};
pub use places::{Place, Places};
pub use recorder::{EventType, Recorder};
pub use source::{By, Change, ObjectSource, Query, Subscription};
pub use tasks::{Owned, Tasks};
pub use workqueue::WorkQueue;
pub use writes::Writes;

/// Reasons of `metav1.Status` that callers branch on.
pub mod status {
    /// The object is not there.
    #[must_use]
    pub fn is_not_found(e: &kube::Error) -> bool {
        matches!(e, kube::Error::Api(s) if s.is_not_found())
    }

    /// The object was changed in between, or a precondition failed.
    #[must_use]
    pub fn is_conflict(e: &kube::Error) -> bool {
        matches!(e, kube::Error::Api(s) if s.is_conflict())
    }

    /// An object of this name is there already.
    #[must_use]
    pub fn is_already_exists(e: &kube::Error) -> bool {
        matches!(e, kube::Error::Api(s) if s.is_already_exists())
    }

    /// The server refuses: RBAC, admission, or a terminating namespace.
    #[must_use]
    pub fn is_forbidden(e: &kube::Error) -> bool {
        matches!(e, kube::Error::Api(s) if s.is_forbidden())
    }

    /// The object breaks a validation rule.
    #[must_use]
    pub fn is_invalid(e: &kube::Error) -> bool {
        matches!(e, kube::Error::Api(s) if s.is_invalid())
    }

    /// The server's message, or the transport's.
    #[must_use]
    pub fn message(e: &kube::Error) -> String {
        match e {
            kube::Error::Api(s) => s.message.clone(),
            other => other.to_string(),
        }
    }

    /// The namespace is being deleted, so nothing can be created in it.
    #[must_use]
    pub fn is_namespace_terminating(e: &kube::Error) -> bool {
        match e {
            kube::Error::Api(s) => {
                s.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
            }
            _ => false,
        }
    }
}
