//! Reads and writes typed objects by code that is compiled once, in this crate.
//!
//! `serde`'s code for a type is made where it is used: each crate would bring its own, unrolled as that crate is
//! optimised. For Kubernetes' types that was several MB (docs/adr/0004-release-profile.md). So whoever reads
//! or writes a typed object asks for [`Decode`] and [`Encode`], whose functions have no type parameter.

use serde_json::{Result, Value};

/// A type that is read by functions of its own; [`decode!`](crate::decode!) makes them.
#[expect(clippy::missing_errors_doc, reason = "each fails for one reason: the source is not of the type")]
pub trait Decode: Sized {
    fn from_text(json: &str) -> Result<Self>;

    fn from_value(value: &Value) -> Result<Self>;

    /// As [`Decode::from_value`], with the value's texts moved instead of copied.
    fn take_value(value: Value) -> Result<Self>;
}

/// A type that is written by functions of its own.
#[expect(clippy::missing_errors_doc, reason = "each fails for one reason: a map has a key that is no text")]
pub trait Encode {
    fn to_value(&self) -> Result<Value>;

    fn to_vec(&self) -> Result<Vec<u8>>;
}

/// Implements [`Decode`] for types that `serde` can read.
#[macro_export]
macro_rules! decode {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::codec::Decode for $type {
            fn from_text(json: &str) -> $crate::serde_json::Result<Self> {
                $crate::serde_json::from_str(json)
            }

            fn from_value(value: &$crate::serde_json::Value) -> $crate::serde_json::Result<Self> {
                <Self as $crate::serde::Deserialize>::deserialize(value)
            }

            fn take_value(value: $crate::serde_json::Value) -> $crate::serde_json::Result<Self> {
                <Self as $crate::serde::Deserialize>::deserialize(value)
            }
        }
    )+};
}

/// Implements [`Decode`] and [`Encode`].
macro_rules! codec {
    ($($type:ty),+ $(,)?) => {
        decode!($($type),+);
        $(impl Encode for $type {
            fn to_value(&self) -> Result<Value> {
                serde_json::to_value(self)
            }

            fn to_vec(&self) -> Result<Vec<u8>> {
                serde_json::to_vec(self)
            }
        })+
    };
}

codec!(Value);

/// The kinds themselves, and what is posted to their subresources.
mod kinds {
    use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
    use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview};
    use k8s_openapi::api::authorization::v1::{
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    };
    use k8s_openapi::api::batch::v1::{CronJob, Job};
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::{
        Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
        Pod, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
    };
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
    use k8s_openapi::api::node::v1::RuntimeClass;
    use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    use k8s_openapi::api::scheduling::v1::PriorityClass;
    use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
    use serde_json::{Result, Value};

    use super::Encode;

    codec! {
        Binding, CertificateSigningRequest, ClusterRole, ClusterRoleBinding, ConfigMap, ControllerRevision, CronJob,
        DaemonSet, Deployment, EndpointSlice, Endpoints, Event, Eviction, IPAddress, Ingress, IngressClass, Job, Lease,
        LimitRange, LocalSubjectAccessReview, Namespace, NetworkPolicy, Node, PersistentVolume, PersistentVolumeClaim,
        Pod, PodDisruptionBudget, PriorityClass, ReplicaSet, ReplicationController, ResourceQuota, Role, RoleBinding,
        RuntimeClass, Secret, SelfSubjectAccessReview, SelfSubjectReview, SelfSubjectRulesReview, Service,
        ServiceAccount, ServiceCIDR, StatefulSet, StorageClass, SubjectAccessReview, TokenRequest, TokenReview,
        VolumeAttachment,
    }
}
