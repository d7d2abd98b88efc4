//! Certificates of a server that runs for years: issued anew before they end, and served from the next
//! handshake on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::tls::Certificates;
use super::{open_pki, write_kubeconfig};
use crate::config::ServerConfig;

/// Of the ninety days before a certificate's end in which it is renewed, each has two tries.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 60 * 60);

/// Renews what is about to end, until cancelled.
///
/// The certificate that the API server shows to kubelets is read at its start alone: when that one is
/// renewed, the process ends in order and is started again.
pub(super) async fn keep(config: ServerConfig, certificates: Arc<Certificates>, token: CancellationToken) {
    while token.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let (config, certificates) = (config.clone(), certificates.clone());
        match tokio::task::spawn_blocking(move || renew(&config, &certificates)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return info!("a certificate was renewed that is only read at a start: starting anew"),
            Ok(Err(e)) => warn!("certificates could not be renewed: {e:#}"),
            Err(e) => warn!("certificates could not be renewed: {e}"),
        }
    }
}

/// Returns whether the process has to start anew.
fn renew(config: &ServerConfig, certificates: &Certificates) -> anyhow::Result<bool> {
    let pki = open_pki(config)?;
    let needs_start = certificates.exchange(&pki)?;
    write_kubeconfig(config, &pki).context("the administrator's kubeconfig")?;
    Ok(needs_start)
}
