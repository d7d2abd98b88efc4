//! The built-in resources of v1.36's stable API groups that are served.
//!
//! Left out on purpose, see docs/compatibility.md: kinds whose purpose is an enforcement that is not
//! there yet, and kinds that define further APIs.

use super::row::{Row, Subresource};

const APPS: &str = "apps";
const BATCH: &str = "batch";
const RBAC: &str = "rbac.authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const EDIT: &[&str] = &["get", "patch", "update"];
const UPDATE: &[&str] = &["update"];
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

const fn status(kind: &'static str) -> Subresource {
    Subresource::status(kind)
}

const POD_SUBRESOURCES: &[Subresource] = &[
    Subresource::special("attach", "PodAttachOptions", CONNECT),
    Subresource::special("binding", "Binding", CREATE),
    Subresource::generic("ephemeralcontainers", "Pod", EDIT),
    Subresource::special("eviction", "Eviction", CREATE).of("policy", "v1"),
    Subresource::special("exec", "PodExecOptions", CONNECT),
    Subresource::special("log", "Pod", GET),
    Subresource::special("portforward", "PodPortForwardOptions", CONNECT),
    Subresource::special("proxy", "PodProxyOptions", PROXY),
    Subresource::generic("resize", "Pod", EDIT),
    status("Pod"),
];

/// Every served resource, by group and name.
pub(super) const ROWS: &[Row] = &[
    Row::namespaced("", "Binding", "bindings", "binding").verbs(CREATE).unstored(),
    Row::namespaced("", "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    Row::namespaced("", "Endpoints", "endpoints", "endpoints").short(&["ep"]).create_on_update(),
    Row::namespaced("", "Event", "events", "event").short(&["ev"]).create_on_update(),
    Row::namespaced("", "LimitRange", "limitranges", "limitrange").short(&["limits"]).create_on_update(),
    Row::cluster("", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .verbs(NAMESPACE_VERBS)
        .subresources(&[Subresource::generic("finalize", "Namespace", UPDATE), status("Namespace")]),
    Row::cluster("", "Node", "nodes", "node")
        .short(&["no"])
        .subresources(&[Subresource::special("proxy", "NodeProxyOptions", PROXY), status("Node")]),
    Row::namespaced("", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
        .short(&["pvc"])
        .returns_deleted()
        .subresources(&[status("PersistentVolumeClaim")]),
    Row::cluster("", "PersistentVolume", "persistentvolumes", "persistentvolume")
        .short(&["pv"])
        .returns_deleted()
        .subresources(&[status("PersistentVolume")]),
    Row::namespaced("", "Pod", "pods", "pod")
        .short(&["po"])
        .in_all()
        .returns_deleted()
        .graceful()
        .subresources(POD_SUBRESOURCES),
    Row::namespaced("", "PodTemplate", "podtemplates", "podtemplate").returns_deleted(),
    Row::namespaced("", "ReplicationController", "replicationcontrollers", "replicationcontroller")
        .short(&["rc"])
        .in_all()
        .orphans_by_default()
        .subresources(&[Subresource::SCALE, status("ReplicationController")]),
    Row::namespaced("", "Secret", "secrets", "secret"),
    Row::namespaced("", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .returns_deleted()
        .subresources(&[Subresource::special("token", "TokenRequest", CREATE).of(AUTHENTICATION, "v1")]),
    Row::namespaced("", "Service", "services", "service")
        .short(&["svc"])
        .in_all()
        .returns_deleted()
        .create_on_update()
        .subresources(&[Subresource::special("proxy", "ServiceProxyOptions", PROXY), status("Service")]),
    Row::namespaced(APPS, "ControllerRevision", "controllerrevisions", "controllerrevision"),
    Row::namespaced(APPS, "DaemonSet", "daemonsets", "daemonset")
        .short(&["ds"])
        .in_all()
        .subresources(&[status("DaemonSet")]),
    Row::namespaced(APPS, "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .in_all()
        .subresources(&[Subresource::SCALE, status("Deployment")]),
    Row::namespaced(APPS, "ReplicaSet", "replicasets", "replicaset")
        .short(&["rs"])
        .in_all()
        .subresources(&[Subresource::SCALE, status("ReplicaSet")]),
    Row::namespaced(APPS, "StatefulSet", "statefulsets", "statefulset")
        .short(&["sts"])
        .in_all()
        .subresources(&[Subresource::SCALE, status("StatefulSet")]),
    Row::review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"),
    Row::review(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview"),
    Row::review(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview")
        .in_namespace(),
    Row::review(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview"),
    Row::review(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview"),
    Row::review(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview"),
    Row::namespaced("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
        .versions(&["v2", "v1"], "v2")
        .short(&["hpa"])
        .in_all()
        .subresources(&[status("HorizontalPodAutoscaler")]),
    Row::namespaced(BATCH, "CronJob", "cronjobs", "cronjob").short(&["cj"]).in_all().subresources(&[status("CronJob")]),
    Row::namespaced(BATCH, "Job", "jobs", "job").in_all().orphans_by_default().subresources(&[status("Job")]),
    Row::cluster(
        "certificates.k8s.io",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
    )
    .short(&["csr"])
    .subresources(&[
        Subresource::generic("approval", "CertificateSigningRequest", EDIT),
        status("CertificateSigningRequest"),
    ]),
    Row::namespaced("coordination.k8s.io", "Lease", "leases", "lease").create_on_update().conditional_update(),
    Row::namespaced("discovery.k8s.io", "EndpointSlice", "endpointslices", "endpointslice"),
    Row::namespaced("events.k8s.io", "Event", "events", "event").short(&["ev"]).create_on_update().stored_in(""),
    Row::cluster(NETWORKING, "IngressClass", "ingressclasses", "ingressclass"),
    Row::namespaced(NETWORKING, "Ingress", "ingresses", "ingress").short(&["ing"]).subresources(&[status("Ingress")]),
    Row::cluster(NETWORKING, "IPAddress", "ipaddresses", "ipaddress").short(&["ip"]),
    Row::cluster(NETWORKING, "ServiceCIDR", "servicecidrs", "servicecidr").subresources(&[status("ServiceCIDR")]),
    Row::cluster("node.k8s.io", "RuntimeClass", "runtimeclasses", "runtimeclass"),
    Row::cluster(RBAC, "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding").create_on_update(),
    Row::cluster(RBAC, "ClusterRole", "clusterroles", "clusterrole").create_on_update(),
    Row::namespaced(RBAC, "RoleBinding", "rolebindings", "rolebinding").create_on_update(),
    Row::namespaced(RBAC, "Role", "roles", "role").create_on_update(),
    Row::cluster(RESOURCE, "DeviceClass", "deviceclasses", "deviceclass"),
    Row::namespaced(RESOURCE, "ResourceClaim", "resourceclaims", "resourceclaim")
        .subresources(&[status("ResourceClaim")]),
    Row::namespaced(RESOURCE, "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate"),
    Row::cluster(RESOURCE, "ResourceSlice", "resourceslices", "resourceslice"),
    Row::cluster("scheduling.k8s.io", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]),
    Row::cluster(STORAGE, "CSIDriver", "csidrivers", "csidriver"),
    Row::cluster(STORAGE, "CSINode", "csinodes", "csinode"),
    Row::namespaced(STORAGE, "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity"),
    Row::cluster(STORAGE, "StorageClass", "storageclasses", "storageclass").short(&["sc"]),
    Row::cluster(STORAGE, "VolumeAttachment", "volumeattachments", "volumeattachment")
        .subresources(&[status("VolumeAttachment")]),
    Row::cluster(STORAGE, "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass").short(&["vac"]),
];
