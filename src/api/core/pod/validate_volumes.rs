//! The volumes of a pod: names, exactly one source each, and the sources that live in the cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, ProjectedVolumeSource,
    Volume, VolumeProjection,
};

use super::validate_env::{VOLUME_FIELDS, validate_field_ref, validate_resource_ref};
use super::validate_mounts::{validate_no_backsteps, validate_non_reserved};
use super::validate_remote_volumes::validate_remote;
use crate::core::persistent_volume_claim::validate_claim_template;
use crate::field::{self, ErrorList, Path};
use crate::meta::format::{self, NameRule};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks the volumes and returns those that containers may mount.
pub(super) fn validate_volumes<'a>(
    volumes: &'a [Volume],
    pod_name: Option<&str>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) -> BTreeMap<&'a str, &'a Volume> {
    let pod_name = pod_name.filter(|n| !n.is_empty());
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|v| v.ephemeral.is_some())
        .filter_map(|v| pod_name.map(|pod| format!("{pod}-{}", v.name)))
        .collect();
    let mut good = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = path.index(i);
        if errs.is_full() {
            break;
        }
        let before = errs.len();
        validate_source(volume, pod_name, &at, errs);
        let name_at = at.child("name");
        if volume.name.is_empty() {
            errs.push(field::required(&name_at, ""));
        } else {
            field::invalid_each(&name_at, &volume.name, format::dns1123_label(&volume.name), errs);
        }
        if good.contains_key(volume.name.as_str()) {
            errs.push(field::duplicate(&name_at, &volume.name));
        }
        if errs.len() == before {
            good.insert(volume.name.as_str(), volume);
        }
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|c| created.contains(&c.claim_name)) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errs.push(field::invalid(&at.child("persistentVolumeClaim.claimName"), &claim.claim_name, why));
        }
    }
    good
}

/// Counts the sources of one volume; only the first is looked into.
pub(super) struct OneSource {
    count: usize,
}

impl OneSource {
    pub(super) fn first(&mut self, path: &Path<'_>, errs: &mut ErrorList) -> bool {
        self.count += 1;
        if self.count > 1 {
            errs.push(field::forbidden(path, "may not specify more than 1 volume type"));
        }
        self.count == 1
    }
}

fn validate_source(volume: &Volume, pod_name: Option<&str>, path: &Path<'_>, errs: &mut ErrorList) {
    let mut one = OneSource { count: 0 };
    if let Some(dir) = volume.empty_dir.as_ref() {
        one.count += 1;
        if dir.size_limit.as_ref().is_some_and(|l| crate::quantity::Quantity::of(l).sign() < 0) {
            let why = "SizeLimit field must be a valid resource quantity";
            errs.push(field::forbidden(&path.child("emptyDir.sizeLimit"), why));
        }
    }
    if let Some(host) = volume.host_path.as_ref() {
        let at = path.child("hostPath");
        if one.first(&at, errs) {
            validate_host_path(host, &at, errs);
        }
    }
    if let Some(secret) = volume.secret.as_ref() {
        let at = path.child("secret");
        if one.first(&at, errs) {
            let name = secret.secret_name.as_deref().unwrap_or("");
            validate_keys(("secretName", name), secret.default_mode, secret.items.as_deref(), &at, errs);
        }
    }
    validate_remote(volume, &mut one, path, errs);
    if let Some(claim) = volume.persistent_volume_claim.as_ref() {
        let at = path.child("persistentVolumeClaim");
        if one.first(&at, errs) && claim.claim_name.is_empty() {
            errs.push(field::required(&at.child("claimName"), ""));
        }
    }
    if let Some(downward) = volume.downward_api.as_ref() {
        let at = path.child("downwardAPI");
        if one.first(&path.child("downwarAPI"), errs) {
            validate_mode("defaultMode", downward.default_mode, &at, errs);
            for file in downward.items.iter().flatten() {
                if errs.is_full() {
                    break;
                }
                validate_downward_file(file, &at, errs);
            }
        }
    }
    if let Some(map) = volume.config_map.as_ref() {
        let at = path.child("configMap");
        if one.first(&at, errs) {
            validate_keys(("name", &map.name), map.default_mode, map.items.as_deref(), &at, errs);
        }
    }
    if let Some(projected) = volume.projected.as_ref() {
        let at = path.child("projected");
        if one.first(&at, errs) {
            validate_mode("defaultMode", projected.default_mode, &at, errs);
            validate_projections(projected, &at, errs);
        }
    }
    validate_late_sources(volume, pod_name, &mut one, path, errs);
    if one.count == 0 {
        errs.push(field::required(path, "must specify a volume type"));
    }
}

fn validate_late_sources(
    volume: &Volume,
    pod_name: Option<&str>,
    one: &mut OneSource,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    if let Some(ephemeral) = volume.ephemeral.as_ref() {
        let at = path.child("ephemeral");
        if one.first(&at, errs) {
            match ephemeral.volume_claim_template.as_ref() {
                None => errs.push(field::required(&at.child("volumeClaimTemplate"), "")),
                Some(template) => validate_claim_template(template, &at.child("volumeClaimTemplate"), errs),
            }
            if let Some(pod) = pod_name.filter(|_| !volume.name.is_empty()) {
                let claim = format!("{pod}-{}", volume.name);
                let why = NameRule::Subdomain.check(&claim, false).into_iter();
                let why = why.map(|w| format!("PVC name {}: {w}", field::quote(&claim)));
                field::invalid_each(&path.child("name"), &volume.name, why, errs);
            }
        }
    }
    if let Some(image) = volume.image.as_ref() {
        let at = path.child("image");
        if one.first(&at, errs) {
            if image.reference.as_deref().unwrap_or("").is_empty() {
                errs.push(field::required(&at.child("reference"), ""));
            }
            match image.pull_policy.as_deref().unwrap_or("") {
                "" => errs.push(field::required(&at.child("pullPolicy"), "")),
                "Always" | "IfNotPresent" | "Never" => {}
                other => {
                    let known = &["Always", "IfNotPresent", "Never"];
                    errs.push(field::not_supported(&at.child("pullPolicy"), other, known));
                }
            }
        }
    }
}

pub(crate) fn validate_host_path(host: &HostPathVolumeSource, path: &Path<'_>, errs: &mut ErrorList) {
    if host.path.is_empty() {
        errs.push(field::required(&path.child("path"), ""));
        return;
    }
    validate_no_backsteps(&host.path, &path.child("path"), errs);
    if let Some(kind) = host.type_.as_deref().filter(|k| !HOST_PATH_TYPES.contains(k)) {
        errs.push(field::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
    }
}

fn validate_mode(name: &str, mode: Option<i32>, path: &Path<'_>, errs: &mut ErrorList) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errs.push(field::invalid(&path.child(name), &mode, FILE_MODE));
    }
}

fn validate_keys(
    (label, name): (&str, &str),
    mode: Option<i32>,
    items: Option<&[KeyToPath]>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    if name.is_empty() {
        errs.push(field::required(&path.child(label), ""));
    }
    validate_mode("defaultMode", mode, path, errs);
    let items_at = path.child("items");
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_key_to_path(item, &items_at.index(i), errs);
    }
}

fn validate_key_to_path(item: &KeyToPath, path: &Path<'_>, errs: &mut ErrorList) {
    if item.key.is_empty() {
        errs.push(field::required(&path.child("key"), ""));
    }
    if item.path.is_empty() {
        errs.push(field::required(&path.child("path"), ""));
    }
    validate_non_reserved(&item.path, &path.child("path"), errs);
    validate_mode("mode", item.mode, path, errs);
}

fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path<'_>, errs: &mut ErrorList) {
    if file.path.is_empty() {
        errs.push(field::required(&path.child("path"), ""));
    }
    validate_non_reserved(&file.path, &path.child("path"), errs);
    match (file.field_ref.as_ref(), file.resource_field_ref.as_ref()) {
        (Some(reference), resource) => {
            validate_field_ref(reference, VOLUME_FIELDS, &path.child("fieldRef"), errs);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errs.push(field::invalid(path, "resource", why));
            }
        }
        (None, Some(resource)) => validate_resource_ref(resource, true, &path.child("resourceFieldRef"), errs),
        (None, None) => errs.push(field::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    validate_mode("mode", file.mode, path, errs);
}

fn validate_projections(projected: &ProjectedVolumeSource, path: &Path<'_>, errs: &mut ErrorList) {
    let mut paths = BTreeSet::new();
    let sources_at = path.child("sources");
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        validate_projection(source, &mut paths, path, &sources_at.index(i), errs);
    }
}

fn validate_projection<'a>(
    source: &'a VolumeProjection,
    paths: &mut BTreeSet<&'a str>,
    volume_at: &Path<'_>,
    path: &Path<'_>,
    errs: &mut ErrorList,
) {
    let mut claim = |target: &'a str, value: &str, errs: &mut ErrorList| {
        if !target.is_empty() && !paths.insert(target) {
            errs.push(field::invalid(volume_at, value, "conflicting duplicate paths"));
        }
    };
    let mut count = 0;
    let keyed = [
        ("secret", source.secret.as_ref().map(|s| (&s.name, s.items.as_deref()))),
        ("configMap", source.config_map.as_ref().map(|m| (&m.name, m.items.as_deref()))),
    ];
    for (kind, keys) in keyed {
        let Some((name, items)) = keys else { continue };
        count += 1;
        let at = path.child(kind);
        validate_keys(("name", name), None, items, &at, errs);
        for item in items.unwrap_or_default() {
            if errs.is_full() {
                break;
            }
            claim(&item.path, name, errs);
        }
    }
    if let Some(downward) = source.downward_api.as_ref() {
        count += 1;
        for file in downward.items.iter().flatten() {
            if errs.is_full() {
                break;
            }
            validate_downward_file(file, &path.child("downwardAPI"), errs);
            claim(&file.path, &file.path, errs);
        }
    }
    if let Some(token) = source.service_account_token.as_ref() {
        count += 1;
        let at = path.child("serviceAccountToken.expirationSeconds");
        let seconds = token.expiration_seconds.unwrap_or(0);
        if seconds < 600 {
            errs.push(field::invalid(&at, &seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            errs.push(field::invalid(&at, &seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        if token.path.is_empty() {
            errs.push(field::required(&volume_at.child("path"), ""));
        } else {
            validate_non_reserved(&token.path, &volume_at.child("path"), errs);
        }
    }
    if let Some(bundle) = source.cluster_trust_bundle.as_ref() {
        count += 1;
        validate_trust_bundle(bundle, &path.child("clusterTrustBundle"), errs);
        claim(&bundle.path, &bundle.path, errs);
    }
    if source.pod_certificate.is_some() {
        count += 1;
    }
    if count > 1 {
        errs.push(field::forbidden(path, "may not specify more than 1 volume type per source"));
    }
}

fn validate_trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path<'_>, errs: &mut ErrorList) {
    match (bundle.name.as_deref(), bundle.signer_name.as_deref()) {
        (Some(_), Some(_)) => errs.push(field::invalid(path, bundle, "only one of name and signerName may be used")),
        (Some(name), None) => {
            if name.is_empty() {
                errs.push(field::required(&path.child("name"), "must be a valid object name"));
            }
            if bundle.label_selector.is_some() {
                let why = "labelSelector must be unset if name is specified";
                errs.push(field::invalid(&path.child("labelSelector"), &bundle.label_selector, why));
            }
        }
        (None, Some("")) => errs.push(field::required(&path.child("signerName"), "must be a valid signer name")),
        (None, Some(_)) => {}
        (None, None) => errs.push(field::required(path, "either name or signerName must be specified")),
    }
    if bundle.path.is_empty() {
        errs.push(field::required(&path.child("path"), ""));
    }
    validate_non_reserved(&bundle.path, &path.child("path"), errs);
}
