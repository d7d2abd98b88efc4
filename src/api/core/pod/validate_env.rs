//! Environment variables and where their values may come from.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector};

use super::validate_mounts::validate_non_reserved;
use crate::field::{self, ErrorList, Path};
use crate::meta::format::{self, NameRule};
use crate::quantity::Quantity;

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What the downward API can name at all; a narrower list then says what it may name here.
const CONVERTIBLE: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];
const BYTE_UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn validate_env(vars: &[EnvVar], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, var) in vars.iter().enumerate() {
        if errs.is_full() {
            return;
        }
        let at = path.index(i);
        let name_at = at.child("name");
        if var.name.is_empty() {
            errs.push(field::required(&name_at, ""));
        } else {
            field::invalid_each(&name_at, &var.name, format::env_var_name(&var.name), errs);
        }
        validate_value_from(var, &at.child("valueFrom"), errs);
    }
}

fn validate_value_from(var: &EnvVar, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(from) = var.value_from.as_ref() else { return };
    let mut sources = 0;
    if let Some(reference) = from.field_ref.as_ref() {
        sources += 1;
        validate_field_ref(reference, ENV_FIELDS, &path.child("fieldRef"), errs);
    }
    if let Some(reference) = from.resource_field_ref.as_ref() {
        sources += 1;
        validate_resource_ref(reference, false, &path.child("resourceFieldRef"), errs);
    }
    if let Some(reference) = from.config_map_key_ref.as_ref() {
        sources += 1;
        validate_key_ref(&reference.name, &reference.key, &path.child("configMapKeyRef"), errs);
    }
    if let Some(reference) = from.secret_key_ref.as_ref() {
        sources += 1;
        validate_key_ref(&reference.name, &reference.key, &path.child("secretKeyRef"), errs);
    }
    if let Some(reference) = from.file_key_ref.as_ref() {
        sources += 1;
        let at = path.child("fileKeyRef");
        for (name, value) in
            [("volumeName", &reference.volume_name), ("path", &reference.path), ("key", &reference.key)]
        {
            if value.is_empty() {
                errs.push(field::required(&at.child(name), ""));
            }
        }
        validate_non_reserved(&reference.path, &at.child("path"), errs);
    }
    if sources == 0 {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errs.push(field::invalid(path, "", why));
    } else if !var.value.as_deref().unwrap_or("").is_empty() {
        errs.push(field::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errs.push(field::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

fn validate_key_ref(name: &str, key: &str, path: &Path<'_>, errs: &mut ErrorList) {
    field::invalid_each(&path.child("name"), name, NameRule::Subdomain.check(name, false), errs);
    if key.is_empty() {
        errs.push(field::required(&path.child("key"), ""));
    } else {
        field::invalid_each(&path.child("key"), key, format::config_map_key(key), errs);
    }
}

/// `metadata.labels['x']` as its path and subscript.
fn subscripted(text: &str) -> Option<(&str, &str)> {
    let (path, rest) = text.split_once("['")?;
    rest.strip_suffix("']").filter(|key| !key.is_empty()).map(|key| (path, key))
}

pub(super) fn validate_field_ref(
    reference: &ObjectFieldSelector,
    allowed: &[&str],
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    if reference.api_version.as_deref().unwrap_or("").is_empty() {
        errs.push(field::required(&path.child("apiVersion"), ""));
        return;
    }
    let wanted = reference.field_path.as_str();
    let at = path.child("fieldPath");
    if wanted.is_empty() {
        errs.push(field::required(&at, ""));
        return;
    }
    let wrong_version = reference.api_version.as_deref() != Some("v1");
    let subscript = subscripted(wanted);
    let known = match subscript {
        Some((base, _)) => ["metadata.annotations", "metadata.labels"].contains(&base),
        None => CONVERTIBLE.contains(&wanted),
    };
    if wrong_version {
        let version = reference.api_version.as_deref().unwrap_or("");
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        errs.push(field::invalid(&at, wanted, why));
    } else if !known {
        let why = match subscript {
            Some((base, _)) => format!("error converting fieldPath: field label does not support subscript: {base}"),
            None => format!("error converting fieldPath: field label not supported: {wanted}"),
        };
        errs.push(field::invalid(&at, wanted, why));
    } else if let Some((base, key)) = subscript {
        let key = if base == "metadata.annotations" { key.to_ascii_lowercase() } else { key.to_owned() };
        field::invalid_each(path, &key, format::qualified_name(&key), errs);
    } else if !allowed.contains(&wanted) {
        errs.push(field::not_supported(&at, wanted, allowed));
    }
}

fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-")
}

pub(super) fn validate_resource_ref(
    reference: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let resource = reference.resource.as_str();
    if in_volume && reference.container_name.as_deref().unwrap_or("").is_empty() {
        errs.push(field::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errs.push(field::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !is_huge_pages(resource) {
        errs.push(field::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let Some(divisor) = reference.divisor.as_ref().map(Quantity::of).filter(|d| !d.is_zero()) else { return };
    let divisor = divisor.to_string();
    let noun = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => {
            if !["1m", "1"].contains(&divisor.as_str()) {
                let why = "only divisor's values 1m and 1 are supported with the cpu resource";
                errs.push(field::invalid(&path.child("divisor"), resource, why));
            }
            return;
        }
        Some("memory") => "memory",
        Some("ephemeral-storage") => "local ephemeral storage",
        _ if is_huge_pages(resource) => "hugepages",
        _ => return,
    };
    if !BYTE_UNITS.contains(&divisor.as_str()) {
        let why = format!("only divisor's values {} are supported with the {noun} resource", BYTE_UNITS.join(", "));
        errs.push(field::invalid(&path.child("divisor"), resource, why));
    }
}

pub(super) fn validate_env_from(sources: &[EnvFromSource], path: &Path<'_>, errs: &mut ErrorList) {
    for (i, source) in sources.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            field::invalid_each(&at.child("prefix"), prefix, format::env_var_name(prefix), errs);
        }
        let references = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        let mut count = 0;
        for (kind, name) in references {
            let Some(name) = name else { continue };
            count += 1;
            let kind_at = at.child(kind);
            if name.is_empty() {
                errs.push(field::required(&kind_at.child("name"), ""));
            } else {
                field::invalid_each(&kind_at.child("name"), name, NameRule::Subdomain.check(name, true), errs);
            }
        }
        match count {
            0 => errs.push(field::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errs.push(field::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}
