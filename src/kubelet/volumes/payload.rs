//! The files of configMap, secret, downwardAPI and projected volumes, computed from their sources.
//! Pure: the sources come decoded, tokens are made before.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, SecretVolumeSource,
};
use bytes::Bytes;
use thiserror::Error;

use crate::downward::{self, FieldContext};
use crate::sources::ObjectBytes;

/// Bytes that the files of one volume take at the most: a few times what the largest objects hold.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// The same for all volumes of one pod. Most of them are kept in memory.
const POD_BYTES_MAX: usize = 64 << 20;
/// The objects that the files of one pod come from, each as often as it is named: one of a megabyte can be named
/// ten thousand times for a file of a few bytes.
const OBJECT_BYTES_MAX: usize = 256 << 20;
/// Files take whole pages, and each an inode.
const PAGE: usize = 4096;
const INODE: usize = 1024;

/// Files by path relative to the volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    files: BTreeMap<String, File>,
    bytes: usize,
}

impl Payload {
    pub(super) fn files(&self) -> &BTreeMap<String, File> {
        &self.files
    }

    /// Adds one file; its path stays inside the volume.
    pub(super) fn add(&mut self, path: &str, data: Bytes, mode: u32) -> Result<&mut File, PayloadError> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let escapes =
            path.starts_with('/') || parts.contains(&"..") || parts.first().is_none_or(|p| p.starts_with(".."));
        if escapes {
            return Err(PayloadError::Path(path.to_owned()));
        }
        self.bytes += data.len().next_multiple_of(PAGE) + INODE;
        if self.bytes > BYTES_MAX {
            return Err(PayloadError::TooLarge);
        }
        let slot = self.files.entry(parts.join("/"));
        Ok(slot.insert_entry(File { data, mode, uid: None }).into_mut())
    }
}

/// What is left for the files of one pod.
pub(super) struct BytesLeft {
    files: usize,
    /// For the objects that they come from.
    pub(super) objects: ObjectBytes,
}

impl BytesLeft {
    pub(super) fn of_pod() -> Self {
        Self { files: POD_BYTES_MAX, objects: ObjectBytes::new(OBJECT_BYTES_MAX) }
    }

    pub(super) fn take(&mut self, payload: &Payload) -> Result<(), String> {
        let left = self.files.checked_sub(payload.bytes);
        self.files = left.ok_or("the files of the pod's volumes take more than 64 MiB")?;
        Ok(())
    }

    /// All that was taken.
    pub(super) fn taken(&self) -> usize {
        POD_BYTES_MAX - self.files
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Bytes,
    pub(crate) mode: u32,
    /// The owner, when it is not root.
    pub(crate) uid: Option<u32>,
}

/// Why the files cannot be made; the texts end `MountVolume.SetUp failed for volume "x" : `.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PayloadError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("configmap references non-existent config key: {0}")]
    NoConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    #[error("invalid path {0:?}")]
    Path(String),
    #[error("the files of the volume take more than 32 MiB")]
    TooLarge,
    #[error(transparent)]
    Field(#[from] downward::FieldError),
}

/// Which keys go where, and what is allowed to be absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    pub(crate) items: Option<&'a [KeyToPath]>,
    pub(crate) default_mode: u32,
    pub(crate) optional: bool,
}

pub(crate) const DEFAULT_MODE: u32 = 0o644;

pub(crate) fn mode(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|m| u32::try_from(m).ok()).unwrap_or(default)
}

impl<'a> Selection<'a> {
    pub(crate) fn of_config_map(source: &'a ConfigMapVolumeSource) -> Self {
        Self {
            items: source.items.as_deref(),
            default_mode: mode(source.default_mode, DEFAULT_MODE),
            optional: source.optional == Some(true),
        }
    }

    pub(crate) fn of_secret(source: &'a SecretVolumeSource) -> Self {
        Self {
            items: source.items.as_deref(),
            default_mode: mode(source.default_mode, DEFAULT_MODE),
            optional: source.optional == Some(true),
        }
    }
}

pub(crate) fn config_map(
    name: &str,
    map: Option<ConfigMap>,
    selection: Selection<'_>,
    into: &mut Payload,
) -> Result<(), PayloadError> {
    let Some(map) = map else {
        return if selection.optional { Ok(()) } else { Err(PayloadError::NoConfigMap(name.to_owned())) };
    };
    let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into()));
    let binary = map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0.into()));
    select(text.chain(binary).collect(), selection, PayloadError::NoConfigKey, into)
}

pub(crate) fn secret(
    name: &str,
    secret: Option<Secret>,
    selection: Selection<'_>,
    into: &mut Payload,
) -> Result<(), PayloadError> {
    let Some(secret) = secret else {
        return if selection.optional { Ok(()) } else { Err(PayloadError::NoSecret(name.to_owned())) };
    };
    let data = secret.data.into_iter().flatten().map(|(k, v)| (k, v.0.into())).collect();
    select(data, selection, PayloadError::NoSecretKey, into)
}

fn select(
    data: BTreeMap<String, Bytes>,
    selection: Selection<'_>,
    missing: fn(String) -> PayloadError,
    into: &mut Payload,
) -> Result<(), PayloadError> {
    let Some(items) = selection.items.filter(|i| !i.is_empty()) else {
        for (key, data) in data {
            into.add(&key, data, selection.default_mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                into.add(&item.path, content.clone(), mode(item.mode, selection.default_mode))?;
            }
            None if selection.optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(())
}

pub(crate) fn downward_api(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    fields: &FieldContext<'_>,
    into: &mut Payload,
) -> Result<(), PayloadError> {
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            downward::metadata_field(pod, &field.field_path)?
        } else if let Some(resource) = &item.resource_field_ref {
            downward::resource_field(pod, None, resource, fields)?
        } else {
            continue;
        };
        into.add(&item.path, text.into(), mode(item.mode, default_mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})).unwrap()
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.to_owned(), path: path.to_owned(), mode }
    }

    #[track_caller]
    fn check(map: Option<ConfigMap>, items: &[KeyToPath], optional: bool, expected: Result<&[(&str, u32)], &str>) {
        let selection = Selection { items: Some(items), default_mode: 0o644, optional };
        let mut payload = Payload::default();
        let got = config_map("cm", map, selection, &mut payload);
        let files: Vec<_> = payload.files().iter().map(|(p, f)| (p.as_str(), f.mode)).collect();
        match (got, expected) {
            (Ok(()), Ok(expected)) => assert_eq!(files, expected),
            (Err(e), Err(expected)) => assert_eq!(e.to_string(), expected),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn keys_become_files() {
        check(Some(map()), &[], false, Ok(&[("a", 0o644), ("b", 0o644), ("c", 0o644)]));
        check(Some(map()), &[item("a", "x/y", Some(0o400))], false, Ok(&[("x/y", 0o400)]));
        check(Some(map()), &[item("a", "x", None), item("a", "y", None)], false, Ok(&[("x", 0o644), ("y", 0o644)]));
        check(Some(map()), &[item("z", "z", None)], true, Ok(&[]));
        check(Some(map()), &[item("z", "z", None)], false, Err("configmap references non-existent config key: z"));
        check(None, &[], false, Err("configmap \"cm\" not found"));
        check(None, &[], true, Ok(&[]));
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["/etc/passwd", "../x", "a/../../b", "..data", ""] {
            assert!(Payload::default().add(bad, Bytes::new(), 0o644).is_err(), "{bad}");
        }
    }
    #[test]
    fn volumes_and_pods_have_so_much_room_and_no_more() {
        let mut many = Payload::default();
        let full = (0..1_000_000).find(|n| many.add(&n.to_string(), Bytes::new(), 0o644).is_err());
        assert_eq!(full, Some(BYTES_MAX / INODE));
        let mut half = Payload::default();
        half.add("a", vec![0; BYTES_MAX / 2].into(), 0o644).unwrap();
        assert_eq!(half.add("b", vec![0; BYTES_MAX / 2].into(), 0o644).unwrap_err(), PayloadError::TooLarge);
        let mut left = BytesLeft::of_pod();
        assert_eq!((0..9).find(|_| left.take(&half).is_err()), Some(POD_BYTES_MAX / half.bytes));
    }
}
