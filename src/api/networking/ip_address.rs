//! IP addresses of Services: the name is the address, and the parent that it was given to never changes.

use k8s_openapi::api::networking::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

pub(crate) struct IpAddress;

impl Kind for IpAddress {
    type Object = api::IPAddress;

    fn validate(&self, obj: &api::IPAddress, errs: &mut ErrorList) {
        let at = Path::new("spec.parentRef");
        let parent = &obj.spec.parent_ref;
        if *parent == api::ParentReference::default() {
            errs.push(field::required(&at, ""));
            return;
        }
        let group = parent.group.as_deref().unwrap_or("");
        if !group.is_empty() {
            field::invalid_each(&at.child("group"), group, format::dns1123_subdomain(group), errs);
        }
        for (name, value) in [("resource", parent.resource.as_str()), ("name", parent.name.as_str())] {
            if value.is_empty() {
                errs.push(field::required(&at.child(name), ""));
            } else {
                field::invalid_each(&at.child(name), value, format::path_segment(value), errs);
            }
        }
        let namespace = parent.namespace.as_deref().unwrap_or("");
        if !namespace.is_empty() {
            field::invalid_each(&at.child("namespace"), namespace, format::path_segment(namespace), errs);
        }
    }

    fn validate_update(&self, new: &api::IPAddress, old: &api::IPAddress, errs: &mut ErrorList) {
        field::immutable(&Path::new("spec.parentRef"), &new.spec.parent_ref, &old.spec.parent_ref, errs);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: &Value, expected: &[&str]) {
        let address: api::IPAddress = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let mut errs = ErrorList::new();
        IpAddress.validate(&address, &mut errs);
        let got: Vec<_> = errs.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected, "{spec}");
    }

    #[test]
    fn an_address_belongs_to_something() {
        check(&json!({"parentRef": {"resource": "services", "namespace": "a", "name": "b"}}), &[]);
        check(&json!({"parentRef": {"group": "g.x", "resource": "things", "name": "b"}}), &[]);
        check(&json!({}), &["spec.parentRef: Required value"]);
        check(&json!({"parentRef": {"resource": "services"}}), &["spec.parentRef.name: Required value"]);
    }
}
