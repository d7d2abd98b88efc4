//! Packs the descriptions of Kubernetes' types and fields, as `k8s-openapi` carries them, for the
//! OpenAPI documents: a tenth of what its code for them would add to the binary.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use k8s_openapi::api::{
    self, admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, batch::v1 as batch, core::v1 as core, networking::v1 as networking,
    rbac::v1 as rbac, resource::v1 as resource, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

macro_rules! kinds {
    ($($kind:ty),+ $(,)?) => {
        &[$(|generator| { generator.subschema_for::<$kind>(); }),+]
    };
}

/// The kinds that documents start from; the types of their fields follow from them.
const KINDS: &[fn(&mut SchemaGenerator)] = kinds![
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

/// A line of its name, its description and those of its fields.
fn line(name: &str, schema: &Value) -> Value {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields: Map<String, Value> = fields
        .filter(|(_, field)| field["description"].is_string())
        .map(|(name, field)| (name.clone(), field["description"].clone()))
        .collect();
    json!([name, schema["description"].as_str().unwrap_or_default(), fields])
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut generator = SchemaGenerator::default();
    for describe in KINDS {
        describe(&mut generator);
    }
    for (name, schema) in generator.take_definitions(true) {
        writeln!(packed, "{}", line(&name, &schema))?;
    }
    let directory = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&directory).join("descriptions.zz"), packed.finish()?)?;
    Ok(())
}
