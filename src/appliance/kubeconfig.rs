//! The kubeconfig file that the first start leaves for the administrator.

use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::pki::{KeyPair, write_private};

/// Writes a kubeconfig whose user is the given client certificate.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, server: &str, ca_pem: &str, user: &KeyPair) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "coracle",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca_pem) },
        }],
        "users": [{
            "name": "coracle-admin",
            "user": {
                "client-certificate-data": STANDARD.encode(&user.certificate_pem),
                "client-key-data": STANDARD.encode(&user.key_pem),
            },
        }],
        "contexts": [{ "name": "coracle", "context": { "cluster": "coracle", "user": "coracle-admin" } }],
        "current-context": "coracle",
        "preferences": {},
    });
    let text = serde_yaml_ng::to_string(&config).context("encoding the kubeconfig")?;
    write_private(path, text.as_bytes()).with_context(|| format!("writing the kubeconfig {}", path.display()))
}
