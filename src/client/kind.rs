//! The bound that a typed Kubernetes kind satisfies.

use std::fmt::Debug;

use api::codec::{Decode, Encode};
use api::k8s_openapi;
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A typed, built-in kind with object metadata; implemented for every such `k8s-openapi` type.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + kube::Resource<DynamicType = ()>
    + Serialize
    + DeserializeOwned
    + Decode
    + Encode
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + kube::Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Decode
        + Encode
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}
