//! LimitRanger: the defaults and bounds that a namespace's LimitRanges set for containers, pods and
//! claims.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts up to here are compared in thousandths, above in whole units.
const MAX_MILLI: i64 = i64::MAX / 1000;

type Amounts = BTreeMap<String, Wire>;

/// Fills in the requests and limits that containers lack.
pub(super) fn apply_defaults(pod: &mut Pod, ranges: &[LimitRange]) {
    for range in ranges {
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        for item in items(range, "Container") {
            requests.extend(item.default_request.clone().unwrap_or_default());
            limits.extend(item.default.clone().unwrap_or_default());
        }
        let Some(spec) = pod.spec.as_mut() else { return };
        let mut notes = Vec::new();
        for container in &mut spec.containers {
            notes.extend(merge(container, "container", &requests, &limits));
        }
        for container in spec.init_containers.iter_mut().flatten() {
            notes.extend(merge(container, "init container", &requests, &limits));
        }
        if !notes.is_empty() {
            let text = format!("LimitRanger plugin set: {}", notes.join("; "));
            pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
        }
    }
}

fn merge(container: &mut Container, what: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    if requests.is_empty() && limits.is_empty() {
        return Vec::new();
    }
    let resources = container.resources.get_or_insert_default();
    let fill = |own: &mut Option<Amounts>, defaults: &Amounts, kind: &str| {
        let own = own.get_or_insert_default();
        let missing: BTreeSet<&String> = defaults.keys().filter(|k| !own.contains_key(*k)).collect();
        let names: Vec<&str> = missing.iter().map(|k| k.as_str()).collect();
        let note = (!names.is_empty()).then(|| format!("{} {kind} for {what} {}", names.join(", "), container.name));
        for key in missing {
            own.insert(key.clone(), defaults[key].clone());
        }
        note
    };
    let requested = fill(&mut resources.requests, requests, "request");
    let limited = fill(&mut resources.limits, limits, "limit");
    requested.into_iter().chain(limited).collect()
}

fn items<'r>(range: &'r LimitRange, kind: &str) -> impl Iterator<Item = &'r LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits).filter(move |i| i.type_ == kind)
}

/// What in the pod lies outside of the bounds, as one message.
///
/// # Errors
/// The message.
pub(super) fn judge_pod(pod: &Pod, ranges: &[LimitRange]) -> Result<(), String> {
    let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
    for range in ranges {
        let mut errors = Vec::new();
        for item in items(range, "Container") {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let requests = resources.and_then(|r| r.requests.clone()).unwrap_or_default();
                let limits = resources.and_then(|r| r.limits.clone()).unwrap_or_default();
                check_item(item, &requests, &limits, &mut errors);
            }
        }
        for item in items(range, "Pod") {
            check_item(item, &total(spec, Side::Requests), &total(spec, Side::Limits), &mut errors);
        }
        aggregate(errors)?;
    }
    Ok(())
}

/// What of the claim's size lies outside of the bounds.
///
/// # Errors
/// The message.
pub(super) fn judge_claim(claim: &PersistentVolumeClaim, ranges: &[LimitRange]) -> Result<(), String> {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.clone()).unwrap_or_default();
    for range in ranges {
        let mut errors = Vec::new();
        for item in items(range, "PersistentVolumeClaim") {
            for (name, bound) in item.min.iter().flatten() {
                errors.extend(below(item, name, bound, &requests, &Amounts::new()));
            }
            for (name, bound) in item.max.iter().flatten() {
                // A claim has no limits: its request is what must not exceed the bound.
                errors.extend(above(item, name, bound, &Amounts::new(), &requests));
            }
        }
        aggregate(errors)?;
    }
    Ok(())
}

fn aggregate(mut errors: Vec<String>) -> Result<(), String> {
    errors.dedup();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

fn check_item(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, bound) in item.min.iter().flatten() {
        errors.extend(below(item, name, bound, requests, limits));
    }
    for (name, bound) in item.max.iter().flatten() {
        errors.extend(above(item, name, bound, requests, limits));
    }
    for (name, bound) in item.max_limit_request_ratio.iter().flatten() {
        errors.extend(ratio(item, name, bound, requests, limits));
    }
}

/// Brings amounts to one precision: thousandths while they fit.
fn comparable<const N: usize>(amounts: [&Quantity; N]) -> [i64; N] {
    if amounts.iter().all(|a| a.value() <= MAX_MILLI) {
        amounts.map(Quantity::milli_value)
    } else {
        amounts.map(Quantity::value)
    }
}

fn less(a: &Quantity, b: &Quantity) -> bool {
    let [a, b] = comparable([a, b]);
    a < b
}

fn below(item: &LimitRangeItem, name: &str, bound: &Wire, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("minimum {name} usage per {} is {}", item.type_, bound.0);
    let bound = Quantity::of(bound);
    let Some(request) = requests.get(name) else { return Some(format!("{head}.  No request is specified")) };
    if less(&Quantity::of(request), &bound) {
        return Some(format!("{head}, but request is {}", request.0));
    }
    let limit = limits.get(name)?;
    less(&Quantity::of(limit), &bound).then(|| format!("{head}, but limit is {}", limit.0))
}

fn above(item: &LimitRangeItem, name: &str, bound: &Wire, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {} is {}", item.type_, bound.0);
    let bound = Quantity::of(bound);
    let Some(limit) = limits.get(name) else { return Some(format!("{head}.  No limit is specified")) };
    if less(&bound, &Quantity::of(limit)) {
        let side = if item.type_ == "PersistentVolumeClaim" { "request" } else { "limit" };
        return Some(format!("{head}, but {side} is {}", limit.0));
    }
    let request = requests.get(name)?;
    less(&bound, &Quantity::of(request)).then(|| format!("{head}, but request is {}", request.0))
}

fn ratio(item: &LimitRangeItem, name: &str, bound: &Wire, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {} is {}", item.type_, bound.0);
    let positive = |amounts: &Amounts| amounts.get(name).map(Quantity::of).filter(|q| !q.is_zero());
    let Some(request) = positive(requests) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = positive(limits) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let [request, limit] = comparable([&request, &limit]);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for comparison and display, as upstream computes it")]
    let (observed, allowed) = (limit as f64 / request as f64, Quantity::of(bound).milli_value() as f64 / 1000.0);
    (observed > allowed).then(|| format!("{head}, but provided ratio is {observed:.6}"))
}

#[derive(Clone, Copy)]
enum Side {
    Requests,
    Limits,
}

/// The pod's amounts: its containers' together, or its largest init container's where that is more.
fn total(spec: &PodSpec, side: Side) -> Amounts {
    let amounts = |c: &Container| {
        let resources = c.resources.as_ref();
        let list = match side {
            Side::Requests => resources.and_then(|r| r.requests.clone()),
            Side::Limits => resources.and_then(|r| r.limits.clone()),
        };
        list.unwrap_or_default()
    };
    let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, amount) in spec.containers.iter().flat_map(amounts) {
        let slot = sum.entry(name).or_insert(Quantity::ZERO);
        *slot = slot.plus(Quantity::of(&amount));
    }
    for (name, amount) in spec.init_containers.iter().flatten().flat_map(amounts) {
        let slot = sum.entry(name).or_insert(Quantity::ZERO);
        *slot = (*slot).max(Quantity::of(&amount));
    }
    sum.into_iter().map(|(name, amount)| (name, amount.to_wire())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(items: &Value) -> Vec<LimitRange> {
        vec![serde_json::from_value(json!({"metadata": {}, "spec": {"limits": items}})).unwrap()]
    }

    fn pod(resources: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}}))
            .unwrap()
    }

    #[test]
    fn defaults_fill_in_what_is_missing() {
        let ranges = range(&json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}]));
        let mut got = pod(&json!({"limits": {"memory": "2Gi"}}));
        apply_defaults(&mut got, &ranges);
        assert_eq!(
            got.metadata.annotations.unwrap()[ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
        let resources = serde_json::to_value(&got.spec.unwrap().containers[0].resources).unwrap();
        assert_eq!(resources, json!({"limits": {"cpu": "500m", "memory": "2Gi"}, "requests": {"cpu": "100m"}}));
    }

    #[track_caller]
    fn check(item: &Value, resources: &Value, expected: Result<(), &str>) {
        let got = judge_pod(&pod(resources), &range(&json!([item])));
        assert_eq!(got, expected.map_err(str::to_owned), "{item}");
    }

    #[test]
    fn bounds_are_enforced_in_upstreams_words() {
        let min = json!({"type": "Container", "min": {"cpu": "100m"}});
        check(&min, &json!({"requests": {"cpu": "100m"}}), Ok(()));
        check(&min, &json!({}), Err("minimum cpu usage per Container is 100m.  No request is specified"));
        check(
            &min,
            &json!({"requests": {"cpu": "50m"}}),
            Err("minimum cpu usage per Container is 100m, but request is 50m"),
        );
        let max = json!({"type": "Container", "max": {"memory": "1Gi", "cpu": "1"}});
        check(
            &max,
            &json!({"limits": {"memory": "2Gi", "cpu": "2"}}),
            Err("[maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, \
                 but limit is 2Gi]"),
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        check(&ratio, &json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}), Ok(()));
        check(
            &ratio,
            &json!({"limits": {"cpu": "3"}, "requests": {"cpu": "1"}}),
            Err("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
        );
        let whole = json!({"type": "Pod", "max": {"cpu": "1"}});
        check(&whole, &json!({"limits": {"cpu": "1500m"}}), Err("maximum cpu usage per Pod is 1, but limit is 1500m"));
    }

    #[test]
    fn a_claims_size_is_bounded() {
        let ranges = range(&json!([
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
        let judge = |size: &str| {
            let claim = json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": size}}}});
            judge_claim(&serde_json::from_value(claim).unwrap(), &ranges)
        };
        assert_eq!(judge("1Gi"), Ok(()));
        assert_eq!(
            judge("3Gi"),
            Err("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi".into())
        );
        assert_eq!(
            judge("1Mi"),
            Err("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi".into())
        );
    }
}
