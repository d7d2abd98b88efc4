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
    // Written only when it differs: a full disk must not keep the server from starting.
    if statefile::read_text(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    write_private(path, text.as_bytes()).with_context(|| format!("writing the kubeconfig {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_right_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig.yaml");
        let user = KeyPair { certificate_pem: "certificate".to_owned(), key_pem: "key".to_owned() };
        write(&path, "https://127.0.0.1:6443", "ca", &user).unwrap();
        // Nothing can be written any more, as on a full disk.
        std::fs::create_dir(dir.path().join("kubeconfig.yaml.tmp")).unwrap();
        write(&path, "https://127.0.0.1:6443", "ca", &user).unwrap();
        write(&path, "https://127.0.0.1:7443", "ca", &user).unwrap_err();
    }
}
