//! Fitting endpoints into slices with as few writes as possible: what stays keeps its slice, what is
//! new fills slices that change anyway, then those with room, then new ones.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::labels;

/// Endpoints in one slice; upstream's default.
const MAX_ENDPOINTS: usize = 100;

/// Endpoints of one address type whose ports are the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) address_type: String,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
pub(super) struct Desired {
    pub(super) groups: Vec<Group>,
    /// Each has at least one slice, so that "no endpoints" can be told from "not seen yet".
    pub(super) address_types: Vec<String>,
    pub(super) template: ObjectMeta,
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<EndpointSlice>,
}

pub(super) fn fit(desired: &Desired, existing: Vec<EndpointSlice>) -> Changes {
    let mut changes = Changes::default();
    let mut rest = existing;
    for group in &desired.groups {
        let is_of_group = |s: &EndpointSlice| s.address_type == group.address_type && same_ports(s, &group.ports);
        let (of_group, others) = rest.into_iter().partition(is_of_group);
        rest = others;
        fit_group(group, of_group, &desired.template, &mut changes);
    }
    for address_type in &desired.address_types {
        if desired.groups.iter().any(|g| g.address_type == *address_type) {
            continue;
        }
        // An empty slice stands for the Service; one that is there already is kept or emptied.
        let empty = Group { address_type: address_type.clone(), ports: Vec::new(), endpoints: Vec::new() };
        match rest.iter().position(|s| s.address_type == *address_type && same_ports(s, &[])) {
            Some(at) => {
                let slice = rest.remove(at);
                let emptied = EndpointSlice { endpoints: Some(Vec::new()), ..slice.clone() };
                keep(&slice, emptied, &desired.template, &mut changes);
            }
            None => changes.create.push(new_slice(&empty, Vec::new(), &desired.template)),
        }
    }
    changes.delete.extend(rest);
    reuse(&mut changes);
    changes
}

/// A slice that would go takes in what a new one would hold: one write for two, and one event for
/// every watcher.
fn reuse(changes: &mut Changes) {
    for mut slice in std::mem::take(&mut changes.create) {
        match changes.delete.iter().position(|d| d.address_type == slice.address_type) {
            Some(at) => {
                let reused = changes.delete.swap_remove(at);
                let labels = slice.metadata.labels.take();
                let owners = slice.metadata.owner_references.take();
                slice.metadata = ObjectMeta { labels, owner_references: owners, ..reused.metadata };
                changes.update.push(slice);
            }
            None => changes.create.push(slice),
        }
    }
}

fn fit_group(group: &Group, slices: Vec<EndpointSlice>, template: &ObjectMeta, changes: &mut Changes) {
    let mut waiting: Vec<&Endpoint> = group.endpoints.iter().collect();
    let mut kept: Vec<(EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let mut endpoints = Vec::new();
        for old in slice.endpoints.iter().flatten() {
            if let Some(at) = waiting.iter().position(|new| is_same(new, old)) {
                endpoints.push(waiting.remove(at).clone());
            }
        }
        kept.push((slice, endpoints));
    }
    // Slices that are written anyway come first, of the others the fullest.
    kept.sort_by_key(|(slice, endpoints)| {
        let unchanged = slice.endpoints.as_deref().unwrap_or_default() == endpoints.as_slice();
        (unchanged, std::cmp::Reverse(endpoints.len()))
    });
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len()).min(waiting.len());
        endpoints.extend(waiting.drain(..room).cloned());
    }
    for chunk in waiting.chunks(MAX_ENDPOINTS) {
        let endpoints = chunk.iter().map(|&e| e.clone()).collect();
        changes.create.push(new_slice(group, endpoints, template));
    }
    for (slice, endpoints) in kept {
        if endpoints.is_empty() {
            changes.delete.push(slice);
        } else {
            let updated = EndpointSlice { endpoints: Some(endpoints), ..slice.clone() };
            keep(&slice, updated, template, changes);
        }
    }
}

/// Writes the slice only if it differs from what stands.
fn keep(old: &EndpointSlice, mut new: EndpointSlice, template: &ObjectMeta, changes: &mut Changes) {
    new.metadata.labels = Some(labels(template));
    new.metadata.owner_references.clone_from(&template.owner_references);
    let same_endpoints = old.endpoints.as_deref().unwrap_or_default() == new.endpoints.as_deref().unwrap_or_default();
    if !same_endpoints
        || labels(&old.metadata) != labels(template)
        || old.metadata.owner_references != new.metadata.owner_references
    {
        changes.update.push(new);
    }
}

fn new_slice(group: &Group, endpoints: Vec<Endpoint>, template: &ObjectMeta) -> EndpointSlice {
    EndpointSlice {
        metadata: template.clone(),
        address_type: group.address_type.clone(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
    }
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    slice.ports.as_deref().unwrap_or_default() == ports
}

/// The same pod at the same address, whatever its conditions are now.
fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    let uid = |e: &Endpoint| e.target_ref.as_ref().and_then(|r| r.uid.clone());
    uid(a) == uid(b) && a.addresses == b.addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointConditions;

    fn endpoint(n: usize, ready: bool) -> Endpoint {
        Endpoint {
            addresses: vec![format!("10.244.{}.{}", n / 200, n % 200)],
            conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
            ..Endpoint::default()
        }
    }

    fn desired(endpoints: Vec<Endpoint>) -> Desired {
        let ports = vec![EndpointPort { port: Some(80), ..EndpointPort::default() }];
        let groups =
            if endpoints.is_empty() { vec![] } else { vec![Group { address_type: "IPv4".into(), ports, endpoints }] };
        Desired { groups, address_types: vec!["IPv4".into()], template: ObjectMeta::default() }
    }

    fn existing(name: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta { name: Some(name.into()), labels: Some([].into()), ..ObjectMeta::default() },
            address_type: "IPv4".into(),
            ports: Some(vec![EndpointPort { port: Some(80), ..EndpointPort::default() }]),
            endpoints: Some(endpoints),
        }
    }

    fn counts(changes: &Changes) -> (Vec<usize>, Vec<usize>, usize) {
        let sizes = |s: &[EndpointSlice]| s.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
        (sizes(&changes.create), sizes(&changes.update), changes.delete.len())
    }

    #[test]
    fn slices_hold_a_hundred_endpoints() {
        let changes = fit(&desired((0..250).map(|n| endpoint(n, true)).collect()), vec![]);
        assert_eq!(counts(&changes), (vec![100, 100, 50], vec![], 0));
    }

    #[test]
    fn an_unchanged_service_writes_nothing() {
        let all: Vec<_> = (0..3).map(|n| endpoint(n, true)).collect();
        assert_eq!(counts(&fit(&desired(all.clone()), vec![existing("a", all)])), (vec![], vec![], 0));
    }

    #[test]
    fn changes_touch_as_few_slices_as_they_can() {
        let first: Vec<_> = (0..100).map(|n| endpoint(n, true)).collect();
        let second: Vec<_> = (100..150).map(|n| endpoint(n, true)).collect();
        let slices = || vec![existing("a", first.clone()), existing("b", second.clone())];
        let mut more: Vec<_> = (0..151).map(|n| endpoint(n, true)).collect();
        assert_eq!(counts(&fit(&desired(more.clone()), slices())), (vec![], vec![51], 0));
        more.remove(0);
        assert_eq!(counts(&fit(&desired(more.clone()), slices())), (vec![], vec![100], 0));
        more[99] = endpoint(100, false);
        assert_eq!(counts(&fit(&desired(more), slices())), (vec![], vec![100, 50], 0));
    }

    #[test]
    fn a_service_without_endpoints_keeps_one_empty_slice() {
        let gone = fit(&desired(vec![]), vec![existing("a", vec![endpoint(1, true)])]);
        assert_eq!(counts(&gone), (vec![], vec![0], 0));
        assert_eq!(gone.update[0].metadata.name.as_deref(), Some("a"));
        let mut empty = existing("a", vec![]);
        empty.ports = None;
        assert_eq!(counts(&fit(&desired(vec![]), vec![empty])), (vec![], vec![], 0));
    }
}
