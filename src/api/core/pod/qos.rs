//! The quality-of-service class that a pod's requests and limits earn it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

use crate::quantity::Quantity;

/// The resources that count.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Guaranteed: every container is limited in CPU and memory, and the sums of requests are the sums of
/// limits. Best effort: none asks for either. Burstable: the rest. An amount of zero counts as absent.
/// Resources of the pod as a whole go before its containers'.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let whole = spec.resources.as_ref().filter(|r| {
        r.limits.as_ref().is_some_and(|m| !m.is_empty()) || r.requests.as_ref().is_some_and(|m| !m.is_empty())
    });
    let none = ResourceRequirements::default();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let parts: Vec<&ResourceRequirements> = match whole {
        Some(whole) => vec![whole],
        None => containers.map(|c| c.resources.as_ref().unwrap_or(&none)).collect(),
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut limited = true;
    for part in parts {
        add(&mut requests, part.requests.as_ref());
        limited &= add(&mut limits, part.limits.as_ref()) == COMPUTE.len();
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// Adds amounts to their sums; gives how many there were.
fn add(sums: &mut BTreeMap<&'static str, Quantity>, amounts: Option<&BTreeMap<String, Wire>>) -> usize {
    let amount = |name: &str| amounts?.get(name).map(Quantity::of).filter(|q| q.sign() > 0);
    let named = COMPUTE.into_iter().filter_map(|name| Some((name, amount(name)?)));
    let mut count = 0;
    for (name, amount) in named {
        let sum = sums.entry(name).or_insert(Quantity::ZERO);
        *sum = sum.plus(amount);
        count += 1;
    }
    count
}
