//! Ingresses: hosts, paths and the services behind them.

use k8s_openapi::api::networking::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(crate) struct Ingress;

impl Kind for Ingress {
    type Object = api::Ingress;

    fn validate(&self, obj: &api::Ingress, errs: &mut ErrorList) {
        let annotated = obj.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
        let class = obj.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
        if let (Some(value), Some(class)) = (annotated, class)
            && value != class
        {
            let path = Path::new("annotations");
            let why = "must match `ingressClassName` when both are specified";
            errs.push(field::invalid(&path.child(CLASS_ANNOTATION), value, why));
        }
        validate_spec(obj, errs);
    }

    fn validate_update(&self, new: &api::Ingress, _old: &api::Ingress, errs: &mut ErrorList) {
        validate_spec(new, errs);
    }

    fn warnings(&self, obj: &api::Ingress) -> Vec<String> {
        let annotated = obj.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS_ANNOTATION));
        let text = format!(
            "annotation {} is deprecated, please use 'spec.ingressClassName' instead",
            field::quote(CLASS_ANNOTATION)
        );
        annotated.then_some(text).into_iter().collect()
    }
}

fn validate_spec(obj: &api::Ingress, errs: &mut ErrorList) {
    let path = Path::new("spec");
    let empty = api::IngressSpec::default();
    let spec = obj.spec.as_ref().unwrap_or(&empty);
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        errs.push(field::invalid(&path, &rules, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(backend) = spec.default_backend.as_ref() {
        validate_backend(backend, &path.child("defaultBackend"), errs);
    }
    let at = path.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_rule(rule, &at.index(i), errs);
    }
    let at = path.child("tls");
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = at.index(i);
        let hosts_at = at.child("hosts");
        for (j, host) in tls.hosts.iter().flatten().enumerate() {
            if errs.is_full() {
                break;
            }
            validate_host(host, &hosts_at.index(j), errs);
        }
        if let Some(name) = tls.secret_name.as_deref().filter(|n| !n.is_empty()) {
            field::invalid_each(&at.child("secretName"), name, format::dns1123_subdomain(name), errs);
        }
    }
    if let Some(class) = spec.ingress_class_name.as_deref() {
        field::invalid_each(&path.child("ingressClassName"), class, format::dns1123_subdomain(class), errs);
    }
}

fn validate_host(host: &str, path: &Path<'_>, errs: &mut ErrorList) {
    let wrong =
        if host.contains('*') { format::wildcard_dns1123_subdomain(host) } else { format::dns1123_subdomain(host) };
    field::invalid_each(path, host, wrong, errs);
}

fn validate_rule(rule: &api::IngressRule, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
        let at = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errs.push(field::invalid(&at, host, "must be a DNS name, not an IP address"));
        } else {
            validate_host(host, &at, errs);
        }
    }
    let Some(http) = rule.http.as_ref() else { return };
    let paths_at = path.child("http.paths");
    if http.paths.is_empty() {
        errs.push(field::required(&paths_at, ""));
    }
    for (i, entry) in http.paths.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = paths_at.index(i);
        validate_path(entry, &at, errs);
        validate_backend(&entry.backend, &at.child("backend"), errs);
    }
}

fn validate_path(entry: &api::HTTPIngressPath, path: &Path<'_>, errs: &mut ErrorList) {
    let url = entry.path.as_deref().unwrap_or("");
    let at = path.child("path");
    match entry.path_type.as_str() {
        "" => errs.push(field::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !url.starts_with('/') {
                errs.push(field::invalid(&at, url, "must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| url.contains(bad)) {
                errs.push(field::invalid(&at, url, format!("must not contain '{bad}'")));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| url.ends_with(bad)) {
                errs.push(field::invalid(&at, url, format!("cannot end with '{bad}'")));
            }
        }
        "ImplementationSpecific" => {
            if !url.is_empty() && !url.starts_with('/') {
                errs.push(field::invalid(&at, url, "must be an absolute path"));
            }
        }
        other => errs.push(field::not_supported(&path.child("pathType"), other, PATH_TYPES)),
    }
}

fn validate_backend(backend: &api::IngressBackend, path: &Path<'_>, errs: &mut ErrorList) {
    match (backend.service.as_ref(), backend.resource.as_ref()) {
        (Some(_), Some(_)) => {
            errs.push(field::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errs.push(field::required(path, "service or resource backend is required")),
        (None, Some(resource)) => {
            let at = path.child("resource");
            for (name, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                if value.is_empty() {
                    errs.push(field::required(&at.child(name), ""));
                }
            }
        }
        (Some(service), None) => {
            let at = path.child("service");
            if service.name.is_empty() {
                errs.push(field::required(&at.child("name"), ""));
            } else {
                field::invalid_each(&at.child("name"), &service.name, format::dns1035_label(&service.name), errs);
            }
            let port = service.port.clone().unwrap_or_default();
            let (name, number) = (port.name.as_deref().unwrap_or(""), port.number.unwrap_or(0));
            match (name, number) {
                ("", 0) => errs.push(field::required(path, "port name or number is required")),
                ("", number) => {
                    let wrong = format::port_number(i64::from(number));
                    field::invalid_each(&at.child("port.number"), &number, wrong, errs);
                }
                (_, number) if number != 0 => {
                    errs.push(field::invalid(path, "", "cannot set both port name & port number"));
                }
                (name, _) => {
                    field::invalid_each(&at.child("port.name"), name, format::port_name(name), errs);
                }
            }
        }
    }
}
