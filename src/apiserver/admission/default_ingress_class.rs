//! DefaultIngressClass: an ingress that names no class gets the one that is marked as the default.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How an ingress named its class before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) fn admit(ingress: &mut Ingress, classes: &[IngressClass]) {
    let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
    let spec = ingress.spec.get_or_insert_default();
    if spec.ingress_class_name.is_none() && !annotated {
        spec.ingress_class_name = default_class(classes);
    }
}

/// Of several, the one that was made last, and of those the first by name.
fn default_class(classes: &[IngressClass]) -> Option<String> {
    let marked = classes.iter().map(|class| &class.metadata).filter(|metadata| {
        metadata.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|value| value == "true")
    });
    let age = |made: &Option<_>| std::cmp::Reverse(made.clone());
    marked.min_by_key(|m| (age(&m.creation_timestamp), m.name.clone())).and_then(|m| m.name.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, second: u8, marked: &str) -> IngressClass {
        serde_json::from_value(json!({"metadata": {"name": name,
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"), "annotations": {IS_DEFAULT: marked}}}))
        .unwrap()
    }

    #[track_caller]
    fn check(ingress: &Value, classes: &[IngressClass], expected: Option<&str>) {
        let mut typed: Ingress = serde_json::from_value(ingress.clone()).unwrap();
        admit(&mut typed, classes);
        assert_eq!(typed.spec.unwrap().ingress_class_name.as_deref(), expected, "{ingress}");
    }

    #[test]
    fn the_latest_default_class_is_taken() {
        let bare = json!({"metadata": {}, "spec": {}});
        let (a, b, c) = (class("a", 1, "true"), class("b", 2, "true"), class("c", 3, "false"));
        check(&bare, &[], None);
        check(&bare, &[a.clone(), b.clone(), c.clone()], Some("b"));
        check(&bare, &[c], None);
        check(&bare, &[b.clone(), class("a", 2, "true")], Some("a"));
        check(&json!({"metadata": {}, "spec": {"ingressClassName": "own"}}), &[a, b.clone()], Some("own"));
        check(&json!({"metadata": {"annotations": {CLASS: "nginx"}}, "spec": {}}), &[b], None);
    }
}
