//! The quality-of-service class that a pod's requests and limits earn it.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::quantity::Quantity;

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

fn amount(resources: Option<&ResourceRequirements>, limit: bool, name: &str) -> Option<Quantity> {
    let resources = resources?;
    let map = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    map?.get(name).map(Quantity::of).filter(|q| q.sign() > 0)
}

/// Guaranteed: every container is limited in CPU and memory and requests just that. Best effort: none
/// asks for either. Burstable: the rest. Requests of the pod as a whole go before its containers'.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let whole = spec.resources.as_ref().filter(|r| {
        r.limits.as_ref().is_some_and(|m| !m.is_empty()) || r.requests.as_ref().is_some_and(|m| !m.is_empty())
    });
    let parts: Vec<Option<&ResourceRequirements>> = match whole {
        Some(_) => vec![whole],
        None => {
            spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| c.resources.as_ref()).collect()
        }
    };
    let compute = ["cpu", "memory"];
    let asks = |part: &Option<&ResourceRequirements>| {
        compute.iter().any(|name| amount(*part, true, name).is_some() || amount(*part, false, name).is_some())
    };
    let fixed = |part: &Option<&ResourceRequirements>| {
        compute.iter().all(|name| {
            let limit = amount(*part, true, name);
            limit.is_some() && amount(*part, false, name).is_none_or(|request| Some(request) == limit)
        })
    };
    if !parts.iter().any(asks) {
        QosClass::BestEffort
    } else if parts.iter().all(fixed) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}
