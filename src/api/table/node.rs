//! Nodes and runtime classes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, NodeSystemInfo};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{NONE, UNKNOWN, or};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Printed for Node {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Status", "Whether the node is ready and takes new pods."),
        Column::text("Roles", "The node's roles, from its labels."),
        AGE,
        Column::text("Version", "The version of the node's kubelet."),
        Column::text("Internal-IP", "The node's first address inside the cluster.").wide(),
        Column::text("External-IP", "The node's first address outside the cluster.").wide(),
        Column::text("OS-Image", "The node's operating system.").wide(),
        Column::text("Kernel-Version", "The node's kernel and architecture.").wide(),
        Column::text("Container-Runtime", "The node's container runtime and its version.").wide(),
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let no_status = NodeStatus::default();
        let status = self.status.as_ref().unwrap_or(&no_status);
        let no_info = NodeSystemInfo::default();
        let info = status.node_info.as_ref().unwrap_or(&no_info);
        row![
            self.name(),
            state(self, status),
            roles(self),
            self.age(now),
            info.kubelet_version.as_str(),
            address(status, "InternalIP"),
            address(status, "ExternalIP"),
            or(Some(&info.os_image), UNKNOWN),
            kernel(info),
            or(Some(&info.container_runtime_version), UNKNOWN),
        ]
    }
}

fn state(node: &Node, status: &NodeStatus) -> String {
    let ready = status.conditions.iter().flatten().rfind(|condition| condition.type_ == "Ready");
    let mut state = match ready {
        None => "Unknown",
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        state.push_str(",SchedulingDisabled");
    }
    state
}

fn roles(node: &Node) -> String {
    let role = |(key, value): (&'_ String, &'_ String)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()),
        None => (key == ROLE_LABEL).then(|| value.clone()),
    };
    let roles: BTreeSet<String> = node.metadata.labels.iter().flatten().filter_map(role).collect();
    let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
    or(Some(&roles.join(",")), NONE).to_owned()
}

fn address<'a>(status: &'a NodeStatus, kind: &str) -> &'a str {
    let first = status.addresses.iter().flatten().find(|address| address.type_ == kind);
    first.map_or(NONE, |address| address.address.as_str())
}

fn kernel(info: &NodeSystemInfo) -> String {
    let version = or(Some(&info.kernel_version), UNKNOWN);
    if info.architecture.is_empty() { version.to_owned() } else { format!("{version} ({})", info.architecture) }
}

impl Printed for RuntimeClass {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("Handler", "What the node's runtime calls this way to run pods."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.handler.as_str(), self.age(now)]
    }
}
