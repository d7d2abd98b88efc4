//! The configuration blob of an image: its platform, its layers, and what a container runs by default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The parts of an OCI image configuration that are used here; the digest of the whole is the image's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: ProcessDefaults,
    pub rootfs: RootFs,
}

/// What a container runs unless the pod says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ProcessDefaults {
    #[serde(default)]
    pub user: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    #[serde(default)]
    pub working_dir: String,
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Directories that get a writable volume of the container's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Empty>,
}

/// The value of each volume in an image's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<String>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
