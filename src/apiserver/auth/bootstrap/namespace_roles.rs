//! The Roles of kube-system and kube-public and their bindings.

use super::table::{Bound, EVENTS, Named, READ, named, on, role};

pub(super) const SYSTEM_ROLES: &[Named] = &[
    role(
        "extension-apiserver-authentication-reader",
        &[named(READ, "core", "configmaps", "extension-apiserver-authentication")],
    ),
    role("system:controller:bootstrap-signer", &[on(READ, "core", "secrets")]),
    role("system:controller:cloud-provider", &[on("create get list watch", "core", "configmaps")]),
    role("system:controller:token-cleaner", &[on("delete get list watch", "core", "secrets"), EVENTS]),
    role(
        "system::leader-locking-kube-controller-manager",
        &[on("watch", "core", "configmaps"), named("get update", "core", "configmaps", "kube-controller-manager")],
    ),
    role(
        "system::leader-locking-kube-scheduler",
        &[on("watch", "core", "configmaps"), named("get update", "core", "configmaps", "kube-scheduler")],
    ),
];

pub(super) const PUBLIC_ROLES: &[Named] = &[role(
    "system:controller:bootstrap-signer",
    &[on(READ, "core", "configmaps"), named("update", "core", "configmaps", "cluster-info"), EVENTS],
)];

pub(super) const SYSTEM_BINDINGS: &[Bound] = &[
    Bound {
        name: "system::extension-apiserver-authentication-reader",
        role: "extension-apiserver-authentication-reader",
        users: "system:kube-controller-manager system:kube-scheduler",
        groups: "",
        accounts: "",
    },
    Bound {
        users: "system:kube-controller-manager",
        ..to("system::leader-locking-kube-controller-manager", "kube-controller-manager")
    },
    Bound { users: "system:kube-scheduler", ..to("system::leader-locking-kube-scheduler", "kube-scheduler") },
    to("system:controller:bootstrap-signer", "bootstrap-signer"),
    to("system:controller:cloud-provider", "cloud-provider"),
    to("system:controller:token-cleaner", "token-cleaner"),
];

pub(super) const PUBLIC_BINDINGS: &[Bound] = &[to("system:controller:bootstrap-signer", "bootstrap-signer")];

const fn to(role: &'static str, accounts: &'static str) -> Bound {
    Bound { name: role, role, users: "", groups: "", accounts }
}
