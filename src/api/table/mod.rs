//! What `kubectl get` shows: the columns of each resource and the cells of one object.
//!
//! The API server renders tables; clients only lay them out and hide the columns of priority 1 unless
//! `-o wide` asks for them, so a row always has every cell. `now` is an argument, so that ages can be
//! tested. Resources without a table of their own (roles, limit ranges, ...) show their name and the
//! time they were made, as upstream's do.

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod binding;
mod certificates;
mod column;
mod config;
mod coordination;
mod discovery;
mod endpoints;
mod event;
mod flowcontrol;
mod kind;
mod namespace;
mod networking;
mod node;
mod pod;
mod policy;
mod resource;
mod service;
mod storage;
mod text;
mod volume;
mod workload;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration as aggregation;
use serde_json::{Value, json};

pub use column::Column;
use column::NAME;
use kind::Table;

const GENERIC: &[Column] =
    &[NAME, Column { r#type: "date", ..Column::text("Created At", "When the server made the object.") }];

/// The columns of a resource.
#[must_use]
pub fn columns(group: &str, resource: &str) -> &'static [Column] {
    find(group, resource).map_or(GENERIC, |table| table.columns)
}

/// One row: as many cells as there are columns.
#[must_use]
pub fn cells(group: &str, resource: &str, obj: &Value, now: Timestamp) -> Vec<Value> {
    let name = || json!(obj.pointer("/metadata/name"));
    let Some(table) = find(group, resource) else {
        return vec![name(), json!(obj.pointer("/metadata/creationTimestamp"))];
    };
    // What is stored was validated, so this does not happen; should it, the list still shows the name.
    (table.cells)(obj, now).unwrap_or_else(|_| {
        table.columns.iter().map(|column| if column.is_name() { name() } else { json!(text::UNKNOWN) }).collect()
    })
}

/// The conditions of a row: a pod that has ended is marked, so that clients can leave it out.
#[must_use]
pub fn row_conditions(group: &str, resource: &str, obj: &Value) -> Option<Value> {
    if (group, resource) == ("", "pods") { pod::row_condition(obj).map(|condition| json!([condition])) } else { None }
}

/// The table of a resource, unless it is the generic one.
fn find(group: &str, resource: &str) -> Option<Table> {
    match group {
        "" => core(resource),
        "admissionregistration.k8s.io" => admission(resource),
        "apps" => apps(resource),
        "networking.k8s.io" => networking(resource),
        "storage.k8s.io" => storage(resource),
        _ => other(group, resource),
    }
}

fn core(resource: &str) -> Option<Table> {
    use api::core::v1;
    Some(match resource {
        "configmaps" => Table::of::<v1::ConfigMap>(),
        "endpoints" => Table::of::<v1::Endpoints>(),
        "events" => Table::of::<v1::Event>(),
        "namespaces" => Table::of::<v1::Namespace>(),
        "nodes" => Table::of::<v1::Node>(),
        "persistentvolumeclaims" => Table::of::<v1::PersistentVolumeClaim>(),
        "persistentvolumes" => Table::of::<v1::PersistentVolume>(),
        "pods" => Table::of::<v1::Pod>(),
        "podtemplates" => Table::of::<v1::PodTemplate>(),
        "replicationcontrollers" => Table::of::<v1::ReplicationController>(),
        "resourcequotas" => Table::of::<v1::ResourceQuota>(),
        "secrets" => Table::of::<v1::Secret>(),
        "serviceaccounts" => Table::of::<v1::ServiceAccount>(),
        "services" => Table::of::<v1::Service>(),
        _ => return None,
    })
}

fn admission(resource: &str) -> Option<Table> {
    use api::admissionregistration::v1;
    Some(match resource {
        "mutatingadmissionpolicies" => Table::of::<v1::MutatingAdmissionPolicy>(),
        "mutatingadmissionpolicybindings" => Table::of::<v1::MutatingAdmissionPolicyBinding>(),
        "mutatingwebhookconfigurations" => Table::of::<v1::MutatingWebhookConfiguration>(),
        "validatingadmissionpolicies" => Table::of::<v1::ValidatingAdmissionPolicy>(),
        "validatingadmissionpolicybindings" => Table::of::<v1::ValidatingAdmissionPolicyBinding>(),
        "validatingwebhookconfigurations" => Table::of::<v1::ValidatingWebhookConfiguration>(),
        _ => return None,
    })
}

fn apps(resource: &str) -> Option<Table> {
    use api::apps::v1;
    Some(match resource {
        "controllerrevisions" => Table::of::<v1::ControllerRevision>(),
        "daemonsets" => Table::of::<v1::DaemonSet>(),
        "deployments" => Table::of::<v1::Deployment>(),
        "replicasets" => Table::of::<v1::ReplicaSet>(),
        "statefulsets" => Table::of::<v1::StatefulSet>(),
        _ => return None,
    })
}

fn networking(resource: &str) -> Option<Table> {
    use api::networking::v1;
    Some(match resource {
        "ingressclasses" => Table::of::<v1::IngressClass>(),
        "ingresses" => Table::of::<v1::Ingress>(),
        "ipaddresses" => Table::of::<v1::IPAddress>(),
        "networkpolicies" => Table::of::<v1::NetworkPolicy>(),
        "servicecidrs" => Table::of::<v1::ServiceCIDR>(),
        _ => return None,
    })
}

fn storage(resource: &str) -> Option<Table> {
    use api::storage::v1;
    Some(match resource {
        "csidrivers" => Table::of::<v1::CSIDriver>(),
        "csinodes" => Table::of::<v1::CSINode>(),
        "storageclasses" => Table::of::<v1::StorageClass>(),
        "volumeattachments" => Table::of::<v1::VolumeAttachment>(),
        "volumeattributesclasses" => Table::of::<v1::VolumeAttributesClass>(),
        _ => return None,
    })
}

/// The groups with a few resources each.
fn other(group: &str, resource: &str) -> Option<Table> {
    Some(match (group, resource) {
        ("apiregistration.k8s.io", "apiservices") => Table::of::<aggregation::v1::APIService>(),
        ("autoscaling", "horizontalpodautoscalers") => Table::of::<api::autoscaling::v2::HorizontalPodAutoscaler>(),
        ("autoscaling", "scales") => Table::of::<api::autoscaling::v1::Scale>(),
        ("batch", "cronjobs") => Table::of::<api::batch::v1::CronJob>(),
        ("batch", "jobs") => Table::of::<api::batch::v1::Job>(),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            Table::of::<api::certificates::v1::CertificateSigningRequest>()
        }
        ("coordination.k8s.io", "leases") => Table::of::<api::coordination::v1::Lease>(),
        ("discovery.k8s.io", "endpointslices") => Table::of::<api::discovery::v1::EndpointSlice>(),
        ("events.k8s.io", "events") => Table::of::<api::core::v1::Event>(),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => Table::of::<api::flowcontrol::v1::FlowSchema>(),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => {
            Table::of::<api::flowcontrol::v1::PriorityLevelConfiguration>()
        }
        ("node.k8s.io", "runtimeclasses") => Table::of::<api::node::v1::RuntimeClass>(),
        ("policy", "poddisruptionbudgets") => Table::of::<api::policy::v1::PodDisruptionBudget>(),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => Table::of::<api::rbac::v1::ClusterRoleBinding>(),
        ("rbac.authorization.k8s.io", "rolebindings") => Table::of::<api::rbac::v1::RoleBinding>(),
        ("resource.k8s.io", "deviceclasses") => Table::of::<api::resource::v1::DeviceClass>(),
        ("resource.k8s.io", "resourceclaims") => Table::of::<api::resource::v1::ResourceClaim>(),
        ("resource.k8s.io", "resourceclaimtemplates") => Table::of::<api::resource::v1::ResourceClaimTemplate>(),
        ("resource.k8s.io", "resourceslices") => Table::of::<api::resource::v1::ResourceSlice>(),
        ("scheduling.k8s.io", "priorityclasses") => Table::of::<api::scheduling::v1::PriorityClass>(),
        _ => return None,
    })
}
