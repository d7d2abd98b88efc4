//! The ways upstream's tables write lists, labels and absent values.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::kind::Printed;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// How many members of a list a cell shows.
const SHOWN: usize = 3;

/// A text, or `fallback` where it is missing or empty.
pub(super) fn or<'a>(text: Option<&'a str>, fallback: &'a str) -> &'a str {
    text.filter(|text| !text.is_empty()).unwrap_or(fallback)
}

/// A text field that may be missing, which prints as nothing.
pub(super) fn plain(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

/// `a=1,b=2`.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let mut pairs: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.sort_unstable();
    pairs.join(",")
}

/// Names and images of containers.
pub(super) fn containers(containers: Option<&[Container]>) -> (String, String) {
    let containers = containers.unwrap_or_default();
    let joined = |text: fn(&Container) -> &str| containers.iter().map(text).collect::<Vec<_>>().join(",");
    (joined(|container| &container.name), joined(|container| plain(container.image.as_ref())))
}

/// The first three, and how many more there are.
pub(super) fn first_few(texts: &[String]) -> String {
    let head = texts[..texts.len().min(SHOWN)].join(",");
    match texts.len().saturating_sub(SHOWN) {
        0 => head,
        more => format!("{head} + {more} more..."),
    }
}

/// One amount of a resource list, zero where it is missing.
pub(super) fn amount<'a>(list: Option<&'a BTreeMap<String, Quantity>>, resource: &str) -> &'a str {
    list.and_then(|list| list.get(resource)).map_or("0", |quantity| quantity.0.as_str())
}

pub(super) fn int_or_string(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

/// `services`, `deployments.apps`.
pub(super) fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// The addresses that a load balancer was given, from its IPs and host names: sorted, without repeats.
pub(super) fn load_balancer<'a>(
    ingress: impl Iterator<Item = (Option<&'a String>, Option<&'a String>)>,
) -> Vec<&'a str> {
    let address = |(ip, host): (Option<&'a String>, Option<&'a String>)| or(ip.map(String::as_str), plain(host));
    let mut addresses: Vec<&str> = ingress.map(address).filter(|address| !address.is_empty()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The name, marked if one of the annotations makes the object the default of its kind.
pub(super) fn default_marked(object: &impl Printed, annotations: &[&str]) -> String {
    let all = object.metadata().annotations.as_ref();
    let on = |key: &&str| all.and_then(|all| all.get(*key)).is_some_and(|value| value == "true");
    let mark = if annotations.iter().any(on) { " (default)" } else { "" };
    format!("{}{mark}", object.name())
}
