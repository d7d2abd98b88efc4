//! The ClusterRoles of users, nodes and components, and the bindings of those that are bound.

use super::table::{Bound, EVENTS, Named, READ, READ_WRITE, Row, WRITE, named, on, role, urls};

const REVIEWS: [Row; 2] = [
    on("create", "authentication.k8s.io", "tokenreviews"),
    on("create", "authorization.k8s.io", "subjectaccessreviews"),
];

pub(super) const ROLES: &[Named] = &[
    role("cluster-admin", &[on("*", "*", "*"), urls("*", "*")]),
    role(
        "system:discovery",
        &[urls("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")],
    ),
    role("system:public-info-viewer", &[urls("get", "/healthz /livez /readyz /version /version/")]),
    role(
        "system:monitoring",
        &[
            urls("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
            urls("get", "/flagz"),
            urls("get", "/statusz"),
        ],
    ),
    role(
        "system:basic-user",
        &[
            on("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            on("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role("system:aggregate-to-admin", ADMIN),
    role("system:aggregate-to-edit", EDIT),
    role("system:aggregate-to-view", VIEW),
    role("system:auth-delegator", &REVIEWS),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[approve("kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[approve("kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role("system:certificates.k8s.io:kubelet-serving-approver", &[approve("kubernetes.io/kubelet-serving")]),
    role("system:certificates.k8s.io:legacy-unknown-approver", &[approve("kubernetes.io/legacy-unknown")]),
    role("system:heapster", &[on(READ, "core", "events namespaces nodes pods"), on(READ, "extensions", "deployments")]),
    role("system:kube-aggregator", &[on(READ, "core", "endpoints services")]),
    role("system:kube-controller-manager", CONTROLLER_MANAGER),
    role("system:kube-dns", &[on("list watch", "core", "endpoints services")]),
    role(
        "system:coredns",
        &[
            on("list watch", "core", "endpoints namespaces pods services"),
            on("list watch", "discovery.k8s.io", "endpointslices"),
            on("get", "core", "nodes"),
        ],
    ),
    role("system:kube-scheduler", SCHEDULER),
    role(
        "system:kubelet-api-admin",
        &[
            on(READ, "core", "nodes"),
            on("proxy", "core", "nodes"),
            on("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
            on("*", "core", "nodes/configz nodes/healthz nodes/pods"),
        ],
    ),
    role("system:node", NODE),
    role(
        "system:node-bootstrapper",
        &[on("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
    ),
    role("system:node-problem-detector", &[on("get", "core", "nodes"), on("patch", "core", "nodes/status"), EVENTS]),
    role(
        "system:node-proxier",
        &[
            on("list watch", "core", "endpoints services"),
            on(READ, "core", "nodes"),
            EVENTS,
            on("list watch", "networking.k8s.io", "servicecidrs"),
            on("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            on("create delete get list watch", "core", "persistentvolumes"),
            on("get list update watch", "core", "persistentvolumeclaims"),
            on(READ, "storage.k8s.io", "storageclasses"),
            on("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:volume-scheduler",
        &[
            on("get list patch update watch", "core", "persistentvolumes"),
            on(READ, "storage.k8s.io", "storageclasses"),
            on("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
];

const fn approve(signer: &'static str) -> Row {
    named("approve", "certificates.k8s.io", "signers", signer)
}

const ADMIN: &[Row] = &[
    on("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    on(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings roles"),
];

const EDIT: &[Row] = &[
    on(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    on("impersonate", "core", "serviceaccounts"),
    on(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    on("create", "core", "pods/eviction"),
    on(
        WRITE,
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
         serviceaccounts services services/proxy",
    ),
    on("create", "core", "serviceaccounts/token"),
    on(
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    on(WRITE, "autoscaling", "horizontalpodautoscalers"),
    on(WRITE, "batch", "cronjobs jobs"),
    on(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
         replicasets/scale replicationcontrollers/scale",
    ),
    on(WRITE, "policy", "poddisruptionbudgets"),
    on(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    on(READ_WRITE, "coordination.k8s.io", "leases"),
    on(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

const VIEW: &[Row] = &[
    on(
        READ,
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
         replicationcontrollers/scale serviceaccounts services services/status",
    ),
    on(
        READ,
        "core",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
         resourcequotas resourcequotas/status",
    ),
    on(READ, "core", "namespaces"),
    on(READ, "discovery.k8s.io", "endpointslices"),
    on(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    on(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    on(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    on(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
    ),
    on(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    on(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    on(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
];

const CONTROLLER_MANAGER: &[Row] = &[
    EVENTS,
    on("create", "coordination.k8s.io", "leases"),
    named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
    on("create", "core", "secrets serviceaccounts"),
    on("delete", "core", "secrets"),
    on("get", "core", "configmaps namespaces secrets serviceaccounts"),
    on("update", "core", "secrets serviceaccounts"),
    REVIEWS[0],
    REVIEWS[1],
    on("list watch", "*", "*"),
    on("create", "core", "serviceaccounts/token"),
];

const SCHEDULER: &[Row] = &[
    EVENTS,
    on("create", "coordination.k8s.io", "leases"),
    named("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
    on(READ, "core", "nodes"),
    on("delete get list watch", "core", "pods"),
    on("create", "core", "bindings pods/binding"),
    on("patch update", "core", "pods/status"),
    on(READ, "core", "replicationcontrollers services"),
    on(READ, "apps extensions", "replicasets"),
    on(READ, "apps", "statefulsets"),
    on(READ, "policy", "poddisruptionbudgets"),
    on(READ, "core", "persistentvolumeclaims persistentvolumes"),
    REVIEWS[0],
    REVIEWS[1],
    on(READ, "storage.k8s.io", "csinodes"),
    on(READ, "storage.k8s.io", "volumeattachments"),
    on(READ, "core", "namespaces"),
    on(READ, "storage.k8s.io", "csidrivers"),
    on(READ, "storage.k8s.io", "csistoragecapacities"),
    on(READ, "resource.k8s.io", "deviceclasses"),
    on("get list patch update watch", "resource.k8s.io", "resourceclaims"),
    on("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
    on("get list patch update watch", "core", "pods/finalizers"),
    on(READ, "resource.k8s.io", "resourceslices"),
];

const NODE: &[Row] = &[
    REVIEWS[0],
    on("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    on(READ, "core", "services"),
    on("create get list watch", "core", "nodes"),
    on("patch update", "core", "nodes/status"),
    on("patch update", "core", "nodes"),
    on("create patch update", "core", "events"),
    on(READ, "core", "pods"),
    on("create delete", "core", "pods"),
    on("patch update", "core", "pods/status"),
    on("create", "core", "pods/eviction"),
    on(READ, "core", "configmaps secrets"),
    on("get", "core", "persistentvolumeclaims persistentvolumes"),
    on("get", "core", "endpoints"),
    on("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    on("create delete get patch update", "coordination.k8s.io", "leases"),
    on("get", "storage.k8s.io", "volumeattachments"),
    on("create", "core", "serviceaccounts/token"),
    on("get patch update", "core", "persistentvolumeclaims/status"),
    on(READ, "storage.k8s.io", "csidrivers"),
    on("create delete get patch update", "storage.k8s.io", "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", "resource.k8s.io", "resourceclaims"),
    on("deletecollection", "resource.k8s.io", "resourceslices"),
    on("get", "core", "serviceaccounts"),
];

pub(super) const BINDINGS: &[Bound] = &[
    to("cluster-admin", "", "system:masters", ""),
    to("system:monitoring", "", "system:monitoring", ""),
    to("system:discovery", "", "system:authenticated", ""),
    to("system:basic-user", "", "system:authenticated", ""),
    to("system:public-info-viewer", "", "system:authenticated system:unauthenticated", ""),
    to("system:node-proxier", "system:kube-proxy", "", ""),
    to("system:kube-controller-manager", "system:kube-controller-manager", "", ""),
    to("system:kube-dns", "", "", "kube-dns"),
    to("system:coredns", "", "", "coredns"),
    to("system:kube-scheduler", "system:kube-scheduler", "", ""),
    to("system:volume-scheduler", "system:kube-scheduler", "", ""),
    to("system:service-account-issuer-discovery", "", "system:serviceaccounts", ""),
    Bound {
        name: "kube-apiserver-kubelet-admin",
        role: "system:kubelet-api-admin",
        users: super::super::user::KUBELET_CLIENT,
        groups: "",
        accounts: "",
    },
    // Nobody by default: the node authorizer grants what nodes need.
    to("system:node", "", "", ""),
];

const fn to(role: &'static str, users: &'static str, groups: &'static str, accounts: &'static str) -> Bound {
    Bound { name: role, role, users, groups, accounts }
}
