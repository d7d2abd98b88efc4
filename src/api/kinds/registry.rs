//! Which rules belong to which kind: one row for each.

use super::{Generation, Generic, KindRules, SelectableField, Traits, Typed};
use crate::meta::format::NameRule;
use crate::{apps, autoscaling, batch, certificates, coordination, core, discovery, events, networking, node, policy};
use crate::{rbac, scheduling, storage};

const NAMESPACED: Traits = Traits::NAMESPACED;
const CLUSTER: Traits = Traits::CLUSTER;

const fn field(name: &'static str, pointer: &'static str, absent: &'static str) -> SelectableField {
    SelectableField { name, pointer, otherwise: "", absent }
}

static POD_FIELDS: &[SelectableField] = &[
    field("spec.nodeName", "/spec/nodeName", ""),
    field("spec.restartPolicy", "/spec/restartPolicy", ""),
    field("spec.schedulerName", "/spec/schedulerName", ""),
    field("spec.serviceAccountName", "/spec/serviceAccountName", ""),
    field("spec.hostNetwork", "/spec/hostNetwork", "false"),
    field("status.phase", "/status/phase", ""),
    field("status.podIP", "/status/podIP", ""),
    field("status.nominatedNodeName", "/status/nominatedNodeName", ""),
];
static EVENT_FIELDS: &[SelectableField] = &[
    field("involvedObject.kind", "/involvedObject/kind", ""),
    field("involvedObject.namespace", "/involvedObject/namespace", ""),
    field("involvedObject.name", "/involvedObject/name", ""),
    field("involvedObject.uid", "/involvedObject/uid", ""),
    field("involvedObject.apiVersion", "/involvedObject/apiVersion", ""),
    field("involvedObject.resourceVersion", "/involvedObject/resourceVersion", ""),
    field("involvedObject.fieldPath", "/involvedObject/fieldPath", ""),
    field("reason", "/reason", ""),
    field("reportingComponent", "/reportingComponent", ""),
    SelectableField { otherwise: "/reportingComponent", ..field("source", "/source/component", "") },
    field("type", "/type", ""),
];
static EVENTS_FIELDS: &[SelectableField] = &[
    field("regarding.kind", "/regarding/kind", ""),
    field("regarding.namespace", "/regarding/namespace", ""),
    field("regarding.name", "/regarding/name", ""),
    field("regarding.uid", "/regarding/uid", ""),
    field("regarding.apiVersion", "/regarding/apiVersion", ""),
    field("regarding.resourceVersion", "/regarding/resourceVersion", ""),
    field("regarding.fieldPath", "/regarding/fieldPath", ""),
    field("reason", "/reason", ""),
    field("reportingController", "/reportingController", ""),
    field("type", "/type", ""),
];
static NODE_FIELDS: &[SelectableField] = &[field("spec.unschedulable", "/spec/unschedulable", "false")];
static NAMESPACE_FIELDS: &[SelectableField] =
    &[field("status.phase", "/status/phase", ""), field("name", "/metadata/name", "")];
static SECRET_FIELDS: &[SelectableField] = &[field("type", "/type", "")];
static SERVICE_FIELDS: &[SelectableField] =
    &[field("spec.clusterIP", "/spec/clusterIP", ""), field("spec.type", "/spec/type", "")];
static REPLICA_FIELDS: &[SelectableField] = &[field("status.replicas", "/status/replicas", "0")];
static JOB_FIELDS: &[SelectableField] = &[field("status.successful", "/status/succeeded", "0")];
static CSR_FIELDS: &[SelectableField] = &[field("spec.signerName", "/spec/signerName", "")];

macro_rules! generic {
    ($traits:expr) => {{
        static RULES: Generic = Generic($traits);
        &RULES
    }};
}

macro_rules! typed {
    ($kind:path, $traits:expr) => {{
        static RULES: Typed<$kind> = Typed { traits: $traits, kind: $kind };
        &RULES
    }};
}

/// The rules of a kind; one that upstream knows nothing special about, or that is not known here, has
/// its metadata checked and nothing else.
#[must_use]
pub fn rules(group: &str, kind: &str) -> &'static dyn KindRules {
    match group {
        "" => core_rules(kind),
        "apps" => workload_rules(kind),
        "batch" => batch_rules(kind),
        "rbac.authorization.k8s.io" => rbac_rules(kind),
        "networking.k8s.io" => networking_rules(kind),
        "storage.k8s.io" => storage_rules(kind),
        _ => other_rules(group, kind),
    }
}

fn core_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "Pod" => {
            typed!(
                core::pod::Pod,
                NAMESPACED
                    .generation(Generation::Spec)
                    .status()
                    .status_kept(&["qosClass"])
                    .status_keeps_generations()
                    .fields(POD_FIELDS)
            )
        }
        "Service" => {
            typed!(core::service::Service, NAMESPACED.names(NameRule::Dns1035).status().fields(SERVICE_FIELDS))
        }
        "ReplicationController" => typed!(
            core::replication_controller::ReplicationController,
            NAMESPACED.generation(Generation::Spec).status().fields(REPLICA_FIELDS)
        ),
        "PodTemplate" => typed!(core::pod_template::PodTemplate, NAMESPACED.generation(Generation::Content)),
        "ConfigMap" => typed!(core::config_map::ConfigMap, NAMESPACED),
        "Secret" => typed!(core::secret::Secret, NAMESPACED.fields(SECRET_FIELDS)),
        "ServiceAccount" => typed!(core::service_account::ServiceAccount, NAMESPACED),
        "Namespace" => {
            typed!(core::namespace::Namespace, CLUSTER.names(NameRule::Label).status().fields(NAMESPACE_FIELDS))
        }
        // A node registers with its status, so a create keeps it.
        "Node" => typed!(core::node::Node, CLUSTER.status_on_create().fields(NODE_FIELDS)),
        "Endpoints" => typed!(core::endpoints::Endpoints, NAMESPACED),
        "Event" => typed!(core::event::Event, NAMESPACED.fields(EVENT_FIELDS)),
        "PersistentVolume" => typed!(core::persistent_volume::PersistentVolume, CLUSTER.status()),
        "PersistentVolumeClaim" => typed!(core::persistent_volume_claim::PersistentVolumeClaim, NAMESPACED.status()),
        "ResourceQuota" => typed!(core::resource_quota::ResourceQuota, NAMESPACED.status()),
        "LimitRange" => typed!(core::limit_range::LimitRange, NAMESPACED),
        _ => generic!(NAMESPACED),
    }
}

fn workload_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "Deployment" => {
            typed!(apps::deployment::Deployment, NAMESPACED.generation(Generation::Spec).status().status_keeps_labels())
        }
        "ReplicaSet" => typed!(
            apps::replica_set::ReplicaSet,
            NAMESPACED.generation(Generation::Spec).status().fields(REPLICA_FIELDS)
        ),
        "StatefulSet" => typed!(
            apps::stateful_set::StatefulSet,
            NAMESPACED.names(NameRule::Label).generation(Generation::Spec).status()
        ),
        "DaemonSet" => typed!(apps::daemon_set::DaemonSet, NAMESPACED.generation(Generation::Spec).status()),
        "ControllerRevision" => typed!(apps::controller_revision::ControllerRevision, NAMESPACED),
        _ => generic!(NAMESPACED),
    }
}

fn batch_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "Job" => typed!(batch::job::Job, NAMESPACED.generation(Generation::Spec).status().fields(JOB_FIELDS)),
        "CronJob" => typed!(batch::cron_job::CronJob, NAMESPACED.generation(Generation::Spec).status()),
        _ => generic!(NAMESPACED),
    }
}

fn rbac_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "Role" => typed!(rbac::role::Role, NAMESPACED.names(NameRule::PathSegment)),
        "ClusterRole" => typed!(rbac::cluster_role::ClusterRole, CLUSTER.names(NameRule::PathSegment)),
        "RoleBinding" => typed!(rbac::role_binding::RoleBinding, NAMESPACED.names(NameRule::PathSegment)),
        "ClusterRoleBinding" => {
            typed!(rbac::cluster_role_binding::ClusterRoleBinding, CLUSTER.names(NameRule::PathSegment))
        }
        _ => generic!(CLUSTER),
    }
}

fn networking_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "Ingress" => typed!(networking::ingress::Ingress, NAMESPACED.generation(Generation::Spec).status()),
        "IngressClass" => {
            typed!(networking::ingress_class::IngressClass, CLUSTER.generation(Generation::Spec))
        }
        "NetworkPolicy" => {
            typed!(networking::network_policy::NetworkPolicy, NAMESPACED.generation(Generation::Spec))
        }
        "IPAddress" => typed!(networking::ip_address::IpAddress, CLUSTER.names(NameRule::Ip)),
        "ServiceCIDR" => generic!(CLUSTER.status()),
        _ => generic!(NAMESPACED),
    }
}

fn storage_rules(kind: &str) -> &'static dyn KindRules {
    match kind {
        "StorageClass" => typed!(storage::storage_class::StorageClass, CLUSTER),
        "CSIDriver" => typed!(storage::csi_driver::CsiDriver, CLUSTER),
        "VolumeAttachment" => generic!(CLUSTER.status()),
        "CSIStorageCapacity" => generic!(NAMESPACED),
        _ => generic!(CLUSTER),
    }
}

fn other_rules(group: &str, kind: &str) -> &'static dyn KindRules {
    match (group, kind) {
        ("coordination.k8s.io", "Lease") => typed!(coordination::lease::Lease, NAMESPACED),
        ("discovery.k8s.io", "EndpointSlice") => {
            typed!(discovery::endpoint_slice::EndpointSlice, NAMESPACED.generation(Generation::Content))
        }
        ("events.k8s.io", "Event") => typed!(events::event::Event, NAMESPACED.fields(EVENTS_FIELDS)),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            typed!(autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscaler, NAMESPACED.status())
        }
        ("policy", "PodDisruptionBudget") => {
            typed!(policy::pod_disruption_budget::PodDisruptionBudget, NAMESPACED.generation(Generation::Spec).status())
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            typed!(scheduling::priority_class::PriorityClass, CLUSTER.generation(Generation::Content))
        }
        ("node.k8s.io", "RuntimeClass") => typed!(node::runtime_class::RuntimeClass, CLUSTER),
        ("certificates.k8s.io", "CertificateSigningRequest") => typed!(
            certificates::certificate_signing_request::CertificateSigningRequest,
            CLUSTER.status().fields(CSR_FIELDS)
        ),
        ("certificates.k8s.io", _) => generic!(CLUSTER.names(NameRule::PathSegment)),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            generic!(CLUSTER.generation(Generation::Content))
        }
        ("admissionregistration.k8s.io", _) => generic!(CLUSTER.generation(Generation::Spec).status()),
        ("apiextensions.k8s.io", _) => {
            generic!(CLUSTER.names(NameRule::Subdomain).generation(Generation::Spec).status())
        }
        ("apiregistration.k8s.io", _) => generic!(CLUSTER.names(NameRule::PathSegment).status()),
        ("flowcontrol.apiserver.k8s.io", _) => generic!(CLUSTER.generation(Generation::Spec).status()),
        ("resource.k8s.io", "ResourceClaim") => generic!(NAMESPACED.status()),
        ("resource.k8s.io", "ResourceClaimTemplate") => generic!(NAMESPACED),
        ("resource.k8s.io", _) => generic!(CLUSTER.generation(Generation::Spec)),
        ("authentication.k8s.io" | "authorization.k8s.io", _) => generic!(CLUSTER.names(NameRule::Any)),
        ("storagemigration.k8s.io", _) => generic!(CLUSTER.status()),
        _ => generic!(NAMESPACED),
    }
}
