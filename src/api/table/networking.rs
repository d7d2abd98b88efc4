//! Ingresses and their classes, network policies, service ranges and addresses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    IPAddress, Ingress, IngressClass, IngressClassParametersReference, IngressRule, IngressSpec, NetworkPolicy,
    ServiceCIDR,
};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{self, NONE, plain, qualified};
use crate::selector::format_label_selector;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

impl Printed for Ingress {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Class", "The class of the ingress."),
        Column::text("Hosts", "The first host names that requests are matched with."),
        Column::text("Address", "Addresses of the load balancer."),
        Column::text("Ports", "Ports that are open."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let no_spec = IngressSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
        let addresses = text::load_balancer(ingress.map(|i| (i.ip.as_ref(), i.hostname.as_ref())));
        let tls = spec.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        row![
            self.name(),
            spec.ingress_class_name.as_deref().unwrap_or(NONE),
            hosts(spec.rules.as_deref().unwrap_or_default()),
            addresses.join(","),
            if tls { "80, 443" } else { "80" },
            self.age(now),
        ]
    }
}

/// The first three hosts; every rule after the third host counts as one more.
fn hosts(rules: &[IngressRule]) -> String {
    const SHOWN: usize = 3;
    let named = rules.iter().map(|rule| plain(rule.host.as_ref())).enumerate().filter(|(_, host)| !host.is_empty());
    let shown: Vec<(usize, &str)> = named.take(SHOWN).collect();
    let hosts = shown.iter().map(|(_, host)| *host).collect::<Vec<_>>().join(",");
    match shown.last() {
        None => "*".to_owned(),
        Some((last, _)) if shown.len() == SHOWN && last + 1 < rules.len() => {
            format!("{hosts} + {} more...", rules.len() - SHOWN)
        }
        Some(_) => hosts,
    }
}

impl Printed for IngressClass {
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::text("Controller", "The controller that serves ingresses of this class."),
        Column::text("Parameters", "An object with more settings for the controller."),
        AGE,
    ];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.parameters.as_ref());
        let controller = spec.and_then(|spec| spec.controller.as_ref());
        row![
            text::default_marked(self, &[DEFAULT_CLASS]),
            plain(controller),
            parameters.map_or_else(|| NONE.to_owned(), reference),
            self.age(now),
        ]
    }
}

fn reference(to: &IngressClassParametersReference) -> String {
    match &to.api_group {
        Some(group) => format!("{}.{group}/{}", to.kind, to.name),
        None => format!("{}/{}", to.kind, to.name),
    }
}

impl Printed for NetworkPolicy {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("Pod-Selector", "Labels of the pods that the policy is for."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let selector = self.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        row![self.name(), format_label_selector(selector), self.age(now)]
    }
}

impl Printed for ServiceCIDR {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::text("CIDRs", "The ranges that services take addresses from."), AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let cidrs = self.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
        row![self.name(), cidrs.join(","), self.age(now)]
    }
}

impl Printed for IPAddress {
    const COLUMNS: &'static [Column] = &[NAME, Column::text("ParentRef", "What the address was given to.")];

    fn row(&self, _: Timestamp) -> Vec<Value> {
        let parent = &self.spec.parent_ref;
        let resource = qualified(&parent.resource, plain(parent.group.as_ref())).to_lowercase();
        let parent = match plain(parent.namespace.as_ref()) {
            "" => format!("{resource}/{}", parent.name),
            namespace => format!("{resource}/{namespace}/{}", parent.name),
        };
        row![self.name(), parent]
    }
}
