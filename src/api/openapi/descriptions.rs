//! Descriptions of types and fields, from the schemas that `k8s-openapi` carries.

use std::borrow::Cow;

use k8s_openapi::api::{
    self, admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, batch::v1 as batch, core::v1 as core, networking::v1 as networking,
    rbac::v1 as rbac, resource::v1 as resource, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// A type's name in the table, and how to describe it with all that is in it.
struct Kind {
    name: fn() -> Cow<'static, str>,
    describe: fn(&mut SchemaGenerator),
}

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

macro_rules! kinds {
    ($($kind:ty),+ $(,)?) => {
        &[$(Kind { name: <$kind as JsonSchema>::schema_name, describe: describe::<$kind> }),+]
    };
}

/// The kinds that documents start from; the types of their fields follow from them.
const KINDS: &[Kind] = kinds![
    admissionregistration::MutatingAdmissionPolicy,
    admissionregistration::MutatingAdmissionPolicyBinding,
    admissionregistration::MutatingWebhookConfiguration,
    admissionregistration::ValidatingAdmissionPolicy,
    admissionregistration::ValidatingAdmissionPolicyBinding,
    admissionregistration::ValidatingWebhookConfiguration,
    apps::ControllerRevision,
    apps::DaemonSet,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    authentication::SelfSubjectReview,
    authentication::TokenRequest,
    authentication::TokenReview,
    authorization::LocalSubjectAccessReview,
    authorization::SelfSubjectAccessReview,
    authorization::SelfSubjectRulesReview,
    authorization::SubjectAccessReview,
    api::autoscaling::v1::HorizontalPodAutoscaler,
    api::autoscaling::v1::Scale,
    api::autoscaling::v2::HorizontalPodAutoscaler,
    batch::CronJob,
    batch::Job,
    api::certificates::v1::CertificateSigningRequest,
    api::coordination::v1::Lease,
    core::Binding,
    core::ComponentStatus,
    core::ConfigMap,
    core::Endpoints,
    core::Event,
    core::LimitRange,
    core::Namespace,
    core::Node,
    core::PersistentVolume,
    core::PersistentVolumeClaim,
    core::Pod,
    core::PodTemplate,
    core::ReplicationController,
    core::ResourceQuota,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    api::discovery::v1::EndpointSlice,
    api::events::v1::Event,
    api::flowcontrol::v1::FlowSchema,
    api::flowcontrol::v1::PriorityLevelConfiguration,
    networking::IPAddress,
    networking::Ingress,
    networking::IngressClass,
    networking::NetworkPolicy,
    networking::ServiceCIDR,
    api::node::v1::RuntimeClass,
    api::policy::v1::Eviction,
    api::policy::v1::PodDisruptionBudget,
    rbac::ClusterRole,
    rbac::ClusterRoleBinding,
    rbac::Role,
    rbac::RoleBinding,
    resource::DeviceClass,
    resource::ResourceClaim,
    resource::ResourceClaimTemplate,
    resource::ResourceSlice,
    api::scheduling::v1::PriorityClass,
    storage::CSIDriver,
    storage::CSINode,
    storage::CSIStorageCapacity,
    storage::StorageClass,
    storage::VolumeAttachment,
    storage::VolumeAttributesClass,
    CustomResourceDefinition,
    APIService,
    meta::APIResourceList,
    meta::DeleteOptions,
    meta::ListMeta,
    meta::Status,
    meta::WatchEvent<RawExtension>,
];

/// The descriptions of some kinds and of everything in them.
pub(super) struct Descriptions {
    types: Map<String, Value>,
}

impl Descriptions {
    /// Descriptions for documents that hold the named types.
    pub(super) fn of<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut generator = SchemaGenerator::default();
        for name in names {
            if let Some(kind) = KINDS.iter().find(|kind| (kind.name)() == name) {
                (kind.describe)(&mut generator);
            }
        }
        Self { types: generator.take_definitions(true) }
    }

    pub(super) fn ty(&self, name: &str) -> Option<String> {
        if let Some(text) = self.types.get(name).and_then(|schema| schema["description"].as_str()) {
            return Some(text.to_owned());
        }
        let (_, short) = name.rsplit_once('.')?;
        short.strip_suffix("List").map(|kind| format!("{short} is a list of objects of kind {kind}."))
    }

    /// Lists have no types of their own in `k8s-openapi`; what they share stands in `Status` too.
    pub(super) fn field(&self, ty: &str, field: &str) -> Option<&str> {
        let described =
            |ty: &str| self.types.get(ty).and_then(|schema| schema["properties"][field]["description"].as_str());
        let shared = || match field {
            "items" => Some("The objects of the list."),
            _ => described("io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
        };
        described(ty).or_else(|| if ty.ends_with("List") { shared() } else { None })
    }
}
